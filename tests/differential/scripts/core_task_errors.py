"""What a task raises can be caught by its own class and as a task's error."""

import ray
from seen import attempt


class Odd(Exception):
    pass


@ray.remote
def fail(kind):
    raise kind("no")


@ray.remote
def use(value):
    return value


for kind in (ValueError, KeyError, ZeroDivisionError, Odd):
    attempt(lambda kind=kind: ray.get(fail.remote(kind)), "RayTaskError", "RayError")
attempt(lambda: ray.get(fail.remote(ValueError)), "ValueError", "RayTaskError")
attempt(lambda: ray.get(use.remote(fail.remote(KeyError))), "KeyError", "RayTaskError")
try:
    ray.get(fail.remote(Odd))
except Odd:
    print("caught as Odd")
try:
    ray.get(fail.remote(ValueError))
except ray.exceptions.RayTaskError as error:
    print(type(error.cause).__name__, isinstance(error, ValueError))
