"""The allocator's advice: given on Linux, and never in the way."""

import ctypes
from typing import Any

import pytest

from skillbank.allocator import keep_freed_blocks


def test_both_thresholds_are_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[int, int] = {}

    class Library:
        def __init__(self, _name: Any) -> None:
            self.mallopt = given.__setitem__

    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", Library)
    keep_freed_blocks()
    assert given == {-1: 1 << 30, -3: 1 << 30}  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD


def test_elsewhere_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _name: pytest.fail("asked"))
    monkeypatch.setattr("sys.platform", "darwin")
    keep_freed_blocks()


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda _name: object())
    keep_freed_blocks()
