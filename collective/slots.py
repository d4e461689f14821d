"""How much memory the ranks of a shared-memory group have. No torch: the driver asks."""

from __future__ import annotations

from typing import Final

PIECE_BYTES: Final = 1 << 20
"""Of one rank, between two meetings: it stays in the caches on the way from rank to rank."""


def memory_bytes(world_size: int) -> int:
    """Return how much memory the ranks share: two slots each. Only what is used is touched."""
    return 2 * world_size * PIECE_BYTES
