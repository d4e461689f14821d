"""Tests that users run on what they have implemented: `check_communicator`."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import runtime
from compiled_dag.channel import pickling
from compiled_dag.communicator import Communicator, operations_of
from compiled_dag.errors import ExecutorError
from compiled_dag.keywords import strict_keywords

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import torch

_SHAPES: Final = (1,), (5, 3), (4, 1, 7)
"""Of what a rank brings; times the world size where the first dimension is divided."""
_SHOWN: Final = 6
"""Elements of a tensor in a message."""
_DTYPES: Final = "float32", "int64"
_DIVIDED: Final = frozenset({"reducescatter", "scatter", "all_to_all"})


class _Rank:
    """One rank: a copy of the communicator, and what is done with it."""

    def __init__(self) -> None:
        self.communicator: Any = None

    def start(self, data: bytes, rank: int) -> Any:
        """Unpickle a copy and initialize it; returns its rank before and after."""
        self.communicator = pickle.loads(data)
        before = self.communicator.get_self_rank()
        self.communicator.initialize(rank)
        return before, self.communicator.get_self_rank()

    def destroy(self) -> None:
        """End the copy."""
        self.communicator.destroy()

    def send(self, value: torch.Tensor, peers: Sequence[int]) -> bool:
        """Send a tensor to ranks, in order; tells whether it was left as it was."""
        before = value.clone()
        for peer in peers:
            self.communicator.send(value, peer)
        return bool((before == value).all())

    def receive(self, like: torch.Tensor, peer: int, *, allocates: bool) -> tuple[Any, bool]:
        """Receive a tensor; returns it, and whether it is in the allocator's memory."""
        made: list[Any] = []

        def allocate(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
            made.append(like.new_empty(shape, dtype=dtype))
            return made[-1]  # type: ignore[no-any-return]

        allocator = allocate if allocates else None
        found = self.communicator.recv(tuple(like.shape), like.dtype, peer, allocator)
        return found, any(found.data_ptr() == one.data_ptr() for one in made)

    def reduce(self, name: str, send: Any, receive: Any, rest: Sequence[Any]) -> tuple[Any, bool]:
        """Do an operation; returns its result, and whether the input was left as it was."""
        before = None if send is None else send.clone()
        getattr(self.communicator, name)(send, receive, *rest)
        return receive, before is None or bool((before == send).all())


@dataclass(slots=True)
class _Check:
    """What was tried, and what was wrong."""

    timeout_s: float
    failures: list[str] = field(default_factory=list)

    def that(self, holds: object, text: str) -> None:
        """Note a failure unless `holds`."""
        if not holds:
            self.failures.append(text)

    def get(self, refs: Sequence[Any], text: str) -> list[Any] | None:
        """Return what all ranks return; notes a failure, and returns None, if one raises."""
        try:
            found: list[Any] = runtime.get(list(refs), timeout=self.timeout_s)
        except TimeoutError:
            late = [i for i, ref in enumerate(refs) if not runtime.wait([ref], timeout=0)[0]]
            msg = f"{text}: call {late[0]} had not returned after {self.timeout_s:g} s"
            raise _HungError(msg) from None
        except ExecutorError as error:
            self.failures.append(f"{text}: {_in_a_line(error)}")
            return None
        return found


def _in_a_line(error: ExecutorError) -> str:
    """Return what was raised, and by which line, without the rest of the stack."""
    first, *others = str(error).splitlines()
    places = [line.strip() for line in others if line.startswith('  File "')]
    return f"{first} ({places[-1]})" if places else first


class _HungError(Exception):
    """A rank waits for ever: nothing more can be tried."""


@strict_keywords
def check_communicator(
    make: Callable[[list[Any]], Communicator],
    *,
    world_size: int = 3,
    device: str = "cpu",
    num_gpus: float = 0,
    timeout_s: float = 30.0,
) -> tuple[str, ...]:
    """Try a communicator of yours on actors, as graphs use it, against what torch computes.

    What is checked is the contract in the docstrings of `compiled_dag.Communicator`: members and
    ranks; life (each copy pickled, initialized, destroyed, and that once more); every operation
    that the class implements, with several shapes and dtypes, every root, and results in the memory
    that was asked for; one rank that dies while the others wait for it, who must notice. Starts a
    session if there is none.

    ``def test_mine(): check_communicator(lambda actors: Mine(actors))`` is a whole test.

    Args:
        make: Makes the communicator of these actors. Called several times, in the driver.
        world_size: How many ranks to try it with, two or more.
        device: Where the tensors are: ``"cpu"`` or ``"cuda"``.
        num_gpus: What each actor gets.
        timeout_s: After how long an operation is taken to hang.

    Returns:
        The operations that were tried.

    Raises:
        AssertionError: It does not keep the contract; the text has a line for every failure.
        ValueError: `world_size` is less than two.
    """
    if world_size <= 1:
        msg = f"world_size={world_size}: a communicator is tried with two ranks or more"
        raise ValueError(msg)
    check = _Check(timeout_s)
    ranks = [runtime.remote(_Rank).options(num_gpus=num_gpus).remote() for _ in range(world_size)]
    names: tuple[str, ...] = ()
    try:
        communicator = make(list(ranks))
        assert isinstance(communicator, Communicator), f"{communicator!r} is no Communicator"
        names = operations_of(type(communicator))
        _check_members(check, communicator, ranks)
        for _ in range(2):
            if not _start(check, make(list(ranks)), ranks):
                break
            _check_messages(check, names, ranks, device)
            for name in names:
                _check_operation(check, name, ranks, device)
            check.get([rank.destroy.remote() for rank in ranks], "destroy")
        if not check.failures and _start(check, make(list(ranks)), ranks):
            _check_death(check, names, ranks, device)
    except _HungError as hung:
        check.failures.append(str(hung))
    finally:
        for rank in ranks:
            runtime.kill(rank)
    lines = "\n".join(f"  {failure}" for failure in dict.fromkeys(check.failures))
    assert not check.failures, f"the communicator does not keep its contract:\n{lines}"
    return names


def _check_members(check: _Check, communicator: Communicator, ranks: Sequence[Any]) -> None:
    handles = communicator.get_actor_handles()
    check.that(set(handles) == set(ranks), f"get_actor_handles: {handles}, made of {list(ranks)}")
    size = communicator.get_world_size()
    check.that(size == len(ranks), f"get_world_size: {size} of {len(ranks)} actors")
    numbers = [communicator.get_rank(rank) for rank in ranks]
    wanted = list(range(len(ranks)))
    check.that(sorted(numbers) == wanted, f"get_rank: {numbers} of the actors, not 0 and up")
    stranger = runtime.remote(_Rank).options(num_cpus=0).remote()
    try:
        found = communicator.get_rank(stranger)
        check.that(False, f"get_rank of an actor that is no member: {found}, no ValueError")
    except ValueError:
        pass
    rank = communicator.get_self_rank()
    check.that(rank is None, f"get_self_rank before initialize: {rank}, not None")
    name = communicator.get_transport_name()
    check.that(name, f"get_transport_name: {name!r}")


def _start(check: _Check, communicator: Communicator, ranks: list[Any]) -> bool:
    """Initialize a copy in every actor; `ranks` is sorted by rank."""
    ranks.sort(key=communicator.get_rank)
    try:
        payload, _lent = pickling.dumps_by_value(communicator)  # as graphs do: also of scripts
    except Exception as error:  # noqa: BLE001  whatever its parts raise
        check.that(False, f"it does not pickle: {error!r}")
        return False
    data = runtime.put(payload)
    found = check.get([rank.start.remote(data, i) for i, rank in enumerate(ranks)], "initialize")
    for number, pair in enumerate(found or ()):
        check.that(pair == (None, number), f"get_self_rank around initialize({number}): {pair}")
    return found is not None


def _tensors(shape: tuple[int, ...], dtype: str, device: str, count: int) -> list[torch.Tensor]:
    """Return what each of `count` ranks brings."""
    import torch  # noqa: PLC0415  whoever has a communicator has it

    kind = getattr(torch, dtype)
    numel = int(torch.Size(shape).numel())
    return [
        (torch.arange(numel).reshape(shape) * (rank + 2) % 11).to(device, kind)
        for rank in range(count)
    ]


def _check_messages(check: _Check, names: Sequence[str], ranks: Sequence[Any], device: str) -> None:
    if not {"send", "recv"}.issubset(names):
        check.that("send" not in names and "recv" not in names, "one of send and recv is missing")
        return
    first, *others = range(len(ranks))
    for shape in _SHAPES:
        for dtype in _DTYPES:
            (value,) = _tensors(shape, dtype, device, 1)
            for source, targets in ((first, others), (others[-1], [first])):
                text = f"send of {dtype} {shape} from rank {source} to {targets}"
                refs = [ranks[source].send.remote(value, targets)]
                refs += [
                    ranks[target].receive.remote(value, source, allocates=target % 2 == 1)
                    for target in targets
                ]
                found = check.get(refs, text)
                if found is None:
                    continue
                check.that(found[0], f"{text}: send has changed its tensor")
                for target, (got, in_place) in zip(targets, found[1:], strict=True):
                    check.that(_same(got, value), f"{text}: rank {target} received {_text(got)}")
                    if target % 2 == 1:
                        check.that(in_place, f"{text}: rank {target} did not use the allocator")


def _check_operation(check: _Check, name: str, ranks: Sequence[Any], device: str) -> None:
    if name in {"send", "recv"}:
        return
    size = len(ranks)
    for shape in _SHAPES:
        whole = (shape[0] * size, *shape[1:]) if name in _DIVIDED else shape
        for dtype in _DTYPES:
            values = _tensors(whole, dtype, device, size)
            for rest, wanted in _cases(name, values, size):
                text = f"{name}({dtype} {whole}{''.join(f', {one}' for one in rest)})"
                refs = []
                for number, rank in enumerate(ranks):
                    root = rest[0] if name in {"gather", "scatter"} else number
                    send = values[number] if name != "scatter" or number == root else None
                    receive = (
                        None
                        if wanted[number] is None
                        else wanted[number].new_zeros(wanted[number].shape)
                    )
                    if name == "reduce" and receive is None:
                        receive = values[number].new_zeros(whole)
                    refs.append(rank.reduce.remote(name, send, receive, rest))
                _compare(check, text, check.get(refs, text), wanted)


def _compare(check: _Check, text: str, found: list[Any] | None, wanted: Sequence[Any]) -> None:
    for number, ((got, unchanged), right) in enumerate(zip(found or (), wanted, strict=False)):
        check.that(unchanged, f"{text}: rank {number}'s send_buf was changed")
        if right is not None:
            what = f"{text}: rank {number} got {_text(got)}, not {_text(right)}"
            check.that(_same(got, right), what)


def _cases(
    name: str, values: Sequence[torch.Tensor], size: int
) -> Iterator[tuple[tuple[Any, ...], list[Any]]]:
    """Yield further arguments and what each rank is to get, None for nothing that counts."""
    import torch  # noqa: PLC0415

    from collective import ReduceOp  # noqa: PLC0415

    parts = [value.chunk(size) for value in values]
    stack = torch.stack(tuple(values))
    reduced = {ReduceOp.SUM: stack.sum(0), ReduceOp.MAX: stack.amax(0)}
    roots = range(size)
    match name:
        case "allreduce":
            yield from (((op,), [total] * size) for op, total in reduced.items())
        case "reducescatter":
            yield from (((op,), list(total.chunk(size))) for op, total in reduced.items())
        case "reduce":
            for op, total in reduced.items():
                yield from (((r, op), [total if i == r else None for i in roots]) for r in roots)
        case "broadcast":
            yield from (((r,), [values[r]] * size) for r in roots)
        case "allgather":
            yield (), [torch.cat(tuple(values))] * size
        case "gather":
            whole = torch.cat(tuple(values))
            yield from (((r,), [whole if i == r else None for i in roots]) for r in roots)
        case "scatter":
            yield from (((r,), list(parts[r])) for r in roots)
        case "all_to_all":
            yield (), [torch.cat([part[i] for part in parts]) for i in roots]


def _check_death(check: _Check, names: Sequence[str], ranks: Sequence[Any], device: str) -> None:
    """Have all but the last rank wait for the last one, and kill it."""
    common = [name for name in ("allreduce", "allgather") if name in names]
    *others, last = ranks
    (value,) = _tensors((4,), "float32", device, 1)
    rest: tuple[Any, ...] = ()
    if common:
        from collective import ReduceOp  # noqa: PLC0415

        rest = (ReduceOp.SUM,) if common[0] == "allreduce" else ()
        rows = 4 if common[0] == "allreduce" else 4 * len(ranks)
        refs = [one.reduce.remote(common[0], value, value.new_zeros(rows), rest) for one in others]
        text = f"{common[0]} while the last rank dies"
    elif "recv" in names:
        refs = [others[0].receive.remote(value, len(ranks) - 1, allocates=False)]
        text = "recv while the sender dies"
    else:
        return
    runtime.kill(last)
    for number, ref in enumerate(refs):
        try:
            runtime.get(ref, timeout=check.timeout_s)
        except TimeoutError:
            check.that(False, f"{text}: rank {number} waits for it for ever")
        except ExecutorError:
            continue
        else:
            check.that(False, f"{text}: rank {number} returned as if it had come")


def _same(found: Any, right: torch.Tensor) -> bool:
    is_like = getattr(found, "shape", None) == right.shape and found.dtype == right.dtype
    return is_like and bool((found == right).all())


def _text(tensor: Any) -> str:
    if not hasattr(tensor, "dtype"):
        return repr(tensor)
    values = str(tensor.flatten()[:_SHOWN].tolist()).rstrip("]")
    more = ", ..." if tensor.numel() > _SHOWN else ""
    return f"{str(tensor.dtype)[6:]} {tuple(tensor.shape)} {values}{more}]"
