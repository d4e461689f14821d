"""References and handles inside values: what they keep alive, where, and how long."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import threading
import weakref
from pathlib import Path

import pytest

import runtime
from compiled_dag.errors import ActorDiedError, TaskError
from runtime import lifecycle
from runtime.references import set_strays
from tests.live import LONG_S, wait_until
from tests.runtime.actors import Worker, open_files, wait_until_dead

np = pytest.importorskip("numpy")

pytestmark = pytest.mark.proc

LARGE = 1 << 20


@runtime.remote
class Keeper:
    """Holds what it is given."""

    def __init__(self):
        self.kept = {}

    def keep(self, name, value):
        self.kept[name] = value

    def drop(self, name):
        self.kept.pop(name, None)

    def give(self, name):
        return self.kept[name]

    def read(self, name):
        return runtime.get(self.kept[name][0])

    def pass_on(self, name, other):
        runtime.get(other.keep.remote(name, self.kept[name]))

    def make(self, name, value):
        self.kept[name] = [runtime.put(value)]

    def make_actor(self):
        self.kept["actor"] = Worker.remote(40)

    def call(self, name):
        return runtime.get(self.kept[name].add.remote(1))

    def pid(self):
        return os.getpid()


@runtime.remote
def unwrap(refs):
    return [runtime.get(ref) for ref in refs]


@runtime.remote
def same(value):
    return value


def get(refs):
    return runtime.get(refs, timeout=LONG_S)


def held() -> set[int]:
    """Return the numbers of what any other process holds."""
    actors = list(lifecycle.current().processes)
    return {number for actor in actors for number in list(actor.peer._held)}


def num_stored() -> int:
    """Return how many large values this process has."""
    return sum("compiled-dag-value" in name for name in open_files())


def settled(condition) -> None:
    wait_until(condition)


# --- values ---------------------------------------------------------------------------------------


def test_put_and_get_of_everything(session):
    for value in (None, 1, "text", b"bytes", [1, {"a": (2,)}], {3}, range(4), Ellipsis):
        assert get(runtime.put(value)) == value


def test_what_put_refuses(session):
    ref = runtime.put(1)
    with pytest.raises(TypeError, match="reference already"):
        runtime.put(ref)
    with pytest.raises(ValueError, match="_owner"):
        runtime.put(1, _owner=ref)
    with pytest.raises(NotImplementedError, match="_tensor_transport"):
        runtime.put(1, _tensor_transport="nccl")
    with pytest.raises(TypeError, match="lock"):
        runtime.put({"inner": [threading.Lock()]})


def test_arrays_come_back_without_a_copy_and_read_only(session):
    array = np.arange(LARGE)
    ref = runtime.put(array)
    array[:] = 0
    first, second = get([ref, ref])
    assert first[-1] == LARGE - 1
    for view in (first, second, get(same.remote(ref))):
        with pytest.raises(ValueError, match="read-only"):
            view[0] = 1
    assert num_stored() >= 1


def test_a_gigabyte_travels_once(session):
    keepers = [Keeper.remote() for _ in range(2)]
    ref = runtime.put(np.ones(1 << 27))
    get([keeper.keep.remote("x", ref) for keeper in keepers])
    assert get(same.remote(runtime.put(1))) == 1
    pids = get([keeper.__ray_call__.remote(lambda _: os.getpid()) for keeper in keepers])
    assert 1 << 30 <= shared_memory(pids) < 5 << 28
    del ref


def shared_memory(pids) -> int:
    """Return how many bytes of shared memory this process and others have in all, each once."""
    sizes = {}
    for pid in ("self", *pids):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # the descriptor of the listing itself
                if "memfd:" in str(link.readlink()):
                    status = link.stat()
                    sizes[status.st_ino] = status.st_blocks * 512
    return sum(sizes.values())


def test_tensors_are_writable_and_private(session):
    torch = pytest.importorskip("torch")
    ref = runtime.put(torch.ones(LARGE))
    first = get(ref)
    first.mul_(5)
    assert get(ref).sum() == LARGE

    @runtime.remote
    def double(tensor):
        tensor.mul_(2)
        return tensor

    results = get([double.remote(ref) for _ in range(3)])
    assert [float(result[0]) for result in results] == [2.0] * 3


def test_references_compare_hash_and_show(session):
    ref = runtime.put(1)
    keeper = Keeper.remote()
    get(keeper.keep.remote("x", [ref]))
    (back,) = get(keeper.give.remote("x"))
    assert back == ref
    assert hash(back) == hash(ref)
    assert len({back, ref, runtime.put(1)}) == 2
    assert ref.hex() == back.hex()
    assert "put(int)" in repr(ref)
    assert ref.future().result(LONG_S) == 1


# --- life of objects ------------------------------------------------------------------------------


@runtime.remote
def own_id():
    return runtime.get_runtime_context().get_task_id()


@runtime.remote
class Caller:
    def own_ids(self):
        for _ in range(2):
            yield runtime.get_runtime_context().get_task_id()

    def id_of_a_task(self):
        ref = own_id.remote()
        return ref.task_id(), get(ref)


def test_references_know_the_task_or_call_that_makes_them(session):
    caller = Caller.remote()
    for ref in (own_id.remote(), *caller.own_ids.remote()):
        assert ref.task_id() == get(ref) == ref.task_id().hex()
    known, actual = get(caller.id_of_a_task.remote())
    assert known == actual == known.hex()
    assert runtime.put(1).task_id() is None


def test_a_dropped_object_is_gone(session):
    ref = runtime.put(np.ones(LARGE))
    weak = weakref.ref(ref)
    assert num_stored() == 1
    del ref
    assert weak() is None
    settled(lambda: num_stored() == 0)  # its memory is kept for others, for a moment


def test_an_argument_is_let_go_after_the_task(session):
    ref = runtime.put(np.ones(LARGE))
    weak = weakref.ref(ref)
    result = same.remote(ref)
    del ref
    assert get(result).sum() == LARGE
    settled(lambda: weak() is None)
    del result
    settled(lambda: num_stored() == 0)


def test_a_reference_in_an_actors_state_keeps_the_object(session):
    keeper = Keeper.remote()
    ref = runtime.put(np.ones(LARGE))
    weak = weakref.ref(ref)
    get(keeper.keep.remote("x", [ref]))
    del ref
    assert get(keeper.read.remote("x")).sum() == LARGE
    assert weak() is not None
    assert weak().number in held()
    get(keeper.drop.remote("x"))
    settled(lambda: weak() is None and not num_stored())
    assert not held()


def test_a_reference_that_went_round_keeps_the_object(session):
    keepers = [Keeper.remote() for _ in range(3)]
    get(keepers[0].make.remote("x", np.ones(LARGE)))
    settled(lambda: num_stored() == 1)
    for giver, taker in itertools.pairwise(keepers):
        get(giver.pass_on.remote("x", taker))
        get(giver.drop.remote("x"))
    assert get(keepers[2].read.remote("x")).sum() == LARGE
    (ref,) = get(keepers[2].give.remote("x"))
    get(keepers[2].drop.remote("x"))
    assert get(ref).sum() == LARGE
    del ref
    settled(lambda: not num_stored())
    settled(lambda: not any(number > 0 for number in held()))


def test_the_death_of_the_last_holder_lets_go(session):
    keeper = Keeper.remote()
    ref = runtime.put(np.ones(LARGE))
    weak = weakref.ref(ref)
    get(keeper.keep.remote("x", [ref]))
    get(keeper.make.remote("y", np.ones(LARGE)))
    settled(lambda: num_stored() == 2)  # not what the argument was in
    del ref
    os.kill(get(keeper.pid.remote()), signal.SIGKILL)
    settled(lambda: weak() is None and not num_stored())


def test_what_a_dead_process_made_lives_where_it_is_held(session):
    keeper = Keeper.remote()
    get(keeper.make.remote("x", np.ones(LARGE)))
    (ref,) = get(keeper.give.remote("x"))
    os.kill(get(keeper.pid.remote()), signal.SIGKILL)
    with pytest.raises(ActorDiedError):
        get(keeper.pid.remote())
    assert get(ref).sum() == LARGE


def test_references_inside_values_inside_values(session):
    inner = runtime.put(np.ones(LARGE))
    weak = weakref.ref(inner)
    outer = runtime.put({"deep": [runtime.put([inner])]})
    del inner
    assert weak() is not None
    found = get(outer)["deep"][0]
    assert get(get(found)[0]).sum() == LARGE
    del outer, found
    settled(lambda: weak() is None and not num_stored())


def test_a_reference_in_flight_counts(session):
    keeper = Keeper.remote()
    for index in range(50):
        ref = runtime.put(np.full(LARGE // 8, index))
        stored = keeper.keep.remote("x", [ref])
        del ref
        assert get(keeper.read.remote("x"))[0] == index
        del stored
    get(keeper.drop.remote("x"))
    settled(lambda: not num_stored())


def test_a_reference_returned_by_a_task(session):
    @runtime.remote
    def make():
        return [runtime.put(np.ones(LARGE)), same.remote(np.zeros(LARGE))]

    ones, zeros = get(make.remote())
    assert get(ones).sum() == LARGE
    assert get(zeros).sum() == 0
    del ones, zeros
    settled(lambda: not num_stored())


def test_a_pending_result_that_nobody_holds_is_let_go(session):
    for _ in range(3):
        same.remote(np.ones(LARGE))
    get(same.remote(1))
    settled(lambda: not num_stored())


def test_a_reference_in_a_closure(session):
    ref = runtime.put(np.ones(LARGE))

    @runtime.remote
    def use():
        return runtime.get(ref).sum()

    assert get([use.remote() for _ in range(5)]) == [LARGE] * 5


def test_many_threads_pass_one_reference_about(session):
    keeper = Keeper.remote()
    ref = runtime.put(np.ones(LARGE))

    def use(name):
        for _ in range(50):
            get(keeper.keep.remote(name, [ref]))
            assert get(get(keeper.give.remote(name))[0]).sum() == LARGE
            get(keeper.drop.remote(name))

    threads = [threading.Thread(target=use, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    settled(lambda: not held())
    assert get(ref).sum() == LARGE


@pytest.mark.parametrize("seed", range(4))
def test_an_object_lives_exactly_as_long_as_somebody_holds_it(session, seed):  # noqa: C901, PLR0912
    """Do random things; compare with a table of who holds what."""
    chance = random.Random(seed)
    keepers = [Keeper.remote() for _ in range(3)]
    mine, weak = {}, {}
    theirs = [set() for _ in keepers]
    for step in range(120):
        index = chance.randrange(3)
        keeper, names = keepers[index], theirs[index]
        action = chance.choice(["put", "keep", "drop", "forget", "fetch", "pass", "kill", "task"])
        if action == "put":
            mine[step] = runtime.put([step] * 10)
            weak[step] = weakref.ref(mine[step])
        elif action == "keep" and mine:
            name = chance.choice(list(mine))
            get(keeper.keep.remote(name, [mine[name]]))
            names.add(name)
        elif action == "drop" and names:
            name = chance.choice(list(names))
            keeper.drop.remote(name)
            names.discard(name)
        elif action == "forget" and mine:
            del mine[chance.choice(list(mine))]
        elif action == "fetch" and names:
            name = chance.choice(list(names))
            (mine[name],) = get(keeper.give.remote(name))
        elif action == "pass" and names:
            name, other = chance.choice(list(names)), chance.randrange(3)
            if other != index:
                get(keeper.pass_on.remote(name, keepers[other]))
                theirs[other].add(name)
        elif action == "kill" and chance.random() < 0.3:
            runtime.kill(keeper)
            keepers[index] = Keeper.remote()
            names.clear()
        elif action == "task" and mine:
            name = chance.choice(list(mine))
            assert get(unwrap.remote([mine[name]])) == [[name] * 10]
        keeper = None
    get([keeper.pid.remote() for keeper in keepers])
    expected = set(mine).union(*theirs)
    settled(lambda: {name for name, ref in weak.items() if ref() is not None} == expected)
    for names, keeper in zip(theirs, keepers, strict=True):
        for name in names:
            assert get(keeper.read.remote(name)) == [name] * 10
    for name, ref in mine.items():
        assert get(ref) == [name] * 10


# --- handles --------------------------------------------------------------------------------------


def test_a_handle_goes_through_tasks_and_back(session):
    worker = Worker.remote(1)

    @runtime.remote
    def through(handles):
        assert runtime.get(handles["w"].add.remote(1)) == 2
        return handles

    back = get(through.remote({"w": worker}))["w"]
    assert back == worker
    assert hash(back) == hash(worker)
    assert get(back.add.remote(1)) == 3


def test_an_actor_lives_until_its_last_handle_anywhere_is_gone(session):
    keeper, worker = Keeper.remote(), Worker.remote()
    pid = get(worker.pid.remote())
    get(keeper.keep.remote("w", worker))
    del worker
    assert get(keeper.call.remote("w")) == 1
    back = get(keeper.give.remote("w"))
    get(keeper.drop.remote("w"))
    assert get(back.add.remote(1)) == 2
    del back
    assert not wait_until_dead([pid], LONG_S)


def test_an_actor_ends_with_the_process_that_has_its_last_handle(session):
    keeper = Keeper.remote()
    get(keeper.make_actor.remote())
    assert get(keeper.call.remote("actor")) == 41
    actor = get(keeper.give.remote("actor"))
    pid = get(actor.pid.remote())
    del actor
    os.kill(get(keeper.pid.remote()), signal.SIGKILL)
    assert not wait_until_dead([pid], LONG_S)


def test_calls_queued_before_the_last_handle_went_are_served(session):
    @runtime.remote
    def use():
        worker = Worker.remote()
        return [worker.add.remote(1) for _ in range(10)]

    for _ in range(30):  # a submission and the reply that names its results often arrive together
        assert get(get(use.remote())) == list(range(1, 11))


def test_a_handle_inside_a_stored_value_keeps_the_actor(session):
    worker = Worker.remote()
    pid = get(worker.pid.remote())
    ref = runtime.put([worker])
    del worker
    (back,) = get(ref)
    assert get(back.add.remote(1)) == 1
    del ref, back
    assert not wait_until_dead([pid], LONG_S)


# --- names ----------------------------------------------------------------------------------------


def test_named_actors_are_found_everywhere(session):
    worker = Worker.options(name="here").remote(1)

    @runtime.remote
    def find():
        return runtime.get(runtime.get_actor("here").add.remote(1))

    assert get(find.remote()) == 2
    assert runtime.get_actor("here") == worker


def test_a_name_is_taken_and_free_again(session):
    from compiled_dag.errors import ActorAlreadyExistsError

    first = Worker.options(name="one").remote()
    with pytest.raises(ActorAlreadyExistsError, match="one"):
        Worker.options(name="one").remote()
    other = Worker.options(name="one", namespace="elsewhere").remote()
    assert other != first
    assert runtime.get_actor("one", "elsewhere") == other
    assert Worker.options(name="one", get_if_exists=True).remote() == first
    runtime.kill(first)
    with pytest.raises(ValueError, match="one"):
        runtime.get_actor("one")
    again = Worker.options(name="one", get_if_exists=True).remote(7)
    assert get(again.add.remote(0)) == 7


def test_get_if_exists_from_many_threads_makes_one(session):
    found = []

    def use():
        worker = Worker.options(name="single", get_if_exists=True).remote()
        found.append((worker, get(worker.pid.remote())))

    threads = [threading.Thread(target=use) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({pid for _, pid in found}) == 1


def test_what_get_actor_refuses(session):
    with pytest.raises(TypeError, match="str"):
        runtime.get_actor(3)
    with pytest.raises(ValueError, match="empty"):
        runtime.get_actor("")
    with pytest.raises(ValueError, match="nobody"):
        runtime.get_actor("nobody")
    with pytest.raises(ValueError, match="name"):
        Worker.options(get_if_exists=True)
    with pytest.raises(ValueError, match="lifetime"):
        Worker.options(lifetime="long")

    @runtime.remote
    def look():
        runtime.get_actor("nobody")

    with pytest.raises(ValueError, match="nobody") as caught:
        get(look.remote())
    assert isinstance(caught.value, TaskError)


def test_a_detached_actor_outlives_its_handles_and_not_the_session(no_leaks):
    with runtime.init():
        worker = Worker.options(name="stays", lifetime="detached").remote(3)
        pid = get(worker.pid.remote())
        del worker
        assert get(runtime.get_actor("stays").add.remote(1)) == 4
        runtime.kill(runtime.get_actor("stays"))
        with pytest.raises(ValueError, match="stays"):
            runtime.get_actor("stays")
        Worker.options(name="stays", lifetime="detached").remote()
    assert not wait_until_dead([pid])


def test_a_named_actor_ends_with_its_last_handle(session):
    worker = Worker.options(name="brief").remote()
    pid = get(worker.pid.remote())
    del worker
    assert not wait_until_dead([pid], LONG_S)
    with pytest.raises(ValueError, match="brief"):
        runtime.get_actor("brief")


def test_the_namespace_of_the_session(no_leaks):
    with runtime.init(namespace="own"):
        worker = Worker.options(name="w").remote()
        assert runtime.get_actor("w", "own") == worker
        with pytest.raises(ValueError, match="other"):
            runtime.get_actor("w", "other")


def test_references_pickled_after_the_session_are_refused(no_leaks):
    import pickle

    with runtime.init():
        ref = runtime.put(1)
    set_strays(None, None, None)
    with pytest.raises(TypeError, match="session"):
        pickle.dumps(ref)
