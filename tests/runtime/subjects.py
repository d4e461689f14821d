"""Remote classes and functions that run several calls at once, fail, yield or wait.

Every actor imports this file: nothing slow, no pytest.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import runtime
from runtime.actor import exit_actor
from tests.crew import POLL_S, wait_for_file


async def wait_for_async(path: Any) -> None:
    """Wait for something that the test decides, as a coroutine."""
    while not os.access(path, os.F_OK):  # noqa: ASYNC110  another process makes the file
        await asyncio.sleep(POLL_S)


def count(path: Any) -> int:
    """Note one more event in a file; returns how many there are."""
    with Path(path).open("a") as file:
        file.write("x")
    return events(path)


def events(path: Any) -> int:
    """Return how many events a file notes."""
    return Path(path).stat().st_size if Path(path).exists() else 0


class Base:
    """What all of them can do."""

    def __init__(self, value: Any = 0, counter: str = "", broken_from: int = 1 << 30) -> None:
        self.value = value
        self.created = count(counter) if counter else 1
        if self.created >= broken_from:
            raise ValueError(f"constructor number {self.created} fails")

    def echo(self, value: Any = None) -> Any:
        return value

    def add(self, amount: int) -> int:
        self.value += amount
        return self.value

    def state(self) -> tuple[Any, int]:
        return self.value, self.created

    def pid(self) -> int:
        return os.getpid()

    def thread(self) -> tuple[bool, str]:
        current = threading.current_thread()
        return current is threading.main_thread(), current.name

    def work(self, value: Any) -> Any:
        """Be a step of a graph."""
        return f"{value}{'m' if self.thread()[0] else 't'}"

    def fail(self, message: str = "boom") -> None:
        raise ValueError(message)

    def touch(self, path: str) -> None:
        Path(path).touch()

    def wait(self, begun: str, until: str, value: Any = "waited") -> Any:
        """Tell that it has begun, then wait."""
        count(begun)
        wait_for_file(until)
        return value

    def sleep(self, begun: str) -> None:
        """Be in one long `time.sleep`."""
        count(begun)
        time.sleep(1000)

    def spin(self, begun: str) -> None:
        """Run Python code for ever."""
        count(begun)
        while True:
            pass

    def get(self, refs: list[Any], begun: str = "") -> Any:
        if begun:
            count(begun)
        return runtime.get(refs[0])

    def large(self, begun: str, until: str) -> bytes:
        """Return so much that sending it takes a while."""
        self.wait(begun, until)
        return b"x" * 90_000

    def die(self, once: str = "") -> str:
        """Kill the process; with `once`, only the first time."""
        if once and events(once):
            return "survived"
        if once:
            count(once)
        os._exit(1)

    def raise_times(self, counter: str, times: int) -> int:
        """Raise the first `times` times."""
        number = count(counter)
        if number <= times:
            raise KeyError(f"attempt {number}")
        return number

    def leave(self) -> None:
        exit_actor()

    def exit(self, code: int) -> None:
        sys.exit(code)

    def items(self, number: int) -> Any:
        yield from range(number)

    def items_then_fail(self, number: int) -> Any:
        yield from range(number)
        raise ValueError("after the items")

    def items_slowly(self, number: int, path: str) -> Any:
        """Yield item i once ``path + str(i)`` exists."""
        for item in range(number):
            wait_for_file(f"{path}{item}")
            yield item

    def items_then_die(self, number: int, once: str) -> Any:
        """Die after half of the items, the first time."""
        for item in range(number):
            if item == number // 2 and not events(once):
                count(once)
                os._exit(1)
            yield item

    def hold(self, handles: list[Any]) -> None:
        self.held = handles

    def release(self) -> None:
        self.held = []

    def forward(self, handles: list[Any], method: str, *args: Any) -> Any:
        """Call another actor."""
        return runtime.get(getattr(handles[0], method).remote(*args))

    def cancel(self, refs: list[Any]) -> None:
        runtime.cancel(refs[0])

    def consume(self, handles: list[Any], number: int) -> list[Any]:
        return [runtime.get(ref) for ref in handles[0].items.remote(number)]


@runtime.remote
class Plain(Base):
    """One call at a time, on the main thread."""


@runtime.remote(max_concurrency=4)
class Threaded(Base):
    """Four calls at once, on threads."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.barrier = threading.Barrier(4)

    def finalize(self, begun: str) -> None:
        finalize(begun)

    def meet(self) -> int:
        """Return once four calls are here at once."""
        return self.barrier.wait(60)


@runtime.remote(concurrency_groups={"io": 2, "one": 1})
class Grouped(Base):
    """Methods in groups."""

    @runtime.method(concurrency_group="io")
    def io(self, begun: str, until: str) -> str:
        self.wait(begun, until)
        return threading.current_thread().name

    @runtime.method(concurrency_group="one")
    def one(self, begun: str, until: str) -> str:
        self.wait(begun, until)
        return threading.current_thread().name

    def name(self) -> str:
        return threading.current_thread().name


