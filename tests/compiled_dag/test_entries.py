from __future__ import annotations

import pytest

from compiled_dag.entries import Inputs, Output
from compiled_dag.table import parse
from compiled_dag.tree import Const, ListOf, Val


def inputs_of(*entries: str, outputs: tuple[str, ...] = ()) -> Inputs:
    """Return the inputs of a program with these entry and output lines."""
    lines = [
        "program inflight=1 list",
        "participant 0 driver",
        "slots 9",
        *(f"entry {entry}" for entry in entries),
        *(f"output {output}" for output in outputs),
    ]
    return Inputs(parse("\n".join(lines)))


def test_the_whole_input_is_one_positional_argument() -> None:
    assert inputs_of("- v3").slots(["it"], {}) == [None] * 3 + ["it"] + [None] * 5


def test_keywords_beside_a_whole_input_are_ignored() -> None:
    assert inputs_of("- v0").slots(["it"], {"more": 1})[0] == "it"


def test_fields_go_to_their_slots() -> None:
    slots = inputs_of("2 v1", "0 v0", "'rate' v2", "'two words' v3").slots(
        ["a", "unused", "c"], {"rate": 1, "two words": 2, "more": 3}
    )
    assert slots[:4] == ["a", "c", 1, 2]


def test_negative_positions_count_from_the_end() -> None:
    assert inputs_of("-1 v0", "0 v1", "1 v2").slots(["a", "b"], {})[:3] == ["b", "a", "b"]
    assert inputs_of("-1 v0").slots(["a"], {})[0] == "a"


@pytest.mark.parametrize(
    ("entries", "count", "text"),
    [
        (("- v0",), 0, "takes 1 positional input, execute got 0"),
        (("- v0",), 2, "takes 1 positional input, execute got 2"),
        (("0 v0", "2 v1"), 2, "takes 3 positional inputs, execute got 2"),
        (("'rate' v0",), 1, "takes 0 positional inputs and the keyword 'rate', execute got 1"),
        (("'b' v0", "'a' v1", "0 v2"), 2, "1 positional input and the keywords 'b', 'a', execute"),
        (("0 v0", "-3 v1"), 2, "takes 3 positional inputs, execute got 2"),
        ((), 1, "takes 0 positional inputs, execute got 1"),
    ],
)
def test_the_number_of_positional_arguments_is_what_the_graph_takes(entries, count, text) -> None:
    with pytest.raises(ValueError, match=text):
        inputs_of(*entries).slots([0] * count, {"rate": 1})


def test_a_missing_keyword_is_named_beside_what_was_given() -> None:
    inputs = inputs_of("'rate' v0", "'size' v1")
    with pytest.raises(ValueError, match=r"keyword input 'size', execute got 'rate', 'sise'"):
        inputs.slots([], {"rate": 1, "sise": 2})
    with pytest.raises(ValueError, match=r"keyword input 'rate', execute got none"):
        inputs.slots([], {})


def test_an_output_of_a_channel_knows_its_reader() -> None:
    assert Output(Val(3), {3: 1}, []).reader == 1
    assert Output(Val(4), {3: 1}, []).reader is None
    assert Output(Const(0), {3: 1}, ["it"]).reader is None


def test_an_output_of_the_driver_is_an_input_or_a_constant() -> None:
    slots = {4: "input"}
    assert Output(Val(4), {}, []).local(slots.__getitem__) == "input"
    assert Output(Const(0), {}, ["it"]).local(slots.__getitem__) == "it"
    assert Output(ListOf((Const(0),)), {}, ["it"]).local(slots.__getitem__) == ["it"]
