"""The bank: skills by name and version, in a folder of skill files (see ``bank_folder``).

Writers hold the folder's lock (see ``bank_lock``); readers need none. torch is not imported before
a skill is loaded.
"""

import contextlib
import functools
import os
import re
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import platformdirs

from skillbank import bank_folder, durable, errors, storage
from skillbank.bank_folder import LABEL, NAME, NUMBER, Version
from skillbank.bank_index import Entry, Index
from skillbank.bank_lock import FolderLock
from skillbank.spec import SkillSpec, parameter_shapes
from skillbank.versions import warn_of_another_mujoco

if TYPE_CHECKING:
    from skillbank.skill import Skill

_REFERENCE = re.compile(rf"({NAME})(?:@(?:({NUMBER})|({LABEL})))?")
_CONTENT = re.compile(r"sha256:([0-9a-f]{8,64})")
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/+")  # Path collapses "s3://x" to "s3:/x"
_LATEST = "latest"
_RACES = 20  # attempts to read a skill that is removed between lookup and reading


class Listed(NamedTuple):
    """One version of a skill in a listing."""

    reference: str
    name: str
    number: int
    aliases: tuple[str, ...]
    shipped: bool
    entry: Entry | None  # None: the file cannot be used
    problem: str | None  # why the file cannot be used; None if it can


class Ancestor(NamedTuple):
    """A skill that another was made from."""

    depth: int  # 1 for a parent
    content_hash: str
    reference: str | None  # None: it is not in this bank


class Difference(NamedTuple):
    """The differences between two skills.

    ``metadata`` and ``parameters`` are empty for equivalent skills. Their content hashes can still
    differ, if one file omits a default value that the other stores.
    """

    metadata: dict[str, tuple[Any, Any]]  # by path, e.g. config.batch_size; None: absent
    parameters: dict[str, float | str]  # largest absolute difference, or why it is undefined
    content_hashes: tuple[str, str]  # equal for the same skill


