"""See `tests.test_semantics` for what interpreted graphs compute."""

from __future__ import annotations

import time

import pytest

from compiled_dag import DAGInputData, GraphUsageError, InputNode, MultiOutputNode
from tests.gates import PATIENCE_S, Gate
from tests.graphs import Worker


def value(ref):
    return ref.result(time.monotonic() + PATIENCE_S)


def test_every_node_runs_once(host) -> None:
    gate = Gate()
    with InputNode() as inp:
        node = host.actor(gate).echo.bind(inp)
        output = host.actor(Worker(), gets=True).join.bind(node, [node], {"k": node})
    assert value(output.execute(5)) == (5, [5], {"k": 5})
    assert gate.seen == [5]


def test_actors_keep_their_state_over_executions(host) -> None:
    gate = Gate()
    with InputNode() as inp:
        output = host.actor(gate).echo.bind(inp)
    assert [value(output.execute(number)) for number in range(3)] == [0, 1, 2]
    assert gate.seen == [0, 1, 2]


def test_several_outputs_are_a_list_of_refs(host) -> None:
    worker = host.actor(Worker(1))
    with InputNode() as inp:
        output = MultiOutputNode([worker.add.bind(inp), inp, 7])
    ref, given, constant = output.execute(5)
    assert (value(ref), given, constant) == (6, 5, 7)


def test_several_positional_inputs_and_keywords_are_fields(host) -> None:
    worker = host.actor(Worker())
    with InputNode() as inp:
        output = worker.join.bind(inp[1], inp.rate, inp["two words"], inp[0])
    assert value(output.execute(1, 2, rate=3, **{"two words": 4})) == (2, 3, 4, 1)


def test_a_single_positional_input_is_looked_into(host) -> None:
    worker = host.actor(Worker())
    with InputNode() as inp:
        by_key = worker.join.bind(inp[0], inp["0"])
    assert value(by_key.execute({0: "a", "0": "b"})) == ("a", "b")
    with InputNode() as inp:
        by_attribute = worker.join.bind(inp.number)
    assert value(by_attribute.execute(Worker(3))) == (3,)


def test_negative_positions_count_from_the_end(host) -> None:
    worker = host.actor(Worker())
    with InputNode() as inp:
        output = worker.join.bind(inp[-1], inp[0])
    assert value(output.execute([1, 2, 3])) == value(output.execute(1, 2, 3)) == (3, 1)


@pytest.mark.parametrize(
    ("key", "kind", "text"),
    [
        ("z", KeyError, "no input 'z': execute got 2 positional inputs and 'rate'"),
        (2, IndexError, "no input 2: execute got 2 positional inputs and 'rate'"),
        (-3, IndexError, "no input -3: execute got 2 positional inputs"),
    ],
)
def test_a_missing_input_is_named_with_what_was_given(host, key, kind, text) -> None:
    with InputNode() as inp:
        output = host.actor(Worker()).echo.bind(inp[key])
    with pytest.raises(kind, match=text):
        output.execute(1, 2, rate=3)


@pytest.mark.parametrize(
    ("given", "take", "kind", "text"),
    [
        ({"y": 1}, lambda inp: inp["z"], KeyError, r"inp\['z'\], bound at .*of type dict: 'z'"),
        ([1], lambda inp: inp[1], IndexError, r"inp\[1\], bound at .*of type list"),
        (1, lambda inp: inp.z, AttributeError, r"inp.z, bound at test_interpret.py:.* int"),
    ],
)
def test_what_the_one_input_lacks_is_named(host, given, take, kind, text) -> None:
    with InputNode() as inp:
        output = host.actor(Worker()).echo.bind(take(inp))
    with pytest.raises(kind, match=text):
        output.execute(given)


def test_a_lookup_error_of_the_users_own_stays_as_it_is(host) -> None:
    class MissingError(KeyError):
        pass

    class Config:
        def __getitem__(self, key):
            raise MissingError(key)

    with InputNode() as inp:
        output = host.actor(Worker()).echo.bind(inp["z"])
    with pytest.raises(MissingError, match="^'z'$"):
        output.execute(Config())


def test_the_whole_of_several_inputs_is_input_data(host) -> None:
    gate = Gate()
    with InputNode() as inp:
        output = host.actor(gate).echo.bind(inp)
    data = value(output.execute(1, rate=2))
    assert isinstance(data, DAGInputData)
    made = DAGInputData(1, rate=2)  # as a test of a user's own method may
    assert (data[0], data["rate"]) == (made[0], made["rate"]) == (1, 2)
    with pytest.raises(ValueError, match=r"positional \(int\) or keyword \(str\), not 1.5"):
        data[1.5]


def test_an_error_of_a_method_comes_out_of_every_ref_that_depends_on_it(host) -> None:
    gate, worker = host.actor(Gate()), host.actor(Worker())
    with InputNode() as inp:
        failing = gate.fail.bind(inp)
        output = MultiOutputNode([worker.echo.bind(failing), worker.echo.bind(inp)])
    failed, fine = output.execute(5)
    with pytest.raises(ValueError, match="5 is bad"):
        value(failed)
    assert value(fine) == 5


def test_a_graph_without_input_runs(host) -> None:
    worker = host.actor(Worker())
    assert value(worker.join.bind(worker.echo.bind(1)).execute()) == (1,)


def test_an_input_that_was_not_entered_is_refused(host) -> None:
    with pytest.raises(GraphUsageError, match="was not entered"):
        host.actor(Worker()).echo.bind(InputNode()).execute(1)


def test_two_inputs_are_refused_with_both_lines(host) -> None:
    worker = host.actor(Worker())
    with InputNode() as one, InputNode() as other:
        output = worker.join.bind(one, other)
    here = r"test_interpret\.py:\d+"
    with pytest.raises(GraphUsageError, match=f"2 InputNodes, made at {here}, {here}. Use one"):
        output.execute(1)
