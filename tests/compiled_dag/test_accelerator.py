"""Accelerators that users register, and what code of actors learns of theirs."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from compiled_dag import (
    AcceleratorContext,
    ChannelContext,
    ChannelInterface,
    DAGOperationFuture,
    GPUFuture,
    GraphError,
    is_accelerator_context_registered,
    register_accelerator_context,
)
from compiled_dag.accelerator import Recipe, class_of, recipe_for
from compiled_dag.channel.reader import Reader
from compiled_dag.channel.writer import Writer
from compiled_dag.operation_future import ResolvedFuture
from tests.communicators import Bare, PaperCommunicator


@pytest.fixture(autouse=True)
def unregistered():
    yield
    AcceleratorContext.set(None)


class Counted(PaperCommunicator):
    """Made from how many it was made for."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(arguments[3])
        self.arguments = arguments


def test_without_a_gpu_the_accelerator_is_the_cpu() -> None:
    context = AcceleratorContext.get()
    assert (context.module_name, context.communicator_cls) == ("cpu", None)
    assert context.accelerator_count == 0
    assert context.get_accelerator_devices() == [torch.device("cpu")]
    with context.get_device_context(torch.device("cpu")):
        assert context.create_event() is None
    assert context.current_stream() is not None
    assert not is_accelerator_context_registered()
    with pytest.raises(GraphError, match="no class of communicators is registered for 'cpu'"):
        context.create_communicator(2)


def test_a_registered_one_is_found_until_it_is_taken_back() -> None:
    register_accelerator_context("cpu", Counted)
    assert is_accelerator_context_registered()
    context = AcceleratorContext.get()
    assert repr(context) == "<AcceleratorContext cpu, Counted>"
    made = context.create_communicator(1, "id", 0, ["actor"], None, False)
    assert isinstance(made, Counted)
    assert context.generate_communicator_id() != context.generate_communicator_id()
    AcceleratorContext.set(None)
    assert AcceleratorContext.get().communicator_cls is None


@pytest.mark.parametrize("wrong", [int, "Counted", Bare([])])
def test_only_classes_of_communicators_can_be_registered(wrong) -> None:
    with pytest.raises(TypeError, match=r"no subclass of compiled_dag\.Communicator"):
        register_accelerator_context("cpu", wrong)
    assert not is_accelerator_context_registered()


def test_only_devices_that_torch_has_can_be_registered() -> None:
    with pytest.raises(ValueError, match="'npu': torch has no such device module"):
        register_accelerator_context("npu", Counted)


def test_a_recipe_makes_one_on_each_rank_and_registers_it_there() -> None:
    assert recipe_for(["a", "b"], overlaps=False) is None
    register_accelerator_context("cpu", Counted)
    recipe = recipe_for(["a", "b"], overlaps=True)
    assert isinstance(recipe, Recipe)
    assert (recipe.get_rank("b"), recipe.get_world_size()) == (1, 2)
    assert class_of(recipe) is class_of(Counted(2, "", 0, ["a", "b"], None, False))
    AcceleratorContext.set(None)
    made = recipe.make(1)
    assert isinstance(made, Counted)
    size, number, rank, handles, stream, overlaps = made.arguments
    assert (size, number, rank, handles) == (2, recipe.communicator_id, 1, ["a", "b"])
    assert stream is not None
    assert overlaps
    assert is_accelerator_context_registered()


def test_the_context_of_channels_is_one_and_says_where_tensors_are() -> None:
    context = ChannelContext.get_current()
    assert context is ChannelContext.get_current()
    assert context.torch_available
    assert context.torch_device == torch.device("cpu")
    context.set_torch_device(torch.device("meta"))
    try:
        assert context.torch_device == torch.device("meta")
    finally:
        context.set_torch_device(None)
    assert repr(context) == "<ChannelContext, communicators: none>"


def test_both_ends_are_channels_and_users_make_none() -> None:
    assert issubclass(Reader, ChannelInterface)
    assert issubclass(Writer, ChannelInterface)
    with pytest.raises(TypeError, match=r"Mine: graphs cannot use channels .* Communicator"):

        class Mine(ChannelInterface):
            pass


class Stream:
    """Notes what is recorded on it, and what it waits for."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def wait_event(self, event: Any) -> None:
        self.seen.append(f"waits for {event.recorded_on}")


class Event:
    recorded_on: Any = None

    def record(self, stream: Any) -> None:
        self.recorded_on = stream


class Gpu(AcceleratorContext):
    """An accelerator whose streams are seen."""

    def __init__(self) -> None:
        super().__init__("cpu")
        self.stream = Stream()

    def current_stream(self) -> Stream:
        return self.stream

    def create_event(self) -> Event:
        return Event()


def test_a_future_makes_the_current_stream_wait_once_for_where_it_was_made() -> None:
    gpu = Gpu()
    AcceleratorContext.set(gpu)
    future = GPUFuture("tensor", stream="mine")
    assert isinstance(future, DAGOperationFuture)
    assert (future.wait(), future.wait()) == ("tensor", "tensor")
    assert gpu.stream.seen == ["waits for mine"]
    GPUFuture("tensor", 7).wait()
    assert gpu.stream.seen[1] == f"waits for {gpu.stream}"


def test_a_future_in_host_memory_is_there() -> None:
    assert GPUFuture([1]).wait() == [1]
    assert ResolvedFuture(2).wait() == 2
