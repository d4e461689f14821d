"""What errors mean, and that cupy has what is called."""

from __future__ import annotations

import contextlib
import importlib
import re
import sys
import types

import pytest

from collective import is_backend_available
from compiled_dag import DeviceError, MemoryCapError
from compiled_dag.cuda import device
from compiled_dag.cuda.cupy_driver import CupyDriver
from compiled_dag.cuda.driver import Driver, Selecting, Translating
from tests.cuda.fake import FakeCudaError, FakeDriver, Ranges, Settings


def calling(error: Exception) -> None:
    with Translating(FakeDriver(Settings(""), Ranges()), "channel f"):
        raise error


@pytest.mark.parametrize(
    ("has_gpu", "text"),
    [
        (True, r"cupy.* Device channels need it: pip install 'compiled-dag\[gpu\]'$"),
        (False, r"torch\.cuda\.is_available\(\) is False: no GPU is visible, or torch has no CUDA"),
    ],
    ids=["without cupy", "without a GPU"],
)
def test_a_device_that_cannot_be_opened_says_what_is_missing(monkeypatch, has_gpu, text) -> None:
    monkeypatch.delenv("COMPILED_DAG_CUDA", raising=False)
    monkeypatch.setattr(device._Opened, "device", None)
    monkeypatch.setattr("torch.cuda.is_available", lambda: has_gpu)
    monkeypatch.setitem(sys.modules, "cupy", None)  # importing it is an ImportError
    with pytest.raises(DeviceError, match=text):
        device.open_device()


def test_what_needs_cupy_is_not_available_without_it(monkeypatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    assert not is_backend_available("cuda_ipc")


def test_errors_of_the_driver_become_ours() -> None:
    with pytest.raises(MemoryCapError, match=r"^channel f: the GPU has no memory .*cudaError2"):
        calling(FakeCudaError(2, "out of memory"))
    with pytest.raises(DeviceError, match=r"^channel f: cudaError801: no$") as raised:
        calling(FakeCudaError(801, "no"))
    assert (raised.value.status, raised.value.is_lost) == (801, False)
    with pytest.raises(DeviceError, match=r"^the CUDA context is lost, channel f: ") as raised:
        calling(FakeCudaError(700, "an illegal memory access was encountered"))
    assert raised.value.is_lost
    for status in (226, 719, 810):  # contained, launch failure, MPS client terminated
        with pytest.raises(DeviceError, match="is lost"):
            calling(FakeCudaError(status))
    with pytest.raises(KeyError):
        calling(KeyError("not the driver's"))


@pytest.mark.parametrize("elsewhere", [0, 1])
@pytest.mark.parametrize("fails", [False, True])
def test_the_device_that_user_code_has_made_current_is_given_back(elsewhere, fails) -> None:
    driver = FakeDriver(Settings(""), Ranges())
    driver.select(elsewhere)
    with contextlib.suppress(KeyError), Selecting(driver):
        assert driver.current() == 0
        if fails:
            raise KeyError
    assert driver.current() == elsewhere


class Calls(types.ModuleType):
    """Stands for `cupy.cuda.runtime`: notes what is called with what."""

    CUDARuntimeError = FakeCudaError

    def __init__(self) -> None:
        super().__init__("cupy.cuda.runtime")
        self.made: list[tuple[str, tuple[object, ...]]] = []
        self.status = self.last_error = 0

    def __getattr__(self, name: str):
        if name.startswith("_"):
            raise AttributeError(name)

        def call(*arguments: object) -> object:
            self.made.append((name, arguments))
            if name.startswith("ipcGet"):
                return bytes(64)
            if name == "check_status":
                self.last_error = 0
                raise FakeCudaError(*arguments)
            if name == "eventQuery":
                self.last_error = self.status
            return (5, 6) if name == "memGetInfo" else self.status

        return call


@pytest.fixture
def calls(monkeypatch) -> Calls:
    runtime = Calls()
    package = types.ModuleType("cupy")
    package.cuda = types.ModuleType("cupy.cuda")
    package.cuda.runtime = runtime
    for module in (package, package.cuda, runtime):
        name = module.__name__ if module is not package.cuda else "cupy.cuda"
        monkeypatch.setitem(sys.modules, name, module)
    return runtime


def call_everything(driver: Driver) -> None:
    driver.select(driver.current())
    driver.free_bytes()
    pointer = driver.allocate(2 << 20)
    driver.close_memory(driver.import_memory(driver.export_memory(pointer)))
    driver.register(4096, 8192)
    driver.unregister(4096)
    event = driver.make_event(is_shared=True)
    driver.destroy_event(driver.import_event(driver.export_event(event)))
    driver.record(event, 7)
    driver.wait(7, event)
    driver.is_done(event)
    driver.copy(pointer, pointer + 512, 512, 7)
    driver.free(pointer)


def test_the_calls_are_those_of_the_runtime_library(calls) -> None:
    call_everything(CupyDriver())
    found = dict(calls.made)
    assert found["eventCreateWithFlags"] == (2 | 4,)  # DisableTiming | Interprocess
    assert found["hostRegister"] == (4096, 8192, 0)
    assert found["ipcOpenMemHandle"] == (bytes(64), 1)  # LazyEnablePeerAccess
    assert found["memcpyAsync"] == (0, 512, 512, 4, 7)  # Default
    assert found["streamWaitEvent"] == (7, 0)
    assert found["eventRecord"] == (0, 7)


def test_a_query_that_fails_raises(calls) -> None:
    driver = CupyDriver()
    assert driver.is_done(3)
    calls.status = 600
    assert not driver.is_done(3)
    assert not calls.last_error, "torch's next kernel would find it"
    calls.status = 719
    with pytest.raises(FakeCudaError, match="719"):
        driver.is_done(3)


def test_cupy_has_these_calls_with_these_arguments(calls, monkeypatch) -> None:
    call_everything(CupyDriver())
    calls.status = 600
    assert not CupyDriver().is_done(3)
    for name in ("cupy", "cupy.cuda", "cupy.cuda.runtime"):
        monkeypatch.delitem(sys.modules, name)
    pytest.importorskip("cupy", reason="cupy is not installed")
    runtime = importlib.import_module("cupy.cuda.runtime")
    for name, arguments in calls.made:
        # Cython gives no signature but in the docstring's first line: name(type a, type b=default).
        (given,) = re.findall(rf"^{name}\((.*?)\)", getattr(runtime, name).__doc__)
        named = given.split(",") if given else []
        needed = [argument for argument in named if "=" not in argument]
        assert len(needed) <= len(arguments) <= len(named), (name, given)
    assert (runtime.eventDisableTiming, runtime.eventInterprocess) == (2, 4)
    assert runtime.cudaIpcMemLazyEnablePeerAccess == 1
    assert runtime.memcpyDefault == 4


def test_without_a_gpu_the_error_says_what_is_missing(monkeypatch) -> None:
    import torch

    monkeypatch.setattr(device._Opened, "device", None)
    if not torch.cuda.is_available():
        with pytest.raises(DeviceError, match=r"cuda\.is_available\(\) is False"):
            device.open_device()
    monkeypatch.setenv("COMPILED_DAG_CUDA", "tests.cuda:nothing")
    with pytest.raises(DeviceError, match="COMPILED_DAG_CUDA='tests.cuda:nothing' is no"):
        device.open_device()
