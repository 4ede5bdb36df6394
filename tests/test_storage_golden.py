"""Files of every format version that was ever released are read for ever."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from skillbank import storage

GOLDEN = Path(__file__).parent / "golden"
FILES = sorted(GOLDEN.glob("format-*.h5"))


def test_the_current_format_has_a_golden_file() -> None:
    assert GOLDEN / f"format-{storage.FORMAT_VERSION}.h5" in FILES


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_golden_file_reads_as_it_was_written(path: Path) -> None:
    known = json.loads(path.with_suffix(".json").read_text())
    stored = storage.read(path)
    assert stored.content_hash == known["content_hash"]
    # A field that a release adds must be marked LATER, or every older skill would become another.
    assert storage.content_hash(stored.spec, stored.parameters) == known["content_hash"]
    assert_contains(stored.spec.model_dump(mode="json"), known["metadata"])
    count = 0
    for name in sorted(stored.parameters):
        values = stored.parameters[name].ravel()
        expected = (np.arange(count, count + values.size) % 257 - 128) / 8
        assert (values == expected).all(), name
        count += values.size
    assert count > 100


def assert_contains(found: Any, known: Any) -> None:
    """Newer releases may add fields with defaults; what the file says must be there unchanged."""
    if isinstance(known, dict):
        for key, value in known.items():
            assert_contains(found[key], value)
    elif isinstance(known, list):
        assert len(found) == len(known)
        for one, other in zip(found, known, strict=True):
            assert_contains(one, other)
    else:
        assert found == known
        assert type(found) is type(known)
