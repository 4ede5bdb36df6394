"""The index of a bank: a cache of the contents of its skill files.

The files are authoritative: an entry is valid only while its file has the recorded size and
modification time, and a missing or damaged index is rebuilt. Safety never depends on the index:
loading a skill always verifies its content hash.
"""

import contextlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter

from skillbank import durable, errors, storage
from skillbank.bank_folder import Version
from skillbank.bank_lock import FolderLock
from skillbank.config import Strict
from skillbank.spec import EvaluationRecord, Line, Parents, Sha256, SkillSpec

MAX_BYTES = 8 << 20  # of the index: about 10,000 skills; the files of any others are read each time
_FILE_NAME = "index.json"
_Natural = Annotated[int, Field(ge=0)]
_Offsets = Annotated[tuple[_Natural, ...], Field(max_length=512, fail_fast=True)]


class Entry(Strict):
    """Cached content of one skill file."""

    size: _Natural  # bytes
    mtime_ns: int  # negative before 1970
    content_hash: Sha256
    body_hash: Sha256
    offsets: _Offsets | None = None  # of the parameters; None: body not checked yet
    env_id: Line
    temperature: float
    steps: _Natural
    parents: Parents
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


# File names and entries, validated up to the first invalid one: pydantic would report each.
_ENTRIES: TypeAdapter[list[tuple[str, Entry]]] = TypeAdapter(
    Annotated[list[tuple[str, Entry]], Field(fail_fast=True)]
)


class Index:
    """The entries of one bank. Writing them needs the bank's lock, but never waits for it.

    An index that cannot be written is left as it is.
    """

    def __init__(self, folder: Path, lock: FolderLock) -> None:
        self._path, self._locked = folder / _FILE_NAME, lock
        self._parsed: tuple[object, dict[str, Entry]] = (None, {})  # of which file, and its entries

    def known(self, version: Version) -> Entry | None:
        """The entry of a file; None if there is none or the file has changed."""
        return self._valid(version, self._read())

    def entries(self, versions: Iterable[Version]) -> dict[Version, Entry | errors.SkillbankError]:
        """The entry of each file, or its problem; files without a valid entry are read."""
        found: dict[Version, Entry | errors.SkillbankError] = {}
        fresh: dict[str, Entry] = {}
        index = self._read()
        for version in versions:
            known = self._valid(version, index)
            if known is not None:
                found[version] = known
                continue
            try:
                header, spec = storage.read_metadata(version.path)
                placement = storage.Placement(header.body_hash, ())
                read = _entry(version.path, spec, header.content_hash, placement)
                found[version] = fresh[self._key(version)] = read
            except FileNotFoundError:
                continue  # removed meanwhile
            except errors.SkillbankError as error:
                if os.path.lexists(version.path):  # else it was removed meanwhile
                    found[version] = error
        if fresh:
            self._change(fresh)
        return found

    def remember(self, version: Version, stored: storage.StoredSkill) -> None:
        """Add a file that was just written or read and verified."""
        with contextlib.suppress(OSError):
            entry = _entry(version.path, stored.spec, stored.content_hash, stored.placement)
            self._change({self._key(version): entry})

    def forget(self, version: Version) -> None:
        """Drop the entry of a file."""
        self._change({self._key(version): None})

    def prune(self, versions: Iterable[Version]) -> None:
        """Drop the entries of all files but these."""
        kept = {self._key(version) for version in versions}
        self._change({key: None for key in self._read() if key not in kept})

    def _key(self, version: Version) -> str:
        own = version.folder == self._path.parent
        return version.path.name if own else f"shipped/{version.path.name}"

    def _valid(self, version: Version, index: dict[str, Entry]) -> Entry | None:
        entry = index.get(self._key(version))
        try:
            return entry if entry and entry.describes(version.path) else None
        except OSError:
            return None

    def _read(self) -> dict[str, Entry]:
        """All entries, parsed again only if the file was replaced; none if it is invalid."""
        try:
            status = os.stat(self._path)
        except OSError:
            return {}
        stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
        if self._parsed[0] != stamp:
            try:
                document = storage.parse_json(storage.read_bytes(self._path, MAX_BYTES))
                entries = dict(_ENTRIES.validate_python(document, strict=False))  # lists as tuples
            except (errors.SkillbankError, ValueError, RecursionError):
                entries = {}
            self._parsed = (stamp, entries)
        return self._parsed[1]

    def _change(self, changes: Mapping[str, Entry | None]) -> None:
        """Replace or drop (None) entries, if the lock is free and the index can be written."""
        if not self._path.parent.is_dir():  # reading must not create the folder
            return
        with contextlib.suppress(errors.StorageError), self._locked(wait=False):
            before = self._read()
            after = {k: e for k, e in {**before, **changes}.items() if e is not None}
            if after == before:
                return
            text = _ENTRIES.dump_json(sorted(after.items()))
            if len(text) <= MAX_BYTES:  # a larger one would not be read
                durable.replace_file(self._path, text, durable=False)


def _entry(path: Path, spec: SkillSpec, content_hash: str, placement: storage.Placement) -> Entry:
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
