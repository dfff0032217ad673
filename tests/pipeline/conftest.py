"""Runs here heal beside scoring in a worker that is forked from here."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _forked(forked_worker: None) -> None:
    """How a worker starts is tested in tests/heal/test_engine.py."""
