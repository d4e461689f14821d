"""Which GPUs actors get and see: arithmetic, and actors on fake GPUs."""

from __future__ import annotations

import pytest

import runtime
from runtime import gpus, nvml
from runtime.placement import Placement
from tests.runtime.actors import Worker


@pytest.mark.parametrize(
    ("variable", "found", "expected"),
    [
        (None, 2, ("0", "1")),
        (None, 0, ()),
        ("1,0", 2, ("1", "0")),
        ("", 2, ()),
        ("0,-1,1", 2, ("0",)),
        ("GPU-ab, GPU-cd", 2, ("GPU-ab", "GPU-cd")),
        ("0", 0, ()),
        ("0,2,1", 2, ("0",)),
        ("7", 2, ()),
    ],
)
def test_physical_devices_are_those_of_the_driver(variable, found, expected):
    environment = {} if variable is None else {gpus.VARIABLE: variable}
    assert gpus.physical_devices(environment, found) == expected


def test_an_index_that_no_gpu_has_is_named_with_those_there_are(monkeypatch):
    for listed in (None, "", "1,0", "-1", "GPU-ab"):
        environment = {} if listed is None else {gpus.VARIABLE: listed}
        assert gpus.unknown_device(environment, 2) == ""
    assert gpus.unknown_device({gpus.VARIABLE: "0"}, 0) == ""
    monkeypatch.setenv(gpus.VARIABLE, "0,3")
    monkeypatch.setattr(gpus, "count_devices", lambda: 2)
    with pytest.warns(UserWarning, match="there is no GPU 3, the machine has 2, 0 to 1"):
        Placement(
            num_cpus=1, num_gpus=None, resources={}, visibility=None, env_vars={},
            working_dir=None, on_wait=lambda: None,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        (["dev/null"], 0),
        (["dev/nvidia0", "dev/nvidia1", "dev/nvidiactl", "dev/nvidia-uvm"], 2),
        (["proc/driver/nvidia/gpus/0000:01:00.0", "dev/nvidia0", "dev/nvidia1"], 1),
        (["dev/dxg"], 3),
        (["dev/dxg", "dev/nvidia0"], 1),
    ],
)
def test_devices_are_counted_where_the_kernel_shows_them_else_by_nvml(
    tmp_path, monkeypatch, there, expected
):
    for name in there:
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.setattr(nvml, "count", lambda: 3)
    assert gpus.count_devices(str(tmp_path)) == expected


class Nvml:
    """The library, as ctypes shows it."""

    def __init__(self, found, *, start=0, count=0):
        self.found, self.start, self.count, self.open = found, start, count, 0

    def nvmlInit_v2(self):  # noqa: N802
        self.open += not self.start
        return self.start

    def nvmlDeviceGetCount_v2(self, place):  # noqa: N802
        if not self.count:
            place._obj.value = self.found
        return self.count

    def nvmlShutdown(self):  # noqa: N802
        self.open -= 1
        return 0


def test_nvml_counts_and_is_left():
    library = Nvml(2)
    assert nvml.count({nvml.LIBRARY: library}.__getitem__) == 2
    assert library.open == 0


def test_without_a_driver_of_nvidias_nvml_counts_none():
    def load(name):
        raise OSError(f"{name}: cannot open shared object file")

    assert nvml.count(load) == 0


@pytest.mark.parametrize(("library", "status"), [(Nvml(2, start=9), 9), (Nvml(2, count=999), 999)])
def test_a_driver_that_does_not_work_is_told(library, status):
    with pytest.warns(UserWarning, match=f"status {status} of nvmlReturn_t.*Run nvidia-smi"):
        assert nvml.count(lambda _name: library) == 0
    assert library.open == 0


@pytest.mark.parametrize(
    ("visibility", "assigned", "physical", "expected"),
    [
        ("assigned_first", (1,), ("0", "1", "2"), "1,0,2"),
        ("assigned_first", (3,), ("0", "1"), "1,0"),
        ("assigned_first", (0, 2), ("4", "5"), "4,5"),
        ("assigned_only", (1,), ("0", "1", "2"), "1"),
        ("assigned_only", (0, 2), ("0", "1"), "0"),
        ("assigned_first", (1,), (), ""),
        ("none", (), ("0",), ""),
        ("inherit", (), ("0",), None),
        ("assigned_first", (1,), ("GPU-a", "GPU-b"), "GPU-b,GPU-a"),
    ],
)
def test_visible_devices(visibility, assigned, physical, expected):
    assert gpus.visible_devices(visibility, assigned, physical) == expected


