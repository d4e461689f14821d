"""Compare with the real Ray, and record what it does.

    python -m tests.differential compare --ray .peer-venv/bin/python [script ...]
    python -m tests.differential record --ray .peer-venv/bin/python [script ...]
    python -m tests.differential departures [script ...]

compare: play the scripts under both, print where they differ and where Ray does not do what was
recorded of it; exit code 1 if so. record: write Ray's transcripts and its public names. departures:
write what the scripts marked ``Departs`` print here.
"""

from __future__ import annotations

import argparse
import difflib
import json
import subprocess
import sys
import tempfile

from runtime.alias.table import MODULES
from tests.differential import corpus

LIMIT_S = 1800


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.differential")
    parser.add_argument("command", choices=["compare", "record", "departures"])
    parser.add_argument("--ray", default=sys.executable, help="the Python that has the real Ray")
    parser.add_argument("scripts", nargs="*", help="names; all by default")
    given = parser.parse_intermixed_args()
    chosen = [s for s in corpus.scripts() if not given.scripts or s.name in given.scripts]
    if given.command == "record":
        record(given.ray, chosen)
    elif given.command == "departures":
        record_departures(chosen)
    else:
        return compare(given.ray, chosen)
    return 0


def record(python, chosen):
    played = play(python, "ray", chosen)
    known = {script.name for script in corpus.scripts()}
    before = corpus.read_transcripts(corpus.RAY) if corpus.RAY.exists() else {}
    now = {**before, **{name: done.text for name, done in played.items()}}
    corpus.write_transcripts(corpus.RAY, {n: text for n, text in now.items() if n in known})
    corpus.RECORDED_NAMES.write_text(names(python) + "\n")
    print(f"recorded {len(played)} scripts and the names of {len(MODULES)} modules")


def names(python):
    """Return the public names of the real Ray, as JSON."""
    command = [python, str(corpus.NAMES), *sorted(MODULES)]
    # From a folder in which there is nothing to import: ours must not be found there.
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


def record_departures(chosen):
    marked = [script for script in chosen if script.departs and not script.waits_for]
    played = play(sys.executable, "alias", marked)
    known = {script.name for script in corpus.scripts() if script.departs}
    before = corpus.read_transcripts(corpus.HERE_INSTEAD) if corpus.HERE_INSTEAD.exists() else {}
    now = {**before, **{name: done.text for name, done in played.items()}}
    corpus.write_transcripts(
        corpus.HERE_INSTEAD, {n: text for n, text in now.items() if n in known}
    )
    print(f"recorded {len(played)} departures: read them before you commit them")


def compare(python, chosen):
    recorded = corpus.read_transcripts(corpus.RAY)
    ours, ray = play(sys.executable, "alias", chosen), play(python, "ray", chosen)
    # Ray's own time-outs (10 s for a result) strike on a busy machine: another go for what differs.
    again = [script for script in chosen if recorded.get(script.name) != ray[script.name].text]
    ray |= play(python, "ray", again)
    wrong = 0
    for script in chosen:
        verdict = judge(script, ray[script.name], ours[script.name])
        if verdict not in ("agrees", "departs"):
            wrong += not script.waits_for
        took = (f"{done[script.name].took_s:7} s" for done in (ray, ours))
        print(f"{script.name:34} {verdict:8}", *took)
        if verdict != "agrees":
            print(difference("ray", "here", ray[script.name].text, ours[script.name].text), end="")
        if recorded.get(script.name) != ray[script.name].text:
            wrong += 1
            print("  Ray does not do what was recorded of it:")
            text = recorded.get(script.name, "")
            print(difference("recorded", "ray", text, ray[script.name].text), end="")
    if json.loads(names(python)) != json.loads(corpus.RECORDED_NAMES.read_text()):
        wrong += 1
        print("Ray's public names are not those recorded")
    print(f"{len(chosen)} scripts, {wrong} unexplained")
    return 1 if wrong else 0


def judge(script, ray, ours):
    """Return one word for how the two transcripts of a script compare."""
    if ray.text == ours.text:
        return "STALE" if script.departs and not script.waits_for else "agrees"
    if script.waits_for:
        return "waits"
    return "departs" if script.departs else "DIFFERS"


def difference(left, right, before, after):
    both = before.splitlines(), after.splitlines()
    lines = difflib.unified_diff(*both, left, right, n=1, lineterm="")
    return "".join(f"    {line}\n" for line in lines)


def play(python, mode, chosen):
    played = corpus.play(python, mode, chosen, LIMIT_S)
    for name, done in played.items():
        if done.error:
            print(f"{mode}: {name} ended with:\n{done.error}", file=sys.stderr)
    return played


if __name__ == "__main__":
    sys.exit(main())
