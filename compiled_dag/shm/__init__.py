"""Shared memory and waiting: segments, futexes, the session's board, the waiting policy."""
