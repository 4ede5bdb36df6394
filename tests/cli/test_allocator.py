"""The allocator's advice: given on Linux, and never in the way."""

import ctypes
from typing import Any

import pytest

from skillbank.allocator import keep_freed_blocks

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


@pytest.mark.parametrize("accepts", [1, 0])
def test_both_thresholds_are_raised_or_none(accepts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[int, int] = {}

    class Library:
        def __init__(self, _name: Any) -> None:
            pass

        def mallopt(self, parameter: int, size: int) -> int:
            given[parameter] = size
            return accepts

    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", Library)
    keep_freed_blocks()
    both = {M_MMAP_THRESHOLD: 32 << 20, M_TRIM_THRESHOLD: 1 << 30}
    assert given == (both if accepts else {M_MMAP_THRESHOLD: 32 << 20})


def test_elsewhere_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _name: pytest.fail("asked"))
    monkeypatch.setattr("sys.platform", "darwin")
    keep_freed_blocks()


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda _name: object())
    keep_freed_blocks()
