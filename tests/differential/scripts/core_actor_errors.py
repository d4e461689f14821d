"""A method's exception leaves the actor as it is."""

import ray
from seen import attempt


@ray.remote
class Account:
    def __init__(self):
        self.value = 0

    def take(self, n):
        if n > self.value:
            raise ValueError("not enough")
        self.value -= n
        return self.value

    def put(self, n):
        self.value += n


account = Account.remote()
attempt(lambda: ray.get(account.take.remote(1)), "RayTaskError", "ValueError", "RayActorError")
ray.get(account.put.remote(5))
print(ray.get(account.take.remote(1)))
attempt(lambda: account.take(1), "TypeError")
attempt(lambda: account.nothing.remote(), "AttributeError")
attempt(lambda: account.take.remote(), "TypeError")
attempt(lambda: account.take.remote(1, 2), "TypeError")
attempt(lambda: Account(), "TypeError")
attempt(lambda: Account.remote(1), "TypeError")
