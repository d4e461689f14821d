"""A queue in an actor: as `queue.Queue`, for any number of processes."""

from __future__ import annotations

import asyncio
import os
import queue
import time
from pathlib import Path

import pytest

import runtime
from runtime.exceptions import ActorDiedError
from runtime.util.queue import Empty, Full, Queue
from tests.live import LONG_S, wait_until

pytestmark = [pytest.mark.proc, pytest.mark.usefixtures("session")]

LATE_S = 0.05


@runtime.remote
class Consumer:
    def take(self, items, timeout=LONG_S):
        return items.get(timeout=timeout)


@runtime.remote
def produce(items, values):
    for value in values:
        items.put(value)


def cpu_s(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


def test_first_in_first_out():
    items = Queue()
    for item in (1, "two", [3]):
        items.put(item)
    assert (len(items), items.qsize(), items.size()) == (3, 3, 3)
    assert [items.get(), items.get(), items.get()] == [1, "two", [3]]
    assert items.empty()
    assert not items.full()


def test_a_full_queue_refuses():
    items = Queue(maxsize=1)
    items.put(1)
    assert items.full()
    with pytest.raises(Full):
        items.put_nowait(2)
    with pytest.raises(Full, match="at most 1"):
        items.put(2, timeout=LATE_S)
    assert issubclass(Full, queue.Full)
    assert items.get(timeout=0) == 1


def test_an_empty_queue_refuses():
    items = Queue()
    with pytest.raises(Empty):
        items.get_nowait()
    with pytest.raises(Empty):
        items.get(block=False)
    begin = time.monotonic()
    with pytest.raises(Empty) as caught:
        items.get(timeout=LATE_S)
    assert time.monotonic() - begin >= LATE_S
    assert type(caught.value) is Empty
    assert issubclass(Empty, queue.Empty)


def test_wrong_arguments_are_refused():
    items = Queue()
    for call in (lambda: items.get(timeout=-1), lambda: items.put(1, timeout=-1)):
        with pytest.raises(ValueError, match="timeout"):
            call()
    with pytest.raises(ValueError, match="num_items"):
        items.get_nowait_batch(-1)
    with pytest.raises(TypeError):
        items.get_nowait_batch("1")
    with pytest.raises(TypeError):
        items.put_nowait_batch(1)


def test_batches_go_whole_or_not_at_all():
    items = Queue(maxsize=3)
    items.put_nowait_batch(iter([1, 2]))
    with pytest.raises(Full):
        items.put_nowait_batch([3, 4])
    with pytest.raises(Empty):
        items.get_nowait_batch(3)
    assert items.get_nowait_batch(2) == [1, 2]
    assert items.get_nowait_batch(0) == []


def test_a_get_that_waits_is_served_by_another_process():
    items, consumer = Queue(), Consumer.remote()
    taken = consumer.take.remote(items)
    assert runtime.wait([taken], timeout=LATE_S) == ([], [taken])
    items.put("late")
    assert runtime.get(taken, timeout=LONG_S) == "late"


def test_a_put_that_waits_goes_on_when_there_is_room():
    items = Queue(maxsize=2)
    done = produce.remote(items, range(10))
    assert [items.get(timeout=LONG_S) for _ in range(10)] == list(range(10))
    runtime.get(done)


def test_nobody_polls_while_a_get_waits():
    items, consumer = Queue(), Consumer.remote()
    pids = runtime.get(
        [actor.__ray_call__.remote(lambda _: os.getpid()) for actor in (items.actor, consumer)]
    )
    taken = consumer.take.remote(items)

    def are_still() -> bool:
        """Tell whether they use no time of a core for half a second: not so while they begin."""
        before = [cpu_s(pid) for pid in pids]
        runtime.wait([taken], timeout=0.5)
        return [cpu_s(pid) for pid in pids] == pytest.approx(before, abs=0.05)

    wait_until(are_still)
    items.put(1)
    runtime.get(taken)


def test_coroutines_put_and_get():
    items = Queue(maxsize=1)

    async def exchange():
        taken = asyncio.create_task(items.get_async(timeout=LONG_S))
        await items.put_async("a")
        assert await taken == "a"
        with pytest.raises(Empty):
            await items.get_async(block=False)
        await items.put_async("b")
        with pytest.raises(Full):
            await items.put_async("c", block=False)

    asyncio.run(exchange())


def test_shutdown_lets_go_of_who_waits():
    items, consumer = Queue(), Consumer.remote()
    taken = consumer.take.remote(items)
    runtime.wait([taken], timeout=LATE_S)
    items.shutdown()
    items.shutdown(force=True)
    with pytest.raises(ActorDiedError):
        runtime.get(taken, timeout=LONG_S)
    with pytest.raises(RuntimeError, match="shut down"):
        items.put(1)
