"""What a node tells of itself."""

import ray
from ray.dag import ClassMethodNode, DAGNode, FunctionNode, InputNode


@ray.remote
def f(a, b=0):
    return a + b


@ray.remote
class A:
    def m(self, x):
        return x

    @ray.method(num_returns=2)
    def pair(self, x):
        return x, -x


with InputNode() as inp:
    node = f.options(num_cpus=1, name="sum").bind(inp, b=2)
print(isinstance(node, FunctionNode), isinstance(node, DAGNode), isinstance(inp, DAGNode))
print(len(node.get_args()), node.get_args()[0] is inp, node.get_kwargs())
print(node.get_options().get("name"), node.get_options().get("num_cpus"))
print(isinstance(node.get_stable_uuid(), str), node.get_stable_uuid() == node.get_stable_uuid())
print(isinstance(A.remote().m.bind(1), ClassMethodNode))
print("FunctionNode" in str(node))
actor = A.remote()
with InputNode(input_type={"rate": int}) as inp:
    call = actor.m.bind(inp.rate)
    first, second = actor.pair.bind(inp[0])
print(inp.rate.key, inp[0].key, sorted(map(str, inp.input_attribute_nodes)), inp.input_type)
for node in (call, first, second):
    print(
        isinstance(node, ClassMethodNode),
        node.get_method_name(),
        node.num_returns,
        node.is_class_method_call,
        node.is_class_method_output,
        node.output_idx,
    )
print(call.class_method_call, second.class_method_call.is_class_method_call)