class Bank:
    """A folder of versioned skills, optionally together with the skills shipped with skillbank.

    A reference is ``name`` (the newest version), ``name@2``, ``name@best`` (an alias), or
    ``sha256:`` and at least eight digits of the content hash. Methods that only read a skill also
    accept the ``Path`` of a skill file, which need not be in the bank.
    """

    def __init__(
        self, folder: str | os.PathLike[str] | None = None, *, shipped: bool | None = None
    ) -> None:
        """Open a bank; its folder is created by the first save.

        Args:
            folder: the bank's folder; by default ``SKILLBANK_HOME`` or the platform's data folder.
            shipped: whether to include the shipped skills; by default only if ``folder`` is None.

        Raises:
            StorageError: the folder is a URL.
        """
        home = os.environ.get("SKILLBANK_HOME") or platformdirs.user_data_dir("skillbank")
        where = home if folder is None else os.fspath(folder)
        if url := _URL.match(where):
            raise errors.StorageError(
                f"a bank is a local folder, not {url[1]}://{where[url.end() :]}: copy skills to a "
                "URL with 'skillbank push SKILL URL', and from it with 'skillbank pull SKILL URL'"
            )
        self.folder = durable.as_path(where).absolute()  # the present folder may change
        self._shipped: Path | None = None
        if (folder is None) if shipped is None else shipped:
            self._shipped = Path(str(resources.files("skillbank.pretrained")))
        other = "Set SKILLBANK_HOME to another one" if folder is None else "Name another one"
        self._locked = FolderLock(self.folder, other)
        self._index = Index(self.folder, self._locked)

    def __repr__(self) -> str:
        return f"<Bank {self.folder}{' and the shipped skills' if self._shipped else ''}>"

    def __contains__(self, reference: object) -> bool:
        """Whether a reference resolves to a skill."""
        try:
            return bool(isinstance(reference, str) and self.resolve(reference))
        except errors.SkillNotFound:
            return False

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __len__(self) -> int:
        return len(self.names())

    def __bool__(self) -> bool:
        return True  # also if empty, or `bank or Bank()` would be another bank

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle where it is, for other processes; not its lock."""
        return functools.partial(type(self), shipped=self._shipped is not None), (self.folder,)

    # Finding.

    def names(self) -> list[str]:
        """Names of all skills, sorted."""
        return sorted({version.name for version in self._versions()})

    def versions(self, name: str) -> list[int]:
        """Version numbers of a skill, oldest first.

        Raises:
            SkillNotFound: no skill has that name; the message lists the existing names.
        """
        numbers = [version.number for version in self._versions() if version.name == name]
        if not numbers:
            raise self._not_found(name)
        return numbers

    def aliases(self, name: str) -> dict[str, int]:
        """Aliases of a skill, with their version numbers; always includes ``latest``."""
        numbers = self.versions(name)
        stand_for = self._aliases().get(name, {})
        own = {label: number for label, number in stand_for.items() if number in numbers}
        return own | {_LATEST: numbers[-1]}

    def resolve(self, reference: str) -> Version:
        """Resolve a reference to a version.

        Raises:
            SkillNotFound: no skill matches, or several content hashes do; the message lists what
                exists.
        """
        if match := _CONTENT.fullmatch(reference):
            return self._by_content(reference, match[1])
        match = _REFERENCE.fullmatch(reference)
        if match is None:
            raise self._not_found(reference)
        name, number, label = match.groups()
        found = {version.number: version for version in self._versions() if version.name == name}
        if not found:
            raise self._not_found(name)
        if number:
            wanted = int(number)
        elif label and label != _LATEST:
            wanted = self._aliases().get(name, {}).get(label, 0)
        else:
            wanted = max(found)
        if wanted not in found:
            exist = [str(number) for number in found] + sorted(self.aliases(name))
            listed = ", ".join(f"{name}@{one}" for one in exist)
            raise errors.SkillNotFound(f"no skill {reference!r}. There is: {listed}")
        return found[wanted]

    def path(self, reference: str | Path) -> Path:
        """Path of a skill's file; raises SkillNotFound."""
        if isinstance(reference, Path):
            return durable.as_path(reference)
        return self.resolve(reference).path

    def spec(self, reference: str | Path) -> SkillSpec:
        """Metadata of a skill; raises SkillNotFound or SkillFileError."""
        return storage.read_spec(self.path(reference))

    # Keeping.

    def load(self, reference: str | Path) -> "Skill":
        """Load and verify a skill, and warn if it was made with another version of MuJoCo.

        Raises:
            SkillNotFound: no skill matches; the message lists what exists.
            SkillFileError: the file is invalid.
        """
        from skillbank.skill import Skill

        stored = self.read(reference)
        warn_of_another_mujoco(reference, stored.spec)
        return Skill.from_stored(stored)

    def read(self, reference: str | Path) -> storage.StoredSkill:
        """Read and verify a skill without building its networks; raises the errors of ``load``."""
        if isinstance(reference, Path):
            return storage.read(self.path(reference))
        if not isinstance(reference, str):
            raise errors.SkillbankError(
                f"a skill is asked for by its name or the Path of its file, not {reference!r}"
            )
        asked = _CONTENT.fullmatch(reference)
        for _ in range(_RACES):
            version = self.resolve(reference)
            try:
                stored = self._stored(version)
            except errors.SkillNotFound:
                continue  # removed since the lookup: resolve again
            if asked is None or stored.content_hash.startswith(asked[1]):
                return stored
            self._index.forget(version)  # the index was wrong: the file holds another skill
        raise self._not_found(reference)

    def save(self, skill: "Skill | storage.StoredSkill", name: str | None = None) -> str:
        """Save a skill as the next version of a name.

        Args:
            skill: the skill; its ``spec.name`` stays as it is.
            name: name in the bank; by default ``spec.name``.

        Returns:
            Its reference, such as ``run_anywhere@2``, once the file is safely on disk. If the
            newest version already is this skill, the reference of that version.

        Raises:
            InvalidName: the name is not valid for a skill.
            SkillbankError: it is not a skill, but for example a composition.
            StorageError: the folder cannot be written, or the disk is full.
        """
        content = storage.spec_and_parameters(skill)  # first, as it detects swapped arguments
        name = bank_folder.checked_name(content[0].name if name is None else name)
        image, stored = storage.prepare(*content)
        reference = self._keep(image, stored, name)
        if not isinstance(skill, storage.StoredSkill):
            skill.content_hash = stored.content_hash
        return reference

    def add(self, image: bytes, name: str) -> str:
        """Save the bytes of a possibly untrusted skill file, as ``save`` does with a skill.

        Raises:
            InvalidName: the name is not valid for a skill.
            SkillFileError: the bytes are not a valid skill file.
            StorageError: the folder cannot be written, or the disk is full.
        """
        bank_folder.checked_name(name)
        return self._keep(image, storage.decode(image), name)

    @contextlib.contextmanager
    def receiving(self, key: str) -> Iterator[Path]:
        """Lock a file in the bank's folder for a download; an interrupted download leaves it there.

        Args:
            key: hexadecimal identifier of the content, the same for the same bytes.

        Raises:
            StorageError: it cannot be created, or another process is receiving the same bytes.
        """
        with self._locked():  # creates the folder; gc cannot delete the file before it is locked
            partial = self.folder / f".{key}.part"
            descriptor = durable.open_locked(partial)
        try:
            yield partial
        finally:
            os.close(descriptor)

    def _keep(self, image: bytes, stored: storage.StoredSkill, name: str) -> str:
        with self._locked():
            existing = [version for version in self._versions() if version.name == name]
            if existing and self._holds(existing[-1], stored.content_hash, every_byte=True):
                return existing[-1].reference
            removed = [gone for gone in bank_folder.scan(self.folder).gone if gone.name == name]
            number = 1 + max((v.number for v in [*existing, *removed]), default=0)
            version = Version(name, bank_folder.checked_number(number), self.folder)
            if os.path.lexists(version.path):  # e.g. X on a file system that ignores case
                raise errors.StorageError(f"cannot write {version.path}: it exists already")
            durable.replace_file(version.path, image)
            self._index.remember(version, stored)
        return version.reference

    def remove(self, reference: str) -> list[str]:
        """Delete one version, or all versions if the reference is a bare name.

        Returns:
            References of everything deleted: the versions, then the aliases that pointed to them.

        Raises:
            SkillNotFound: no skill matches.
            StorageError: the skill is shipped with skillbank, or cannot be deleted.
            InvalidName: the reference is an alias.
        """
        self._removable(reference)  # may raise, before the folder is created
        with self._locked():
            own = self._removable(reference)
            gone = self._with_aliases(own)
            self._delete(own)
        return gone

    def removal(self, reference: str) -> list[str]:
        """List what ``remove`` would delete; raises the errors of ``remove``."""
        return self._with_aliases(self._removable(reference))

    def _removable(self, reference: str) -> list[Version]:
        match = _REFERENCE.fullmatch(reference)
        chosen = self.resolve(reference)
        if match and match[3]:
            also = "" if match[3] == "latest" else ", or delete it by unalias"
            raise errors.InvalidName(
                f"{reference!r} is an alias: remove {chosen.reference!r}{also}"
            )
        if match and match[2] is None:
            doomed = [version for version in self._versions() if version.name == chosen.name]
        else:
            doomed = [chosen]
        own = [version for version in doomed if version.folder == self.folder]
        if not own:
            raise errors.StorageError(
                f"{reference!r} is shipped with skillbank and cannot be removed"
            )
        return own

    def _with_aliases(self, versions: list[Version]) -> list[str]:
        meant = {(version.name, version.number) for version in versions}
        aliases = [
            f"{name}@{label}"
            for name, labels in self._aliases().items()
            for label, number in labels.items()
            if (name, number) in meant
        ]
        return [version.reference for version in versions] + sorted(aliases)

    def alias(self, reference: str, label: str) -> str:
        """Make ``name@label`` an alias of the version that a reference currently resolves to.

        Returns:
            That version's reference, such as ``run_anywhere@2``.

        Raises:
            SkillNotFound: no skill matches the reference.
            InvalidName: the label is not valid for an alias.
            StorageError: the folder cannot be written.
        """
        if not re.fullmatch(LABEL, label) or label == _LATEST:
            raise errors.InvalidName(
                f"{label!r} cannot be an alias: it must have at most 64 letters, digits, '_' and "
                f"'-', begin with a letter, and not be {_LATEST!r}, which is always the newest "
                "version"
            )
        self.resolve(reference)  # may raise, before the folder is created
        with self._locked():
            version = self.resolve(reference)
            path = bank_folder.alias_path(self.folder, version.name, label)
            durable.replace_file(path, f"{version.number}\n".encode())
        return version.reference

    def unalias(self, reference: str) -> None:
        """Delete an alias, ``name@label``, but not the version it points to.

        Raises:
            SkillNotFound: there is no such alias.
            StorageError: the folder cannot be written.
        """
        name, _, label = reference.partition("@")
        own = self._aliases().get(name, {})
        if label not in own:
            listed = ", ".join(f"{name}@{one}" for one in sorted(own)) or "none"
            raise errors.SkillNotFound(f"no alias {reference!r}. There is: {listed}")
        with self._locked(), self._deleting(reference):
            bank_folder.alias_path(self.folder, name, label).unlink(missing_ok=True)
            durable.sync_folder(self.folder)

    def gc(self, keep: int | None = None) -> list[str]:
        """Delete what crashes left behind: temporary files, dangling aliases, stale index entries.

        Args:
            keep: also delete all but this many newest versions of each skill, except versions with
                an alias and parents of another skill in the bank.

        Returns:
            Names of the deleted files, and references of the deleted versions.

        Raises:
            InvalidArgument: fewer than one version would be kept.
        """
        _check_keep(keep)
        if not self.folder.exists():
            return []
        with self._locked(), self._deleting("stale files"):
            swept = [path.name for path in durable.sweep(self.folder, partial=True)]
            if keep is not None:
                doomed = self._superfluous(keep)
                self._delete(doomed)
                swept += [version.reference for version in doomed]
            versions = self._versions()
            left = {(version.name, version.number) for version in versions}
            # Without the shipped skills, an alias of one of them only seems to dangle.
            gone = {(one.name, one.number) for one in bank_folder.scan(self.folder).gone}
            for name, labels in self._aliases().items():
                for label, number in labels.items():
                    stale = self._shipped or (name, number) in gone or number == 0
                    if (name, number) not in left and stale:
                        path = bank_folder.alias_path(self.folder, name, label)
                        path.unlink()
                        swept.append(path.name)
            self._index.prune(versions)
        return swept

    def superfluous(self, keep: int) -> list[str]:
        """References of the versions that ``gc(keep)`` would delete.

        Raises:
            InvalidArgument: fewer than one version would be kept.
            StorageError: a file of the bank cannot be read.
        """
        _check_keep(keep)
        return [version.reference for version in self._superfluous(keep)]

    # Looking.

    def listing(self) -> list[Listed]:
        """List every version of every skill; a file that cannot be used has its problem listed."""
        versions, aliases = self._versions(), self._aliases()
        newest = {version.name: version.number for version in versions}  # sorted: the last one wins
        lines = []
        for version, known in self._index.entries(versions).items():
            stand_for = aliases.get(version.name, {}) | {_LATEST: newest[version.name]}
            good = isinstance(known, Entry)
            lines.append(
                Listed(
                    reference=version.reference,
                    name=version.name,
                    number=version.number,
                    aliases=tuple(k for k, n in stand_for.items() if n == version.number),
                    shipped=version.folder == self._shipped,
                    entry=known if isinstance(known, Entry) else None,
                    problem=None if good else str(known),
                )
            )
        return lines

    def show(self, reference: str | Path) -> dict[str, Any]:
        """Describe a skill as a JSON-compatible dictionary; a file has no versions or aliases.

        Raises:
            SkillNotFound: no skill matches.
            SkillFileError: the file is invalid.
        """
        versions: list[int] = []
        aliases: dict[str, int] = {}
        if isinstance(reference, str):
            version = self.resolve(reference)
            versions, aliases = self.versions(version.name), self.aliases(version.name)
            reference = version.reference
        stored = self.read(reference)
        return {
            "reference": str(reference),
            "content_hash": stored.content_hash,
            "path": str(self.path(reference)),
            "versions": versions,
            "aliases": aliases,
            "lineage": [ancestor._asdict() for ancestor in self.lineage(reference)],
            "parameters": {k: list(shape) for k, shape in parameter_shapes(stored.spec).items()},
            "spec": stored.spec.model_dump(mode="json"),
        }

    def lineage(self, reference: str | Path) -> list[Ancestor]:
        """Skills that a skill was fine-tuned or composed from: each parent, then its own ancestors.

        For an ancestor that occurs twice, its ancestors are listed only the first time.
        """
        at: dict[str, list[tuple[Version, Entry]]] = {}
        for version, entry in self._index.entries(self._versions()).items():
            if isinstance(entry, Entry):
                at.setdefault(entry.content_hash, []).append((version, entry))
        found: list[Ancestor] = []
        followed: set[str] = set()
        waiting = _backwards(1, self.spec(reference).parents)
        while waiting:  # a stack: the next one is the last
            depth, parent = waiting.pop()
            held = (one for one in at.get(parent, ()) if self._holds(one[0], parent))
            here = next(held, None)
            found.append(Ancestor(depth, parent, here[0].reference if here else None))
            if here and parent not in followed:
                followed.add(parent)
                waiting += _backwards(depth + 1, here[1].parents)
        return found

    def diff(self, first: str | Path, second: str | Path) -> Difference:
        """Compare the metadata and parameters of two skills."""
        one, two = self.read(first), self.read(second)
        left, right = (stored.spec.flat() for stored in (one, two))
        keys = sorted(left.keys() | right.keys())
        arrays: dict[str, float | str] = {}
        for name in sorted(one.parameters.keys() | two.parameters.keys()):
            a, b = one.parameters.get(name), two.parameters.get(name)
            if a is None or b is None:
                arrays[name] = f"only in {first if b is None else second}"
            elif a.shape != b.shape:
                arrays[name] = f"shapes {[*a.shape]} and {[*b.shape]}"
            elif a.tobytes() != b.tobytes():
                arrays[name] = float(np.abs(a.astype(np.float64) - b).max())
        return Difference(
            {k: (left.get(k), right.get(k)) for k in keys if left.get(k) != right.get(k)},
            arrays,
            (one.content_hash, two.content_hash),
        )

    def verify(self) -> dict[str, errors.SkillbankError]:
        """Read and verify every file again; return the problems found, by reference."""
        problems: dict[str, errors.SkillbankError] = {}
        for version in self._versions():
            try:
                stored = storage.read(version.path)
            except errors.SkillbankError as error:
                if os.path.lexists(version.path):  # else it was removed meanwhile
                    problems[version.reference] = error
            else:
                self._index.remember(version, stored)
        return problems

    # The folder.

    def _versions(self) -> list[Version]:
        """All versions, sorted; a user's version hides a shipped one of the same reference."""
        found: dict[tuple[str, int], Version] = {}
        for folder in (self._shipped, self.folder):
            for version in bank_folder.scan(folder).versions if folder else ():
                found[version.name, version.number] = version
        return [found[key] for key in sorted(found)]

    def _aliases(self) -> dict[str, dict[str, int]]:
        return bank_folder.read_aliases(self.folder, bank_folder.scan(self.folder).labels)

    def _by_content(self, reference: str, prefix: str) -> Version:
        found: dict[str, Version] = {}
        for version, entry in self._index.entries(self._versions()).items():
            if not isinstance(entry, Entry) or entry.content_hash in found:
                continue
            meant = entry.content_hash.startswith(prefix)
            if meant and self._holds(version, entry.content_hash):  # verified, not just claimed
                found[entry.content_hash] = version
        if not found:
            raise self._not_found(reference)
        if len(found) > 1:
            listed = ", ".join(version.reference for version in found.values())
            raise errors.SkillNotFound(f"{reference!r} matches more than one skill: {listed}")
        return next(iter(found.values()))

    def _stored(self, version: Version) -> storage.StoredSkill:
        """Read and verify a file, by its placement in the index if known; else add it there."""
        entry = self._index.known(version)
        stored = storage.read(version.path, entry.placement if entry else None)
        if entry is None or entry.placement != stored.placement:
            self._index.remember(version, stored)
        return stored

    def _holds(self, version: Version, content_hash: str, *, every_byte: bool = False) -> bool:
        """Whether a file holds the skill with this content hash, intact.

        Bytes that the skill does not need are verified only on request, or if the file is unknown.
        """
        try:
            same = self._stored(version).content_hash == content_hash
            if same and every_byte:
                storage.read(version.path)
        except errors.SkillbankError:
            return False
        return same

    def _superfluous(self, keep: int) -> list[Version]:
        contents: dict[Version, str] = {}
        parents: set[str] = set()
        for version in self._versions():
            try:  # every byte of every file is verified before any is deleted
                stored = storage.read(version.path)
            except errors.SkillbankError as error:
                raise errors.StorageError(
                    f"nothing was removed: {version.reference} cannot be read, so its parents are "
                    f"unknown; remove it first, or leave out --keep ({error})"
                ) from error
            contents[version] = stored.content_hash
            parents.update(stored.spec.parents)
        aliases = self._aliases()
        return [
            version
            for version, content_hash in contents.items()
            if version.folder == self.folder
            and version.number not in self.versions(version.name)[-keep:]
            and version.number not in aliases.get(version.name, {}).values()
            and content_hash not in parents
        ]

    def _delete(self, versions: list[Version]) -> None:
        """Delete versions and their aliases; ``.gone`` files keep their numbers from being reused.

        The versions must be in the user's own folder.
        """
        aliases, removed = self._aliases(), bank_folder.scan(self.folder).gone
        with self._deleting(", ".join(version.reference for version in versions)):
            for version in versions:
                durable.replace_file(version.gone_path, b"")
                version.path.unlink()
                for label, number in aliases.get(version.name, {}).items():
                    if number == version.number:
                        bank_folder.alias_path(self.folder, version.name, label).unlink()
                for gone in removed:  # the mark of the highest number is enough
                    if gone.name == version.name and gone.number < version.number:
                        gone.gone_path.unlink(missing_ok=True)
            durable.sync_folder(self.folder)
        self._index.prune(self._versions())

    @contextlib.contextmanager
    def _deleting(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise errors.StorageError(
                f"cannot remove {what} from {self.folder}: {error.strerror}"
            ) from error

    def _not_found(self, reference: str) -> errors.SkillNotFound:
        names = self.names()
        hint = errors.did_you_mean(reference, names)
        if reference.startswith("sha256:"):
            hint = " A content hash is written with its first 8 to 64 hexadecimal digits."
        if bank_folder.means_file(reference):
            hint += (
                f" A file is given as Path({reference!r}), read by skillbank.Skill.load, or saved "
                "in the bank by 'skillbank import'."
            )
        return errors.SkillNotFound(
            f"no skill {reference!r}.{hint} In the bank: {', '.join(names) or 'nothing yet'}"
        )


def _check_keep(keep: int | None) -> None:
    if keep is not None and keep < 1:
        raise errors.InvalidArgument(f"keep must be at least 1, got {keep}; see remove()")


def _backwards(depth: int, parents: tuple[str, ...]) -> list[tuple[int, str]]:
    """Different parents with their depth, the last one first."""
    return [(depth, parent) for parent in reversed(dict.fromkeys(parents))]
