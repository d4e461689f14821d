"""Remote functions and classes to draw graphs with. Workers and actors import this file."""

from __future__ import annotations

from typing import Any

import runtime


@runtime.remote
def add(x: Any, y: Any) -> Any:
    return x + y


@runtime.remote
def echo(*args: Any, **kwargs: Any) -> Any:
    return args, kwargs


@runtime.remote
def gather(value: Any) -> Any:
    """Return what the references in a list, or in a box, stand for."""
    refs = value.content if isinstance(value, Box) else value
    return runtime.get(refs)


@runtime.remote(num_returns=2)
def pair() -> Any:
    return 1, 2


@runtime.remote
def fail(text: str) -> Any:
    raise ValueError(text)


class Box:
    """An object that may hide something."""

    def __init__(self, content: Any) -> None:
        self.content = content


@runtime.remote
class Counter:
    def __init__(self, start: int = 0) -> None:
        self.value = start

    def add(self, amount: int) -> int:
        self.value += amount
        return self.value

    def get(self) -> int:
        return self.value

    def pair(self) -> tuple[int, int]:
        return self.value, -self.value


@runtime.remote
class Broken:
    def __init__(self) -> None:
        raise ValueError("the constructor fails")

    def get(self) -> int:
        return 0


@runtime.remote
class User:
    """An actor that is given another one, and draws graphs itself."""

    def __init__(self, counter: Any = None) -> None:
        self.counter = counter

    def ask(self, amount: int) -> Any:
        return runtime.get(self.counter.add.remote(amount))

    def draw(self, counter: Any) -> Any:
        from compiled_dag import InputNode, MultiOutputNode

        with InputNode() as inp:
            made = Counter.bind(100)
            made.add.bind(inp)
            output = MultiOutputNode([counter.add.bind(inp), made.get.bind(), add.bind(inp, 1)])
        return runtime.get(output.execute(5))


@runtime.remote
def draw_in_task(counter: Any) -> Any:
    return runtime.get(User.remote().draw.remote(counter)), runtime.get(
        add.bind(add.bind(1, 2), 3).execute()
    )


@runtime.remote
def execute(nodes: list[Any], *args: Any) -> Any:
    """Run a graph that was drawn elsewhere."""
    return runtime.get(nodes[0].execute(*args))


@runtime.remote
def use(counter: Any, amount: int) -> Any:
    return runtime.get(counter.add.remote(amount))


@runtime.remote
def process_id(*_args: Any) -> int:
    import os

    return os.getpid()


@runtime.remote
def variable(name: str, *_args: Any) -> str | None:
    import os

    return os.environ.get(name)


@runtime.remote
def gpu_ids(*_args: Any) -> list[Any]:
    return runtime.get_gpu_ids()


@runtime.remote
class Diary:
    """An actor that notes its ordinary end."""

    def __init__(self, path: str) -> None:
        import atexit
        from pathlib import Path

        atexit.register(lambda: Path(path).write_text("ended"))

    def echo(self, value: Any) -> Any:
        return value


def drawn(functions: list[Any]) -> Any:
    """Draw a graph of functions that came along, and of classes."""
    from compiled_dag import InputNode, MultiOutputNode

    multiply, plus = functions
    with InputNode() as inp:
        counter = Counter.bind(100)
        doubled = multiply.bind(inp, 2)
        before = counter.get.bind()
        return MultiOutputNode([doubled, before, plus.bind(counter.add.bind(inp), -1)])


def run_compiled(functions: list[Any]) -> Any:
    with drawn(functions).experimental_compile() as graph:
        return [runtime.get(graph.execute(number)) for number in (1, 2)]


@runtime.remote
class Drawer:
    """An actor that compiles graphs."""

    def run(self, functions: list[Any]) -> Any:
        return run_compiled(functions)

    def keep(self, functions: list[Any]) -> None:
        self.graph = drawn(functions).experimental_compile(_function_workers=1)


@runtime.remote
def draw_compiled(functions: list[Any]) -> Any:
    return run_compiled(functions)


@runtime.remote
class Slow:
    """An actor whose constructor ends when it is ended."""

    def __init__(self) -> None:
        import threading

        threading.Event().wait()

    def echo(self, value: Any) -> Any:
        return value
