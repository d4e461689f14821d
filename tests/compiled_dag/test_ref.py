from __future__ import annotations

import copy
import pickle
from contextlib import contextmanager

import cloudpickle
import pytest

from compiled_dag import InputNode
from tests.graphs import Worker


@contextmanager
def executed(host):
    """Yield the ref of an execution."""
    with InputNode() as inp:
        output = host.actor(Worker(1)).add.bind(inp)
    with output.experimental_compile() as graph:
        yield graph.execute(1)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_a_ref_cannot_be_copied(host, copied) -> None:
    with executed(host) as ref:
        with pytest.raises(
            ValueError, match="cannot be copied: it is the one handle on its result"
        ):
            copied(ref)


@pytest.mark.parametrize("pickled", [pickle.dumps, cloudpickle.dumps])
def test_a_ref_cannot_be_pickled(host, pickled) -> None:
    with executed(host) as ref:
        with pytest.raises(ValueError, match="cannot be pickled or sent: get its value first"):
            pickled([ref])


def test_a_ref_that_could_not_be_copied_is_as_good_as_before(host) -> None:
    with executed(host) as ref:
        for refused in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(ValueError, match="cannot be"):
                refused(ref)
        assert ref.get(30) == 2


def test_a_ref_shows_its_graph_execution_and_state(host) -> None:
    with executed(host) as ref:
        where = f"graph {ref._dag.get_id()} execution 0 output 0"
        assert repr(ref) == f"<CompiledDAGRef {where} pending>"
        ref.get(30)
        assert repr(ref) == f"<CompiledDAGRef {where} ready>"
