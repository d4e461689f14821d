from __future__ import annotations

import socket

import pytest


@pytest.fixture
def pair():
    """Return the two ends of a connection."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs
