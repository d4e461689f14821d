from __future__ import annotations

import numpy as np
import pytest
import torch

from compiled_dag import DeserializationError, TaskError
from compiled_dag.channel.lease import LEASE_BYTES
from compiled_dag.outcome import Error
from tests.compiled_dag.channel.wires import SLOT

LARGE = LEASE_BYTES + 1000


class Spoiled:
    """It can be sent and not be received."""

    def __reduce__(self):
        return _spoil, ()


class Heavy(Spoiled):
    """The same, with enough beside it to be leased."""

    def __reduce__(self):
        return _spoil, (np.zeros(LARGE, np.uint8),)


def _spoil(*_parts) -> None:
    raise RuntimeError("spoiled on the way")


def address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


# --- arrays ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [10, 5000, LEASE_BYTES - 1000, LARGE, 3 * SLOT])
@pytest.mark.parametrize("wrap", [lambda a: a, lambda a: {"k": [a]}], ids=["itself", "nested"])
def test_an_array_of_any_size_arrives_read_only(wire, size, wrap) -> None:
    arrived = wire().send(wrap(np.arange(size, dtype=np.uint8)))
    array = arrived if isinstance(arrived, np.ndarray) else arrived["k"][0]
    assert not array.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1


def test_a_large_array_lies_in_the_slot_and_readers_of_one_process_see_one_memory(wire) -> None:
    one = wire()
    first = one.send(np.zeros(LARGE, np.uint8))
    there = address(first)
    del first
    assert address(one.send(np.ones(LARGE, np.uint8))) == there


