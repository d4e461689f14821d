"""Playing scripts: what they print, how they end, and that one does not spoil the next."""

from __future__ import annotations

import sys

import pytest

from tests.differential import corpus
from tests.differential.corpus import Script

SCRIPTS = {
    "a_prints": "import ray\nprint(ray.get(ray.put(1)))",
    "b_raises": "print('before')\nraise KeyError('x')",
    "c_ends_all": "import os\nprint('lost')\nos._exit(3)",
    "d_leaves_an_actor": (
        "import ray\n"
        "A = ray.remote(type('A', (), {}))\n"
        "A.options(name='left', lifetime='detached').remote()"
    ),
    "e_finds_none": (
        "import ray\ntry:\n    ray.get_actor('left')\nexcept ValueError:\n    print('none')"
    ),
    "f_own": '"""Own.\n\nSession: own\n"""\nimport ray\nprint(ray.is_initialized())',
    "g_threads": (
        "import threading\n"
        "thread = threading.Thread(target=print, args=('not shown',))\n"
        "thread.start()\nthread.join()\nprint('shown')"
    ),
}


@pytest.fixture
def scripts(tmp_path):
    for name, text in SCRIPTS.items():
        (tmp_path / f"{name}.py").write_text(text)
    return [Script(path=path, title="") for path in sorted(tmp_path.glob("*.py"))]


@pytest.mark.proc
def test_scripts_are_played_one_by_one_whatever_they_do(scripts) -> None:
    played = corpus.play(sys.executable, "alias", scripts, limit_s=60)
    assert {name: done.text for name, done in played.items()} == {
        "a_prints": "1\n",
        "b_raises": "before\nends with KeyError\n",
        "c_ends_all": "ends the process with 3\n",
        "d_leaves_an_actor": "",
        "e_finds_none": "none\n",
        "f_own": "False\n",
        "g_threads": "shown\n",
    }
    assert "KeyError: 'x'" in played["b_raises"].error
    assert played["a_prints"].error is None


def test_transcripts_are_read_as_they_were_written(tmp_path) -> None:
    path = tmp_path / "transcripts"
    transcripts = {"b_two": "1\n\n== 2\n", "a_one": "x\n", "c_none": ""}
    corpus.write_transcripts(path, transcripts)
    assert corpus.read_transcripts(path) == transcripts
    assert path.read_text().startswith("=== a_one\nx\n=== b_two\n")


def test_the_marks_of_a_script() -> None:
    by_name = {script.name: script for script in corpus.scripts()}
    assert by_name["compiled_timeout_again"].departs == ("X11",)
    assert by_name["compiled_timeout"].departs == ()
