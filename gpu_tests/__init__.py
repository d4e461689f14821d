"""Tests that need a GPU; each skips itself, with the reason, where there is none."""
