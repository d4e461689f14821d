"""The timeline page: its data, and that a browser draws it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from compiled_dag.trace.page import data_of, render
from compiled_dag.trace.record import Lane, Operation, Span, Trace
from tests.compiled_dag.trace.traces import sample
from tests.gates import compiled

if TYPE_CHECKING:
    from pathlib import Path

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def data_in(page: str) -> dict:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def test_columns_give_back_every_span() -> None:
    trace = sample(executions=3)
    for lane, columns in zip(trace.lanes, data_of(trace, "now")["lanes"], strict=True):
        begin, spans = 0, []
        for row in range(len(lane.spans)):
            begin += columns["begin"][row]
            times = begin, begin + columns["wait"][row], begin + columns["length"][row]
            state = ("ok", "failed", "running")[columns["state"][row]]
            spans.append(Span(columns["operation"][row], columns["execution"][row], *times, state))
        assert tuple(spans) == lane.spans


def test_what_users_call_things_cannot_break_out_of_the_data() -> None:
    name = "</script><script>alert('x')</script><!--"
    operation = Operation(kind="compute", name=name, step=1)
    lane = Lane(participant=1, label=name, pid=1, operations=(operation,), spans=())
    page = render(Trace(graph="1", channels=(), lanes=(lane,)), "now")
    data = data_in(page)
    assert data["lanes"][0]["label"] == data["lanes"][0]["operations"][0]["name"] == name
    assert "alert('x')" not in page.replace(json.dumps(name).replace("<", "\\u003c"), "")


def test_the_page_loads_nothing() -> None:
    page = render(sample(), "now")
    assert not re.search(r"""(src|href)\s*=|@import|url\(|fetch\(|https?://""", page)


def test_a_graph_writes_its_page_while_up_and_after_teardown(host, tmp_path) -> None:
    with compiled(host) as graph:
        graph.execute(1).get(30)
        path = graph.timeline(tmp_path / "up.html")
    assert path == str(tmp_path / "up.html")
    after = data_in((tmp_path / graph.timeline(tmp_path / "down.html")).read_text())
    assert [lane["label"] for lane in after["lanes"]] == [
        "driver: execute", "driver: get", "Worker(1)",
    ]  # fmt: skip
    assert after["lanes"][2]["execution"] == [0, 0, 0]
    with pytest.raises(OSError, match="no folder"):
        graph.timeline(tmp_path / "no folder" / "page.html")


@pytest.fixture(scope="module")
def browser() -> str:
    for name in BROWSERS:
        if path := shutil.which(name):
            return path
    pytest.skip(f"no browser to draw in: none of {', '.join(BROWSERS)} is installed")


def shown(browser: str, folder: Path, page: str) -> str:
    """Return a page as it is once a browser has run its scripts, which must not complain."""
    path = folder / "page.html"
    path.write_text(page, encoding="utf-8")
    done = subprocess.run(
        [
            browser,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={folder / 'profile'}",
            "--enable-logging=stderr",
            "--virtual-time-budget=5000",
            "--dump-dom",
            path.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "CONSOLE" not in done.stderr, done.stderr
    (root,) = re.findall(r"<html[^>]*>", done.stdout)
    assert "data-error" not in root
    return done.stdout


@pytest.mark.parametrize("executions", [0, 1, 5000])
def test_a_browser_draws_it(browser, tmp_path, executions) -> None:
    page = shown(browser, tmp_path, render(sample(executions, readers=3), "now"))
    (drawn,) = re.findall(r'data-drawn="(\d+)"', page)
    assert (int(drawn) > 0) == (executions > 0)
    assert int(drawn) < 60_000
    assert page.count('<td class="left">Worker.f</td>') == (3 if executions else 0)
    assert "Timeline of graph 1f" in page


LOOK = """<script>
const said = document.documentElement.dataset, box = lanes.getBoundingClientRect();
const y = box.top + AXIS + 1.5 * LANE;  // the lane of Worker(1)
function point_at(x) {
  lanes.dispatchEvent(new PointerEvent("pointermove", { clientX: box.left + x, clientY: y }));
  return $("tip").textContent;
}
$("all").click(); draw(); said.all = $("window").textContent;
const closer = { deltaY: -120, clientX: box.left + GUTTER + 300, clientY: y };
for (let n = 0; n < 12; n++) lanes.dispatchEvent(new WheelEvent("wheel", closer));
draw(); said.near = $("window").textContent;
window.dispatchEvent(new KeyboardEvent("keydown", { key: "0" }));
draw(); said.again = $("window").textContent;
const tips = new Set();
for (let x = GUTTER; x < lanes.clientWidth; x += 2) tips.add(point_at(x));
said.tips = [...tips].join("|");
</script>
"""


def test_it_can_be_zoomed_and_tells_of_what_is_pointed_at(browser, tmp_path) -> None:
    page = render(sample(3), "now").replace("</body>", f"{LOOK}</body>")
    assert LOOK in page
    (root,) = re.findall(r"<html[^>]*>", shown(browser, tmp_path, page))
    said = dict(re.findall(r'data-(\w+)="([^"]*)"', root))
    assert said["all"] == said["again"] != said["near"]
    for told in ("Worker.f", "read input", "execution2", "bound ata.py:3", "raised"):
        assert told in said["tips"]
