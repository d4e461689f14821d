"""What a compiled graph shows of itself, while it is up and after it is down."""

from __future__ import annotations

import subprocess
import sys

import pytest

from compiled_dag import InputNode, MultiOutputNode
from tests.graphs import Worker, data_parallel, nested, paper


def compiled(host):
    return nested([host.actor(Worker(number)) for number in (1, 2)]).experimental_compile()


def test_ascii_is_returned_and_printed_if_asked_for(host, capsys) -> None:
    with compiled(host) as graph:
        text = graph.visualize(format="ascii")
        assert text.startswith("Nodes Information:\n0 [label=")
        assert capsys.readouterr().out == ""
        assert graph.visualize(format="ascii", view=True) == text
        assert capsys.readouterr().out == f"{text}\n"


def test_ascii_has_no_details(host) -> None:
    with compiled(host) as graph:
        with pytest.raises(
            ValueError, match="channel_details=True does not go with format='ascii'"
        ):
            graph.visualize(format="ascii", channel_details=True)


def test_mermaid_is_text_too(host) -> None:
    with compiled(host) as graph:
        assert graph.visualize(format="mermaid").startswith("flowchart TD\n")
        assert '-->|"shm, channel 2"|' in graph.visualize(format="mermaid", channel_details=True)


def test_other_formats_write_files_and_return_graphvizs_input(
    host, graphviz, tmp_path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with compiled(host) as graph:
        text = graph.visualize()
        assert (tmp_path / "compiled_graph").read_text() == text
        assert (tmp_path / "compiled_graph.png").read_bytes().startswith(b"\x89PNG")
        text = graph.visualize("other", "svg", channel_details=True)
        assert "shm, channel 2" in text
    assert (tmp_path / "other.svg").read_text().startswith("<?xml")


def test_text_needs_no_package(host, monkeypatch) -> None:
    with compiled(host) as graph:
        monkeypatch.setitem(sys.modules, "graphviz", None)
        for text_format in ("ascii", "mermaid"):
            graph.visualize(format=text_format)
        with pytest.raises(ImportError, match="format='ascii' and format='mermaid' need nothing"):
            graph.visualize()


def test_a_notebook_shows_a_graph_as_svg(host) -> None:
    with compiled(host) as graph:
        assert graph._repr_svg_().startswith("<svg ")


def test_everything_stays_readable_after_teardown(host) -> None:
    actors = [host.actor(Worker(number)) for number in (1, 2)]
    with data_parallel(actors).experimental_compile(_max_inflight_executions=3) as graph:
        [ref.get(30) for ref in graph.execute(1)]

        def shown():
            return (
                graph.visualize(format="ascii"),
                graph.visualize(format="mermaid"),
                graph.schedule,
                str(graph.explain()),
                graph.options,
                graph.actors,
                str(graph.memory()),
                str(graph.program),
            )

        before = shown()
    assert shown() == before


def test_a_graph_that_lost_an_actor_says_so_and_stays_readable(host) -> None:
    with compiled(host) as graph:
        text = graph.visualize(format="ascii")
        assert repr(graph).endswith(": up>")
        host.kill(graph.actors[0].actor_id)
        assert repr(graph).endswith(": broken>")
        assert graph.visualize(format="ascii") == text
        assert graph.memory().pins == ()
        assert len(graph.explain().edges) == 7
    assert repr(graph).endswith(": torn down>")


def test_a_schedule_of_a_live_graph_proves_itself(host) -> None:
    with compiled(host) as graph:
        graph.schedule.verify()
        assert list(graph.schedule) == ["Worker(1)", "Worker(2)"]


def test_what_is_shown_in_a_log_is_one_line(host) -> None:
    actors = [host.actor(Worker(number)) for number in range(9)]
    with InputNode() as inp:
        nodes = [actor.add.bind(inp["a\nb"]) for actor in actors]
        output = MultiOutputNode(nodes)
    with output.experimental_compile() as graph:
        refs = graph.execute(**{"a\nb": 1})
        things = [graph, graph.schedule, *refs, output, inp, *nodes, inp["a\nb"],
                  *nodes[0]._upstream()]  # fmt: skip
        for thing in things:
            assert "\n" not in repr(thing)
            assert len(repr(thing)) < 200
        [ref.get(30) for ref in refs]
    assert "Worker(6) and 3 more: torn down>" in repr(graph)
    assert repr(output).count("MultiOutputNode") == 1


def test_looking_is_not_imported_until_somebody_looks() -> None:
    code = (
        "import sys, compiled_dag, collective, runtime\n"
        "late = [n for n in sys.modules if n.startswith(('compiled_dag.picture', "
        "'compiled_dag.schedule', 'compiled_dag.explain', 'compiled_dag.memory'))]\n"
        "assert not late, late\n"
        "assert compiled_dag.Schedule and compiled_dag.plot and compiled_dag.GraphMemory\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=240)


def test_unused_imports_stay_honest() -> None:
    import compiled_dag

    with pytest.raises(AttributeError, match="no attribute 'Scheduler'"):
        compiled_dag.Scheduler  # noqa: B018
    assert all(getattr(compiled_dag, name) is not None for name in compiled_dag.__all__)


def test_paper_graphs_need_no_session() -> None:
    assert "bound at" in repr(nested(paper(2)))