class AsyncBase(Base):
    """Coroutines, and sync methods beside them."""

    def __init__(self, value: Any = 0, counter: str = "", broken_from: int = 1 << 30) -> None:
        super().__init__(value, counter, broken_from)
        self.lock = asyncio.Lock()
        self.event = asyncio.Event()
        self.loop = asyncio.get_running_loop()
        self.running = 0
        self.most = 0
        self.was_cancelled = False

    async def meet(self, number: int) -> int:
        """Return once `number` calls are here at once."""
        self.running += 1
        self.most = max(self.most, self.running)
        if self.running == number:
            self.event.set()
        await self.event.wait()
        return self.most

    async def pass_through(self, turns: int) -> int:
        """Return the most that were in here at once."""
        self.running += 1
        self.most = max(self.most, self.running)
        for _ in range(turns):
            await asyncio.sleep(0)
        self.running -= 1
        return self.most

    async def on_loop(self) -> bool:
        async with self.lock:
            return asyncio.get_running_loop() is self.loop

    def sync_on_loop(self) -> bool:
        return asyncio.get_running_loop() is self.loop

    async def wait_async(self, begun: str, until: str, value: Any = "waited") -> Any:
        count(begun)
        try:
            await wait_for_async(until)
        except asyncio.CancelledError:
            self.was_cancelled = True
            raise
        return value

    async def cancelled(self) -> bool:
        return self.was_cancelled

    async def await_ref(self, refs: list[Any]) -> Any:
        return await refs[0]

    async def gather(self, refs: list[Any]) -> list[Any]:
        return list(await asyncio.gather(*refs))

    async def get_in_thread(self, refs: list[Any]) -> Any:
        return await asyncio.to_thread(runtime.get, refs[0])

    async def call_and_await(self, handles: list[Any], value: Any) -> Any:
        return await handles[0].echo.remote(value)

    async def fail_async(self, message: str = "boom") -> None:
        await asyncio.sleep(0)
        raise ValueError(message)

    async def leave_async(self) -> None:
        exit_actor()

    async def exit_async(self, code: int) -> None:
        sys.exit(code)

    async def items_async(self, number: int) -> Any:
        for item in range(number):
            await asyncio.sleep(0)
            yield item

    async def items_async_then_fail(self, number: int) -> Any:
        for item in range(number):
            yield item
        raise ValueError("after the items")

    async def consume_async(self, handles: list[Any], number: int) -> list[Any]:
        return [await ref async for ref in handles[0].items.remote(number)]


@runtime.remote
class Async(AsyncBase):
    """Up to a thousand coroutines at once."""


@runtime.remote(concurrency_groups={"io": 1})
class AsyncGrouped(AsyncBase):
    """With a group besides."""


@runtime.remote
class ExitsInConstructor:
    """Never made."""

    def __init__(self) -> None:
        sys.exit(3)

    async def nothing(self) -> None:
        pass


@runtime.remote
def wait_task(begun: str, until: str, value: Any = "waited") -> Any:
    count(begun)
    wait_for_file(until)
    return value


@runtime.remote
def sleep_task(begun: str) -> None:
    count(begun)
    time.sleep(1000)


def finalize(begun: str) -> None:
    """Be in a finalizer for ever, and were that ended, in another, and then here."""

    class Slow:
        def __del__(self) -> None:
            count(begun)
            while True:
                pass

    Slow()
    Slow()
    while True:
        pass


@runtime.remote
def finalize_task(begun: str) -> None:
    finalize(begun)


@runtime.remote
def spin_task(begun: str) -> None:
    count(begun)
    while True:
        pass


@runtime.remote
def echo_task(value: Any, *_more: Any) -> Any:
    return value


@runtime.remote
def get_task(refs: list[Any], begun: str = "") -> Any:
    if begun:
        count(begun)
    return runtime.get(refs[0])


@runtime.remote
def parent_task(begun: str, until: str) -> Any:
    """Wait for a task of its own."""
    return runtime.get(wait_task.remote(begun, until))


@runtime.remote
def make_ref(begun: str, until: str) -> list[Any]:
    """Return the reference of a task that still runs."""
    return [wait_task.remote(begun, until)]


@runtime.remote
def cancel_task(refs: list[Any]) -> None:
    runtime.cancel(refs[0])


@runtime.remote
def leave_task() -> None:
    exit_actor()


@runtime.remote
def send_large(begun: str, rounds: int) -> int:
    """Send the driver one large value after the other."""
    for number in range(rounds):
        runtime.put(b"x" * 90_000)
        if number == 10:
            count(begun)
    return rounds


@runtime.remote
def items(number: int) -> Any:
    yield from range(number)


@runtime.remote
def consume_ready(numbers: list[int]) -> list[int]:
    """Take from generators what is ready, until all have ended."""
    found, left = [], [items.remote(number) for number in numbers]
    while left:
        for generator in runtime.wait(left)[0]:
            ref = next(generator, None)
            if ref is None:
                left.remove(generator)
            else:
                found.append(runtime.get(ref))
    return sorted(found)


@runtime.remote
def items_then_fail(number: int) -> Any:
    yield from range(number)
    raise ValueError("after the items")


@runtime.remote
def items_for_ever(begun: str) -> Any:
    number = 0
    while True:
        yield number
        number += 1
        if number == 10:
            count(begun)


@runtime.remote
def items_then_die(number: int, once: str) -> Any:
    for item in range(number):
        if item == number // 2 and not events(once):
            count(once)
            os._exit(1)
        yield item


@runtime.remote
def consume(number: int) -> list[Any]:
    return [runtime.get(ref) for ref in items.remote(number)]


@runtime.remote
def hold_until(handles: list[Any], begun: str, until: str) -> int:
    count(begun)
    wait_for_file(until)
    return len(handles)


@runtime.remote
def call_named(name: str, namespace: str | None = None) -> Any:
    return runtime.get(runtime.get_actor(name, namespace).state.remote())


@runtime.remote
def name_one(name: str) -> Any:
    """Make a detached actor and end."""
    actor = Plain.options(name=name, lifetime="detached").remote(7)
    return runtime.get(actor.state.remote())
