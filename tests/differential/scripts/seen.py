"""What scripts print of a call: its value, or by which names its exception can be caught."""

from __future__ import annotations

import builtins

import ray


def attempt(call, *names):
    """Print what `call()` returns; if it raises, the first of `names` that catches it, and so on.

    `names` are of classes in ray.exceptions or built in, in the order a user might catch them.
    Texts are not shown: they are each project's own.
    """
    try:
        value = call()
    except Exception as error:
        caught = [name for name in names if isinstance(error, class_of(name))]
        print("raises", *caught or ["something else:", *names_of(error)])
    else:
        print("returns", repr(value))


def class_of(name):
    return getattr(builtins, name, None) or getattr(ray.exceptions, name)


def names_of(error):
    return [cls.__name__ for cls in type(error).__mro__ if issubclass(cls, Exception)]