def test_a_small_array_is_a_copy_and_frees_its_slot_at_once(wire) -> None:
    one = wire()
    held = [one.send(np.full(LEASE_BYTES // 2, number, np.uint8)) for number in range(10)]
    assert [array[0] for array in held] == list(range(10))
    assert one.reserved() == SLOT
    assert one.used() == 0


def test_arrays_start_at_a_multiple_of_64(wire) -> None:
    sizes = (LARGE, 3, 1000, LARGE + 1)
    arrived = wire(slot_bytes=4 * SLOT).send([np.zeros(size, np.uint8) for size in sizes])
    assert [address(array) % 64 for array in arrived] == [0] * 4


def test_large_bytes_are_copied_out(wire) -> None:
    one = wire()
    assert one.send(b"x" * LARGE) == b"x" * LARGE
    assert one.used() == 0


def test_a_large_value_without_arrays_holds_nothing(wire) -> None:
    one = wire(slot_bytes=4 * SLOT)
    value = list(range(100_000))
    assert one.send(value) == value
    assert one.used() == 0


# --- tensors --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [10, 5000, LARGE])
@pytest.mark.parametrize("num_readers", [1, 3])
@pytest.mark.parametrize("wrap", [lambda t: t, lambda t: [t]], ids=["itself", "nested"])
def test_a_tensor_that_one_reader_changes_is_unchanged_for_the_others(
    wire, size, num_readers, wrap
) -> None:
    one = wire(readers=num_readers)
    one.writer.write(wrap(torch.zeros(size, dtype=torch.uint8)))
    arrived = [reader.read() for reader in one.readers]
    tensors = [value if isinstance(value, torch.Tensor) else value[0] for value in arrived]
    for number, tensor in enumerate(tensors):
        assert tensor.sum() == 0
        tensor.add_(number + 1)
    assert [int(tensor[0]) for tensor in tensors] == list(range(1, num_readers + 1))


@pytest.mark.parametrize("num_readers", [1, 2])
def test_a_changed_tensor_changes_no_later_execution(wire, num_readers) -> None:
    one = wire(readers=num_readers)
    held = []
    for number in range(5):
        tensor = one.send(torch.full((LARGE,), number, dtype=torch.uint8))
        assert int(tensor[0]) == number
        tensor += 100
        held.append(tensor)
    assert [int(tensor[-1]) for tensor in held] == [100, 101, 102, 103, 104]


def test_the_only_reader_gets_a_large_tensor_without_a_copy(wire) -> None:
    one = wire()
    tensor = one.send(torch.zeros(LARGE, dtype=torch.uint8))
    assert one.used() == SLOT
    view = tensor[5:]
    del tensor
    assert one.used() == SLOT
    del view
    assert one.used() == 0


def test_several_readers_get_private_tensors_beside_shared_arrays(wire) -> None:
    one = wire(readers=2, slot_bytes=4 * SLOT)
    one.writer.write([torch.zeros(LARGE), np.zeros(LARGE)])
    values = [reader.read() for reader in one.readers]
    for tensor, array in values:
        tensor.add_(1)
        assert not array.flags.writeable
    del tensor, array
    for value in values:
        del value[1]
    assert one.used() == 0


def test_a_large_private_copy_is_in_memory_that_the_last_one_left(wire) -> None:
    one = wire(readers=2, slot_bytes=1 << 20)
    reader, other = one.readers
    held: list[torch.Tensor] = []
    places = []
    for number in range(4):
        one.writer.write(torch.full((1 << 20,), number, dtype=torch.uint8))
        tensor = reader.read()
        assert other.read().data_ptr() != tensor.data_ptr()
        places.append(tensor.data_ptr())
        if number == 1:
            held.append(tensor[5:])
        del tensor
    assert places[0] == places[1] != places[2] == places[3]  # but where a view of it is left
    assert bool((held[0] == 1).all())
    assert one.used() == 0


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [Spoiled(), [1, Heavy()]], ids=["small", "leased"])
def test_a_value_that_cannot_be_rebuilt_is_an_error_of_the_reader(wire, value) -> None:
    one = wire()
    arrived = one.send(value)
    assert isinstance(arrived, Error)
    error = arrived.exception()
    assert isinstance(error, TaskError)
    assert isinstance(error, DeserializationError)
    text = "Worker.f#1 sent a value that cannot be rebuilt here: RuntimeError('spoiled on the way')"
    assert text in str(error)
    assert 'in _spoil\n    raise RuntimeError("spoiled on the way")' in str(error)
    assert str(error).endswith("RuntimeError: spoiled on the way")


@pytest.mark.parametrize("value", [Spoiled(), [1, Heavy()]], ids=["small", "leased"])
def test_a_value_that_cannot_be_rebuilt_holds_no_memory_and_the_next_arrives(wire, value) -> None:
    one = wire()
    for _ in range(5):
        one.send(value)
    assert one.used() == 0
    assert one.send("next") == "next"


def test_an_error_that_travels_is_no_failure_to_read(wire) -> None:
    error = Error.capture(ValueError("bad"), execution=3)
    assert wire().send(error) == error


def test_a_long_error_travels_too(wire) -> None:
    error = Error.capture(ValueError("bad" * LARGE))
    one = wire()
    assert one.send(error) == error
    assert one.used() == 0


# --- passing over ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", [5, None, 2.5, "text", b"x" * 5000, np.zeros(LARGE), torch.zeros(LARGE)]
)
def test_a_message_passed_over_frees_its_slot(wire, value) -> None:
    one = wire(readers=2)
    first, second = one.readers
    one.writer.write(value)
    first.skip()
    second.read()
    assert not first.ready()
    assert one.used() == 0
    assert one.send("next") == "next"


def test_a_spoiled_value_can_be_passed_over(wire) -> None:
    one = wire()
    one.writer.write(Spoiled())
    one.readers[0].skip()
    assert one.send(1) == 1


def test_readers_of_one_channel_are_independent(wire) -> None:
    one = wire(readers=2, depth=3)
    fast, slow = one.readers
    for number in range(3):
        one.writer.write(number)
    assert [fast.read() for _ in range(3)] == [0, 1, 2]
    assert slow.ready()
    assert [slow.read() for _ in range(3)] == [0, 1, 2]
