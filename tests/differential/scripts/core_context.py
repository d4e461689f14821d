"""What code learns of where it runs."""

import ray


@ray.remote
class A:
    def me(self):
        context = ray.get_runtime_context()
        return context.get_actor_id(), context.get_actor_name(), context.current_actor

    def again(self):
        return 1


@ray.remote
def task():
    context = ray.get_runtime_context()
    return context.get_actor_id(), context.get_task_name(), isinstance(context.get_task_id(), str)


context = ray.get_runtime_context()
print(context.get_actor_id())
print([type(get()).__name__ for get in (context.get_job_id, context.get_node_id)])
a = A.options(name="context_a").remote()
actor_id, name, handle = ray.get(a.me.remote())
print(type(actor_id).__name__, name, handle == a, ray.get(handle.again.remote()))
print(ray.get(task.options(name="named").remote()))
