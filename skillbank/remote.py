"""Remote banks: the same files at any fsspec URL (``s3://``, ``hf://``, ``memory://``, a path).

A remote bank has the layout of a local one without its index and lock: ``x.h5`` is version 1 of
skill x, ``x@2.h5`` version 2, ``x@best.alias`` an alias. A version appears atomically, and is not
overwritten (see ``RemoteBank._rename``); a downloaded file is verified locally before anything in
it is used.
"""

import contextlib
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from skillbank import bank_folder, errors, storage
from skillbank.bank import Bank
from skillbank.bank_folder import Version

_HERE = Path()  # placeholder: the folder of a remote bank is not a local path
# Bytes per request, except over HTTP; an interrupted pull resumes after the last complete chunk.
CHUNK = 1 << 20
MAX_PAGE_BYTES = 4 << 20  # of a web server's listing of a folder
_LINK = re.compile(r"""href=["']([^"']+)""", re.IGNORECASE)
# File systems with atomic uploads; on others a temporary file is renamed into place.
_ALL_AT_ONCE = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "hf", "memory"}


class RemoteBank:
    """A bank at a URL."""

    def __init__(self, url: str, **options: Any) -> None:
        """Connect to a bank; its folder is created by the first push.

        Args:
            url: such as ``s3://bucket/skills``, ``hf://datasets/name/skills`` or a path.
            options: keyword arguments of the fsspec file system, such as ``endpoint_url`` or
                ``token``.

        Raises:
            StorageError: the URL's file system is unknown or not installed, or cannot be opened.
        """
        self.url = url
        if slip := re.match(r"([A-Za-z][A-Za-z0-9+]+):/(?!/)", url):
            raise errors.StorageError(
                f"'{url}' is neither a URL nor a plain path; did you mean "
                f"'{slip[1]}://{url[slip.end() :]}'?"
            )
        with _installed():
            import fsspec
        with self._reaching("open"), _installed():
            self._fs, root = fsspec.core.url_to_fs(url, **options)
            self._root = root.rstrip("/") or root
            protocols = self._fs.protocol
            names = {protocols} if isinstance(protocols, str) else set(protocols)
            self._at_once = bool(names & _ALL_AT_ONCE)
            self._local = bool(names & {"file", "local"})
            self._web = bool(names & {"http", "https"})  # listings are pages of links, @ is %40

    def __repr__(self) -> str:
        return f"<RemoteBank {self.url}>"

    def names(self) -> list[str]:
        """Names of all skills in the remote bank, sorted."""
        return sorted({version.name for version in self._scan().versions})

    def versions(self, name: str) -> list[int]:
        """Version numbers of a skill, oldest first; empty if the remote bank does not have it."""
        return sorted(version.number for version in self._scan().versions if version.name == name)

    def push(self, bank: Bank, reference: str, name: str | None = None) -> str:
        """Upload a skill as the next version of a name.

        The file is verified before the upload and read back after it. An interrupted push leaves
        nothing that looks like a skill. If the newest version already is this skill, nothing is
        uploaded.

        Args:
            bank: the local bank.
            reference: the skill to push.
            name: name in the remote bank; by default its name in the local bank.

        Returns:
            Its reference in the remote bank.

        Raises:
            SkillNotFound: the local bank has no such skill.
            SkillFileError: the local file is invalid.
            StorageError: the remote bank cannot be reached or written, or the uploaded file reads
                back differently.
        """
        version = bank.resolve(reference)
        image = storage.read_verified(version.path)
        name = bank_folder.checked_name(version.name if name is None else name)
        with self._reaching("write to"):
            if not self._at_once:  # object stores have no folders to create
                try:
                    self._fs.makedirs(self._root, exist_ok=True)
                except FileExistsError as error:
                    raise errors.StorageError(
                        f"{self.url} is a file; a bank is a folder"
                    ) from error
            for _ in range(100):  # another writer may take the same number first
                scan = self._scan()
                numbers = sorted(v.number for v in scan.versions if v.name == name)
                used = [v.number for v in scan.gone if v.name == name]  # removed, never reused
                if numbers and self._is_there(self._version(name, numbers[-1]), image):
                    return f"{name}@{numbers[-1]}"
                number = max([*numbers, *used], default=0) + 1
                target = self._version(name, bank_folder.checked_number(number))
                with contextlib.suppress(FileExistsError):
                    self._publish(target, image)
                    return target.reference
        raise errors.StorageError(f"cannot write to {self.url}: too many concurrent writers")

    def pull(self, bank: Bank, reference: str, name: str | None = None) -> str:
        """Download a skill into a bank.

        An interrupted pull leaves the bytes received so far in the bank's folder, and the next pull
        of the same file resumes there; over HTTP it starts from the beginning. The complete file is
        verified like any untrusted file.

        Args:
            bank: the local bank.
            reference: ``name``, ``name@2`` or ``name@alias`` in the remote bank.
            name: name in the local bank; by default its name in the remote bank.

        Returns:
            Its reference in the local bank. If the newest version already is this skill, the
            reference of that version.

        Raises:
            SkillNotFound: the remote bank has no such skill.
            SkillFileError: the downloaded file is invalid; nothing was saved.
            StorageError: the remote bank cannot be reached, or the local bank cannot be written.
        """
        version = self._resolve(reference)
        with self._reaching("read from"):
            self._fs.invalidate_cache()
            size = int(self._fs.info(self._at(version.path))["size"])
            head = self._header(version)
        with storage.naming(f"{self.url}/{version.path.name}"):
            if size > storage.MAX_FILE_BYTES:
                raise errors.FileTooLarge(f"{size:,} bytes")
            body_hash = storage.parse_header(head).body_hash
        with bank.receiving(body_hash) as partial:
            self._fetch(version, partial, size)
            try:
                return bank.add(storage.read_bytes(partial), name or version.name)
            finally:
                partial.unlink(missing_ok=True)  # complete, valid or not: nothing to resume

    # The remote files.

    def _scan(self) -> bank_folder.Scan:
        with self._reaching("list"):
            self._fs.invalidate_cache()
            try:
                if self._web:
                    return bank_folder.parse(_HERE, self._linked())
                paths = self._fs.ls(self._root, detail=False)
            except FileNotFoundError as error:
                cause = error.__cause__  # fsspec converts every failure of a web request
                if self._web and cause and getattr(cause, "status", None) != 404:
                    raise cause from None
                paths = []
            return bank_folder.parse(_HERE, [path.rpartition("/")[2] for path in paths])

    def _linked(self) -> set[str]:
        """Names of the files that a web server's page of the folder links to.

        fsspec would read a page of any length, and search it in cubic time.
        """
        page = self._bytes("", 0, MAX_PAGE_BYTES + 1)
        if len(page) > MAX_PAGE_BYTES:
            raise OSError(f"its page has more than {MAX_PAGE_BYTES:,} bytes")
        folder = self._at("")  # a link may begin with its address or its path
        path = urlsplit(folder).path
        links = _LINK.findall(page.decode(errors="replace"))
        return {unquote(link.removeprefix(folder).removeprefix(path)) for link in links}

    def _version(self, name: str, number: int) -> Version:
        return Version(name, number, _HERE)

    def _at(self, path: Path | str) -> str:
        """Remote path of a file of the bank."""
        return f"{self._root}/{path}"

    def _bytes(self, path: Path | str, start: int, end: int) -> bytes:
        """Bytes ``start`` to ``end`` of a remote file, fewer if it ends before."""
        if self._web:  # a server may ignore the requested range and send the whole file
            data = bytearray()
            with self._fs.open(self._at(path), "rb", block_size=0) as stream:
                while len(data) < end and (more := stream.read(end - len(data))):
                    data += more  # a read may return less than requested
            return bytes(data[start:])
        return bytes(self._fs.cat_file(self._at(path), start=start, end=end))

    def _is_there(self, version: Version, image: bytes) -> bool:
        """Whether a remote file has exactly these bytes; compares the headers first."""
        if self._header(version) != image[: storage.HEADER_BYTES]:
            return False
        return self._bytes(version.path, 0, len(image) + 1) == image

    def _resolve(self, reference: str) -> Version:
        scan = self._scan()
        name, _, which = reference.partition("@")
        found = {v.number: v for v in scan.versions if v.name == name}
        if which.isdecimal():
            wanted = int(which)
        elif which in ("", "latest"):
            wanted = max(found, default=0)
        else:
            wanted = self._alias(name, which) if (name, which) in scan.labels else 0
        if wanted not in found:
            names = ", ".join(sorted({v.name for v in scan.versions}))
            known = f"There is: {names}" if names else "There is none at all: is the address right?"
            raise errors.SkillNotFound(f"no skill {reference!r} at {self.url}. {known}")
        return found[wanted]

    def _alias(self, name: str, label: str) -> int:
        with self._reaching("read from"):
            text = self._bytes(bank_folder.alias_path(_HERE, name, label), 0, 16)
        return bank_folder.alias_number(text)

    def _header(self, version: Version) -> bytes:
        return self._bytes(version.path, 0, storage.HEADER_BYTES)

    def _fetch(self, version: Version, partial: Path, size: int) -> None:
        """Append the missing bytes to the partial file; over HTTP, download it from the start."""
        with partial.open("wb" if self._web else "ab") as file:
            while (have := file.tell()) < size:
                end = size if self._web else min(have + CHUNK, size)
                with self._reaching("read from"):
                    data = self._bytes(version.path, have, end)
                    if len(data) != end - have:
                        raise OSError(f"expected {end - have} bytes, got {len(data)}")
                try:
                    file.write(data)
                    file.flush()
                except OSError as error:
                    raise errors.StorageError(
                        f"cannot write {partial}: {error.strerror}"
                    ) from error

    def _publish(self, target: Version, image: bytes) -> None:
        """Create a file atomically, and read it back to verify it.

        Raises:
            FileExistsError: another writer's file is there.
        """
        path = self._at(target.path)
        if self._at_once:
            try:
                self._fs.pipe_file(path, image, mode="create")
            except Exception as error:
                self._fs.invalidate_cache()
                if self._fs.exists(path):  # error types differ; or the upload has succeeded
                    raise FileExistsError(path) from error
                raise
        else:
            temporary = self._at(f".{target.path.name}.{secrets.token_hex(8)}.tmp")
            try:
                self._fs.pipe_file(temporary, image)
                self._rename(temporary, path)
            except BaseException:
                with contextlib.suppress(Exception):
                    self._fs.rm_file(temporary)
                raise
        self._fs.invalidate_cache()
        there = self._bytes(target.path, 0, len(image) + 1)
        if there[: storage.HEADER_BYTES] != image[: storage.HEADER_BYTES]:
            raise FileExistsError(path)  # a concurrent writer's file: not ours to delete
        if there != image:
            self._fs.rm_file(path)
            raise OSError("the uploaded file reads back differently, and was deleted")

    def _rename(self, temporary: str, path: str) -> None:
        """Rename a file to a name that must be new; two at once may collide if it is not local."""
        if self._local:
            try:
                os.link(temporary, path)
            except FileExistsError:
                raise
            except OSError:
                pass  # a file system without links
            else:
                self._fs.rm_file(temporary)
                return
        if self._fs.exists(path):
            raise FileExistsError(path)
        self._fs.mv(temporary, path)

    @contextlib.contextmanager
    def _reaching(self, what: str) -> Iterator[None]:
        """Convert any exception of the file system into a StorageError."""
        try:
            yield
        except (errors.SkillbankError, FileExistsError):
            raise
        except Exception as error:  # exception types differ between file systems
            told = str(error).split("\n", 1)[0] or type(error).__name__
            reason = errors.printable(told)  # it may quote the remote
            raise errors.StorageError(f"cannot {what} {self.url}: {reason}") from error


@contextlib.contextmanager
def _installed() -> Iterator[None]:
    """Say how to install what a remote bank needs and lacks."""
    try:
        yield
    except ImportError as error:
        ours = "fsspec" in str(error) or "s3fs" in str(error)
        how = ": pip install 'skillbank[remote]'" if ours else ""
        raise errors.StorageError(f"this bank needs another package ({error}){how}") from error