def test_public_ids_are_numbers_or_names():
    assert gpus.public_ids((0, 3), ("0", "1")) == (0, 3)
    assert gpus.public_ids((0, 3), ()) == (0, 3)
    assert gpus.public_ids((0, 3), ("GPU-a", "GPU-b")) == ("GPU-a", "GPU-b")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, ("assigned_first", "none")),
        ("assigned_only", ("assigned_only", "none")),
        ("inherit", ("assigned_first", "inherit")),
        ("inherit, assigned_only", ("assigned_only", "inherit")),
    ],
)
def test_session_visibility(text, expected):
    assert gpus.parse_visibility(text) == expected


@pytest.mark.parametrize("text", ["all", "none,inherit", "assigned_first,assigned_only", "", 3])
def test_session_visibility_is_checked(text):
    with pytest.raises(ValueError, match="assigned_first"):
        gpus.parse_visibility(text)


def test_the_environment_has_the_sessions_default(monkeypatch):
    monkeypatch.setenv("COMPILED_DAG_GPU_VISIBILITY", "inherit,assigned_only")
    assert gpus.session_visibility(None) == ("assigned_only", "inherit")
    assert gpus.session_visibility("none") == ("assigned_first", "none")
    monkeypatch.setenv("COMPILED_DAG_GPU_VISIBILITY", "all")
    with pytest.raises(ValueError, match=r"COMPILED_DAG_GPU_VISIBILITY: .*'all': choose one of"):
        gpus.session_visibility(None)


@pytest.mark.proc
def test_a_session_takes_its_visibility_from_the_environment(monkeypatch):
    monkeypatch.setenv(gpus.VARIABLE, "7")
    monkeypatch.setenv("COMPILED_DAG_GPU_VISIBILITY", "inherit")
    with runtime.init():
        assert runtime.get(Worker.remote().gpus.remote()) == ([], "7")


def test_the_pool_gives_whole_gpus_and_shares():
    pool = gpus.GpuPool(3)
    assert pool.take(2) == (0, 1)
    assert pool.take(0.5) == (2,)
    assert pool.take(1) is None
    assert pool.take(0.5) == (2,)
    assert pool.take(0.1) is None
    pool.give_back((0, 1), 2)
    assert pool.take(0) == ()
    assert pool.take(1) == (0,)
    assert pool.take(0.25) == (1,)
    assert pool.take(0.25) == (1,)
    pool.give_back((2,), 0.5)
    pool.give_back((2,), 0.5)
    assert pool.take(1) == (2,)


def test_ten_tenths_are_one_gpu():
    pool = gpus.GpuPool(1)
    assert [pool.take(0.1) for _ in range(10)] == [(0,)] * 10
    assert pool.take(0.1) is None


@pytest.mark.proc
def test_fake_gpus_are_assigned_by_count(monkeypatch):
    monkeypatch.setenv(gpus.VARIABLE, "")
    with runtime.init(num_gpus=2):
        with pytest.warns(UserWarning, match="fake") as caught:
            pair = [Worker.options(num_gpus=1).remote() for _ in range(2)]
        assert len(caught) == 1
        without = Worker.remote()
        found = runtime.get([worker.gpus.remote() for worker in (*pair, without)])
        assert found == [([0], ""), ([1], ""), ([], "")]
        assert runtime.get_gpu_ids() == []


@pytest.mark.proc
def test_inherit_leaves_the_variable(monkeypatch):
    monkeypatch.setenv(gpus.VARIABLE, "7")
    with runtime.init():
        worker = Worker.options(gpu_visibility="inherit").remote()
        assert runtime.get(worker.gpus.remote()) == ([], "7")


@pytest.mark.proc
@pytest.mark.filterwarnings("ignore:.*physical GPUs:UserWarning")
def test_an_actor_waits_for_a_gpu_that_another_holds():
    with runtime.init(num_gpus=1):
        first = Worker.options(num_gpus=1).remote()
        second = Worker.options(num_gpus=1).remote()
        ref = second.gpus.remote()
        assert runtime.get(first.gpus.remote())[0] == [0]
        assert runtime.wait([ref], timeout=0.1) == ([], [ref])
        runtime.kill(first)
        assert runtime.get(ref, timeout=60)[0] == [0]


@pytest.mark.proc
def test_an_actor_that_never_fits_warns_once_and_waits():
    with runtime.init(num_gpus=1):
        with pytest.warns(UserWarning, match=r"more than the session has in all \(GPU: 2 of 1\)"):
            worker = Worker.options(num_gpus=2).remote()
        ref = worker.echo.remote(1)
        assert runtime.wait([ref], timeout=0.05) == ([], [ref])
        assert runtime.get(Worker.remote().echo.remote(2)) == 2  # others go on
        runtime.kill(worker)
        with pytest.raises(runtime.exceptions.ActorDiedError):
            runtime.get(ref)
