"""The index of a bank: a cache of the contents of its skill files.

The files are authoritative: an entry is valid only while its file has the recorded size and
modification time, and a missing or damaged index is rebuilt. Safety never depends on the index:
loading a skill always verifies its content hash.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from skillbank import durable, errors, storage
from skillbank.config import Strict
from skillbank.spec import EvaluationRecord, Sha256, SkillSpec

FILE_NAME = "index.json"
_Natural = Annotated[int, Field(ge=0)]


class Entry(Strict):
    """Cached content of one skill file."""

    size: _Natural  # bytes
    mtime_ns: _Natural
    content_hash: Sha256
    body_hash: Sha256
    offsets: tuple[_Natural, ...] | None = None  # of the parameters; None: body not checked yet
    env_id: str
    temperature: float
    steps: int
    parents: tuple[Sha256, ...]
    evaluation: EvaluationRecord | None = None  # the latest

    @property
    def placement(self) -> storage.Placement | None:
        """Offsets of the parameters; None if the body was not checked yet."""
        if self.offsets is None:
            return None
        return storage.Placement(self.body_hash, self.offsets)

    def describes(self, path: Path) -> bool:
        """Whether a file still has the size and modification time of this entry.

        Raises:
            OSError: there is no such file.
        """
        status = path.stat()
        return (status.st_size, status.st_mtime_ns) == (self.size, self.mtime_ns)


Index = dict[str, Entry]  # by file name
_INDEX: TypeAdapter[Index] = TypeAdapter(Index)


def entry(path: Path, spec: SkillSpec, content_hash: str, placement: storage.Placement) -> Entry:
    """Describe a file that has just been written or read."""
    status = path.stat()
    return Entry(
        size=status.st_size,
        mtime_ns=status.st_mtime_ns,
        content_hash=content_hash,
        body_hash=placement.body_hash,
        offsets=placement.offsets or None,
        env_id=spec.env_id,
        temperature=spec.temperature,
        steps=spec.steps,
        parents=spec.parents,
        evaluation=spec.evaluations[-1] if spec.evaluations else None,
    )


def load(folder: Path) -> Index:
    """Read the index of a folder; empty if it is missing or invalid."""
    try:
        return _INDEX.validate_json(storage.read_bytes(folder / FILE_NAME))
    except (errors.SkillbankError, ValidationError):
        return {}


def save(folder: Path, index: Mapping[str, Entry]) -> None:
    """Replace the index of a folder. The caller holds the bank's lock.

    Raises:
        StorageError: it cannot be written.
    """
    text = _INDEX.dump_json(dict(sorted(index.items())))
    durable.replace_file(folder / FILE_NAME, text, durable=False)
