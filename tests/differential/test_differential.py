"""The corpus under the alias prints what was recorded of the real Ray, or departs for a reason."""

from __future__ import annotations

import importlib.util
import sys

import pytest

from tests.differential import corpus

SCRIPTS = corpus.scripts()
HAS_TORCH = importlib.util.find_spec("torch") is not None
PLAYABLE = [script for script in SCRIPTS if HAS_TORCH or not script.needs_torch]
LIMIT_S = 500
"""It takes 20 s on an idle machine with two cores."""


@pytest.fixture(scope="module")
def played():
    """Return what every script did, all of them played in two processes."""
    return corpus.play_in_turns(sys.executable, "alias", PLAYABLE, LIMIT_S)


@pytest.mark.proc
@pytest.mark.timeout(LIMIT_S + 60)  # the first one waits until all have been played
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_it_does_what_was_recorded(script, played, request) -> None:
    if script not in PLAYABLE:
        pytest.skip("torch is not installed")
    if script.waits_for:
        request.applymarker(pytest.mark.xfail(reason=f"waits for {script.waits_for}", strict=True))
    expected = corpus.read_transcripts(corpus.HERE_INSTEAD if script.departs else corpus.RAY)
    done = played[script.name]
    assert done.text == expected[script.name], done.error


def test_there_are_many() -> None:
    assert len(SCRIPTS) >= 100


def test_every_script_was_recorded() -> None:
    names = {script.name for script in SCRIPTS}
    assert corpus.read_transcripts(corpus.RAY).keys() == names
    departing = {script.name for script in SCRIPTS if script.departs and not script.waits_for}
    assert corpus.read_transcripts(corpus.HERE_INSTEAD).keys() == departing


def test_a_script_departs_only_for_reasons_that_the_guide_gives() -> None:
    reasons = corpus.departures()
    assert {"X11", "C13"} <= reasons
    for script in SCRIPTS:
        assert set(script.departs) <= reasons, script.name


def test_departures_are_departures() -> None:
    ray = corpus.read_transcripts(corpus.RAY)
    for name, text in corpus.read_transcripts(corpus.HERE_INSTEAD).items():
        assert ray[name] != text, f"{name}: the mark Departs is not needed any more"


def test_every_script_says_what_it_shows() -> None:
    assert [script.name for script in SCRIPTS if not script.title.endswith(".")] == []


def test_no_transcript_was_recorded_of_a_script_that_broke_off() -> None:
    for path in (corpus.RAY, corpus.HERE_INSTEAD):
        for name, text in corpus.read_transcripts(path).items():
            assert "ends with " not in text, (path, name)
            assert "ends the process" not in text, (path, name)
