"""Remote classes cannot be base classes; plain ones can."""

import ray


class Base:
    def f(self):
        return "base"


@ray.remote
class Child(Base):
    def g(self):
        return self.f() + "/child"


child = Child.remote()
print(ray.get([child.f.remote(), child.g.remote()]))


def subclass():
    class Grandchild(Child):
        pass


try:
    subclass()
except ray.actor.ActorClassInheritanceException as error:
    print("refused", isinstance(error, TypeError))
