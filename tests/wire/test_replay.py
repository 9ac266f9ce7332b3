"""The replay set forgets nothing while its key lives."""

from __future__ import annotations

import pytest

from wire.errors import BusyError, ReplayError
from wire.replay import ReplaySet


def test_a_request_enters_once():
    seen = ReplaySet()
    seen.enter(b"a" * 32)
    seen.enter(b"b" * 32)
    with pytest.raises(ReplayError):
        seen.enter(b"a" * 32)
    assert len(seen) == 2


def test_a_full_set_refuses_rather_than_forgets():
    seen = ReplaySet(limit=2)
    seen.enter(b"a")
    assert not seen.full
    seen.enter(b"b")
    assert seen.full
    with pytest.raises(BusyError, match="rotated"):
        seen.enter(b"c")
    with pytest.raises(ReplayError):
        seen.enter(b"a")
