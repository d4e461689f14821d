"""``import ray`` under the alias: names, errors, installing and undoing it."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import types

import cloudpickle
import pytest

import collective
import compiled_dag
import runtime
from compiled_dag import DAGContext
from runtime import alias
from runtime.alias.installation import SHIM, VARIABLE, with_alias


@pytest.fixture
def installed():
    alias.install()
    yield
    alias.uninstall()


pytestmark = pytest.mark.usefixtures("installed")


def test_modules_and_names_are_ours() -> None:
    import ray
    from ray.dag import InputNode, MultiOutputNode
    from ray.dag.compiled_dag_node import CompiledDAG
    from ray.exceptions import RayChannelTimeoutError, RayTaskError
    from ray.experimental.compiled_dag_ref import CompiledDAGRef

    assert ray.get is runtime.get
    assert ray.init is runtime.init
    assert InputNode is compiled_dag.InputNode
    assert MultiOutputNode is compiled_dag.MultiOutputNode
    assert CompiledDAG is compiled_dag.CompiledDAG
    assert CompiledDAGRef is compiled_dag.CompiledDAGRef
    assert RayTaskError is compiled_dag.TaskError
    assert RayChannelTimeoutError is compiled_dag.ChannelTimeoutError
    assert ray.__version__ == "2.60.0"


def test_submodules_are_attributes_without_an_import() -> None:
    import ray

    assert ray.experimental.collective.allreduce is collective.allreduce
    assert ray.util.state.list_actors is runtime.util.state.list_actors
    assert ray.actor.exit_actor is runtime.actor.exit_actor
    assert ray.dag.context.DAGContext is DAGContext


def test_import_star_brings_what_there_is() -> None:
    names: dict[str, object] = {}
    exec("from ray.dag import *", names)
    assert names["InputNode"] is compiled_dag.InputNode
    assert "experimental" not in names


def test_dir_lists_names_and_submodules() -> None:
    import ray

    assert {"get", "init", "dag", "util", "exceptions"} <= set(dir(ray))
    assert "data" not in dir(ray)


@pytest.mark.parametrize(
    ("statement", "name", "advice"),
    [
        ("import ray.data", "ray.data", "libraries"),
        ("import ray.data.context", "ray.data", "libraries"),
        ("from ray import serve", "ray.serve", "libraries"),
        ("from ray.util import placement_group", "ray.util.placement_group", "num_cpus"),
        ("from ray.util.placement_group import x", "ray.util.placement_group", "num_cpus"),
        ("from ray.cluster_utils import Cluster", "ray.cluster_utils.Cluster", "ray.init"),
        ("from ray.experimental.channel import Channel", "channel.Channel", "compile"),
        ("from ray.nonsense import x", "ray.nonsense", "migrating-from-ray"),
        ("from ray.dag import nonsense", "ray.dag.nonsense", "migrating-from-ray"),
    ],
)
def test_an_import_of_what_is_missing_says_what_to_use(statement, name, advice) -> None:
    with pytest.raises(ImportError) as caught:
        exec(statement, {})
    assert name in str(caught.value)
    assert advice in str(caught.value)


def test_an_attribute_that_is_missing_says_what_to_use() -> None:
    import ray

    with pytest.raises(AttributeError, match=r"ray.cluster_utils.Cluster: .* Instead: ray.init"):
        _ = ray.cluster_utils.Cluster
    with pytest.raises(AttributeError, match="ray.nonsense is not offered"):
        _ = ray.nonsense
    assert not hasattr(ray, "serve")
    assert not hasattr(ray, "__file__")


def test_looking_for_a_module_finds_it_or_not() -> None:
    """As libraries do that use Ray if it is there."""
    assert importlib.util.find_spec("ray") is not None
    assert importlib.util.find_spec("ray.dag") is not None
    assert importlib.util.find_spec("ray.tune") is None


def test_modules_travel_in_closures() -> None:
    import ray.dag

    for module in (ray, ray.dag):
        assert cloudpickle.loads(cloudpickle.dumps([module])) == [module]


def test_a_name_is_looked_up_once() -> None:
    import ray

    assert "put" not in vars(ray)
    assert ray.put is vars(ray)["put"]
    assert type(ray) is types.ModuleType


def test_both_reduce_ops_count_by_name() -> None:
    from ray.experimental.util import types as graph
    from ray.util.collective import types as eager

    from collective.ops import parse_reduce_op

    assert graph.ReduceOp.MIN.value != eager.ReduceOp.MIN.value
    for op in (*graph.ReduceOp, *eager.ReduceOp):
        assert parse_reduce_op(op) is collective.ReduceOp[op.name]


def test_rays_variables_count_where_ours_are_unset(monkeypatch) -> None:
    import ray

    monkeypatch.setenv("RAY_CGRAPH_get_timeout", "3")
    monkeypatch.setenv("RAY_CGRAPH_teardown_timeout_s", "7")  # a unit, as some of Ray's have
    monkeypatch.setenv("RAY_CGRAPH_submit_timeout", "4")
    monkeypatch.setenv("COMPILED_DAG_SUBMIT_TIMEOUT", "5")
    context = DAGContext.from_environment()
    assert context.get_timeout == 3
    assert context.teardown_timeout == 7
    assert context.submit_timeout == 5
    assert ray.dag.context.DEFAULT_GET_TIMEOUT_S == 3
    monkeypatch.setenv("RAY_CGRAPH_ENABLE_DETECT_DEADLOCK", "0")
    monkeypatch.setenv("RAY_CGRAPH_VISUALIZE_SCHEDULE", "1")
    assert not ray.dag.constants.RAY_CGRAPH_ENABLE_DETECT_DEADLOCK
    assert ray.dag.constants.RAY_CGRAPH_VISUALIZE_SCHEDULE
    monkeypatch.setenv("RAY_CGRAPH_ENABLE_PROFILING", "1")
    assert ray.dag.constants.RAY_CGRAPH_ENABLE_PROFILING
    assert not ray.dag.constants.RAY_CGRAPH_ENABLE_NVTX_PROFILING
    alias.uninstall()
    assert DAGContext.from_environment().get_timeout == 10


def test_a_malformed_variable_of_rays_is_named(monkeypatch) -> None:
    monkeypatch.setenv("RAY_CGRAPH_get_timeout", "soon")
    with pytest.raises(ValueError, match="RAY_CGRAPH_get_timeout='soon'"):
        DAGContext.from_environment()


# --- installing


def test_installing_twice_is_harmless() -> None:
    before = list(sys.meta_path), list(sys.path), dict(os.environ)
    alias.install()
    assert (list(sys.meta_path), list(sys.path), dict(os.environ)) == before
    assert alias.is_installed()


def test_uninstalling_leaves_nothing(monkeypatch) -> None:
    import ray

    assert ray.dag
    alias.uninstall()
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    before = list(sys.meta_path), list(sys.path), dict(os.environ), set(sys.modules)
    alias.install()
    importlib.import_module("ray.dag")
    assert SHIM in sys.path
    assert os.environ["PYTHONPATH"] == f"{SHIM}{os.pathsep}/somewhere"
    assert os.environ[VARIABLE] == "1"
    alias.uninstall()
    alias.uninstall()
    assert (list(sys.meta_path), list(sys.path), dict(os.environ)) == before[:3]
    assert [name for name in sys.modules if name.split(".")[0] == "ray"] == []
    assert not alias.is_installed()


def test_the_real_ray_must_not_be_there_already(monkeypatch) -> None:
    alias.uninstall()
    real = types.ModuleType("ray")
    real.__file__ = "/site-packages/ray/__init__.py"
    monkeypatch.setitem(sys.modules, "ray", real)
    with pytest.raises(RuntimeError, match=r"/site-packages/ray/.* install the alias first"):
        alias.install()
    assert not alias.is_installed()


def test_the_environment_of_a_script_has_the_folder_once() -> None:
    once = with_alias({"PYTHONPATH": "/a"})
    assert once == {VARIABLE: "1", "PYTHONPATH": f"{SHIM}{os.pathsep}/a"}
    assert with_alias(once) == once
