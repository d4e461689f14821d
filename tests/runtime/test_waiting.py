"""Waiting for many references: how it ends."""

import contextlib

import pytest

from compiled_dag.errors import GetTimeoutError
from runtime import waiting
from runtime.objects import ObjectRef
from runtime.parcel import Parcel


class Session:
    """A session in which each wait brings one more outcome, and a second passes."""

    def __init__(self, monkeypatch, num_refs):
        self.now = 0.0
        self.num_waits = 0
        monkeypatch.setattr(waiting.time, "monotonic", lambda: self.now)
        self.refs = [ObjectRef(f"number {number}", self) for number in range(num_refs)]
        self.where = "here"

    @property
    def session(self):
        return self

    def check_owner(self):
        pass

    def note_wait(self, ref):
        pass

    def attend(self):
        return None

    def expecting(self, refs):
        return contextlib.nullcontext()

    def wait_until(self, ready, deadline):
        assert not ready()
        self.now += 1.0
        self.refs[self.num_waits].complete(Parcel.of(self.num_waits))
        self.num_waits += 1
        return ready()

    def progress_of(self, ref):
        return ref.what


def test_a_get_of_many_waits_for_one_after_the_other(monkeypatch):
    session = Session(monkeypatch, 5)
    assert waiting.get_all(session, session.refs, None) == [0, 1, 2, 3, 4]
    assert session.num_waits == 5


def test_a_get_ends_at_its_deadline_although_outcomes_keep_coming(monkeypatch):
    session = Session(monkeypatch, 5)
    with pytest.raises(GetTimeoutError, match="number 3; number 4"):
        waiting.get_all(session, session.refs, 3.0)
    assert session.num_waits == 3
