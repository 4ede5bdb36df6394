"""Files of every format version that was ever released are read for ever."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from skill_files import small_spec

from skillbank import export, storage
from skillbank.bank import Bank
from skillbank.config import Architecture, PretrainConfig
from skillbank.skill import Skill
from skillbank.spec import SkillSpec

GOLDEN = Path(__file__).parent / "golden"
FILES = sorted(GOLDEN.glob("format-*.h5"))
SHIPPED = sorted(Path(storage.__file__).parents[1].glob("pretrained/*.h5"))


def test_the_current_format_has_a_golden_file() -> None:
    assert GOLDEN / f"format-{storage.FORMAT_VERSION}.h5" in FILES


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_golden_file_reads_as_it_was_written(path: Path) -> None:
    known = json.loads(path.with_suffix(".json").read_text())
    stored = storage.read(path)
    assert stored.content_hash == known["content_hash"]
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


@pytest.mark.parametrize("path", [*FILES, *SHIPPED], ids=lambda path: path.stem)
def test_a_file_of_an_earlier_release_stays_the_same_skill(path: Path, tmp_path: Path) -> None:
    """Whatever fields were added to the model since: it is saved, sent and fetched unchanged."""
    skill = Skill.load(path)
    original = skill.content_hash
    skill.save(tmp_path / "again.h5")
    assert storage.read(tmp_path / "again.h5").content_hash == original
    assert (tmp_path / "again.h5").read_bytes() == path.read_bytes()

    export.to_safetensors(storage.read(path), tmp_path / "sent.safetensors")
    assert export.from_safetensors(tmp_path / "sent.safetensors").content_hash == original

    bank = Bank(tmp_path / "bank")
    assert bank.add(path.read_bytes(), "x") == "x@1"
    assert bank.save(bank.load("x"), "x") == "x@1"
    assert bank.load("x").with_spec().content_hash == original


def test_a_changed_skill_of_an_earlier_release_gains_only_what_was_changed() -> None:
    skill = Skill.load(GOLDEN / "format-1.h5")
    before = json.loads(storage.metadata_document(skill.spec))
    assert not {"reward", "precision"} & (before.keys() | before["config"].keys())
    config = skill.spec.config.model_copy(update={"precision": "mixed"})
    spec = skill.with_spec(name="another", config=config).spec
    assert json.loads(storage.metadata_document(spec)) == before | {
        "name": "another",
        "config": before["config"] | {"precision": "mixed"},
    }


def test_a_new_skill_writes_every_field() -> None:
    """A default that it leaves out would have to stay what it is for ever."""
    document = json.loads(storage.metadata_document(small_spec()))
    assert document.keys() == SkillSpec.model_fields.keys()
    assert document["config"].keys() == PretrainConfig.model_fields.keys()
    assert document["architecture"].keys() == Architecture.model_fields.keys()
