"""Banks elsewhere: in memory, in a folder, and on a real S3 server over HTTP on this machine."""

import contextlib
import errno
import functools
import os
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from moto.server import ThreadedMotoServer
from skill_files import TINY, small_skill

from skillbank import bank_folder, errors, remote, storage
from skillbank.bank import Bank
from skillbank.config import PretrainConfig
from skillbank.remote import RemoteBank


@pytest.fixture(scope="module")
def s3_server() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    yield f"http://127.0.0.1:{port}"
    server.stop()


@pytest.fixture(params=["memory", "file", "s3"])
def elsewhere(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RemoteBank]:
    if request.param == "memory":
        fsspec.filesystem("memory").store.clear()
        yield RemoteBank("memory://skills")
    elif request.param == "file":
        yield RemoteBank(f"file://{tmp_path}/elsewhere")
    else:
        options = {
            "endpoint_url": request.getfixturevalue("s3_server"),
            "key": "test",
            "secret": "test",
            "client_kwargs": {"region_name": "eu-west-1"},
            "skip_instance_cache": True,
        }
        there = fsspec.filesystem("s3", **options)
        there.mkdir("bucket")
        yield RemoteBank("s3://bucket/skills", **options)
        there.rm("bucket", recursive=True)


@pytest.fixture
def bank(tmp_path: Path) -> Bank:
    return Bank(tmp_path / "mine")


@pytest.fixture
def other(tmp_path: Path) -> Bank:
    return Bank(tmp_path / "theirs")


def test_a_skill_goes_there_and_comes_back_bit_for_bit(
    elsewhere: RemoteBank, bank: Bank, other: Bank
) -> None:
    assert repr(elsewhere) == f"<RemoteBank {elsewhere.url}>"
    bank.save(small_skill(seed=1), "run")
    assert elsewhere.push(bank, "run") == "run@1"
    assert elsewhere.names() == ["run"]
    assert elsewhere.pull(other, "run") == "run@1"
    assert other.path("run").read_bytes() == bank.path("run").read_bytes()
    assert elsewhere.pull(other, "run", name="copy") == "copy@1"


def test_versions_there_are_never_overwritten(
    elsewhere: RemoteBank, bank: Bank, other: Bank
) -> None:
    bank.save(small_skill(seed=1), "run")
    assert elsewhere.push(bank, "run") == "run@1"
    assert elsewhere.push(bank, "run") == "run@1"
    bank.save(small_skill(seed=2), "run")
    assert elsewhere.push(bank, "run@2") == "run@2"
    assert elsewhere.versions("run") == [1, 2]
    elsewhere.pull(other, "run@1")
    assert other.read("run").content_hash == small_skill(seed=1).content_hash
    elsewhere.pull(other, "run@latest")
    assert other.read("run").content_hash == small_skill(seed=2).content_hash


def test_a_damaged_newest_version_there_does_not_count_as_pushed(
    elsewhere: RemoteBank, bank: Bank, other: Bank
) -> None:
    bank.save(small_skill(), "run")
    elsewhere.push(bank, "run")
    image = bank.path("run").read_bytes()
    elsewhere._fs.pipe_file(f"{elsewhere._root}/run.h5", image[: len(image) // 2])
    assert elsewhere.push(bank, "run") == "run@2"
    assert elsewhere.pull(other, "run") == "run@1"


def test_a_url_with_one_slash_is_a_slip() -> None:
    with pytest.raises(errors.StorageError, match="did you mean 's3://bucket/skills'"):
        RemoteBank("s3:/bucket/skills")


def test_a_file_is_no_bank(bank: Bank, tmp_path: Path) -> None:
    bank.save(small_skill(), "run")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(errors.StorageError, match="is a file; a bank is a folder"):
        RemoteBank((tmp_path / "file").as_uri()).push(bank, "run")


def test_a_push_that_loses_the_race_takes_the_next_number(
    elsewhere: RemoteBank, bank: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank.save(small_skill(seed=1), "run")
    elsewhere.push(bank, "run")
    bank.save(small_skill(seed=2), "run")
    real, late = RemoteBank._scan, []

    def scan(self: RemoteBank) -> bank_folder.Scan:
        late.append(self)  # at first as it was before the other's push
        return real(self) if len(late) > 1 else bank_folder.Scan([], [], [])

    monkeypatch.setattr(RemoteBank, "_scan", scan)
    assert elsewhere.push(bank, "run") == "run@2"


def test_a_push_that_finds_anothers_skill_in_its_place_leaves_it(
    bank: Bank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two pushes at once, where a store cannot make a file that must be new."""

    def unsupported(source: str, target: str) -> None:
        raise OSError(errno.ENOTSUP, "no links here")

    monkeypatch.setattr(os, "link", unsupported)
    elsewhere = RemoteBank(f"file://{tmp_path}/elsewhere")
    bank.save(small_skill(seed=1), "run")
    theirs = small_skill(seed=2)
    image = storage.encode(*theirs.stored())
    real = elsewhere._fs.mv

    def both(source: str, target: str) -> None:
        real(source, target)
        if target.endswith("/run.h5"):
            Path(target).write_bytes(image)

    monkeypatch.setattr(elsewhere._fs, "mv", both)
    assert elsewhere.push(bank, "run") == "run@2"
    assert storage.read(tmp_path / "elsewhere" / "run.h5").content_hash == theirs.content_hash


def test_two_pushes_to_a_folder_at_once_both_arrive(
    bank: Bank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = RemoteBank(f"file://{tmp_path}/elsewhere")
    bank.save(small_skill(seed=1), "run")
    theirs = small_skill(seed=2)
    place, real = tmp_path / "elsewhere" / "run.h5", elsewhere._fs.pipe_file

    def pipe_file(path: str, image: bytes) -> None:
        real(path, image)
        place.write_bytes(storage.encode(*theirs.stored()))  # after it was seen to be free

    monkeypatch.setattr(elsewhere._fs, "pipe_file", pipe_file)
    monkeypatch.setattr(elsewhere._fs, "exists", lambda path: False)
    assert elsewhere.push(bank, "run") == "run@2"
    assert storage.read(place).content_hash == theirs.content_hash
    assert not list(place.parent.glob("*.tmp"))


def test_a_removed_number_is_not_given_again_by_a_push(bank: Bank, tmp_path: Path) -> None:
    there = Bank(tmp_path / "there")
    for seed in (1, 2):
        there.save(small_skill(seed=seed), "run")
    there.remove("run@2")
    bank.save(small_skill(seed=3), "run")
    assert RemoteBank(str(there.folder)).push(bank, "run") == "run@3"


def test_an_alias_there_is_understood(elsewhere: RemoteBank, bank: Bank, other: Bank) -> None:
    for seed in (1, 2):
        bank.save(small_skill(seed=seed), "run")
        elsewhere.push(bank, "run")
    elsewhere._fs.pipe_file(f"{elsewhere._root}/run@best.alias", b"1\n")
    elsewhere.pull(other, "run@best")
    assert other.read("run").content_hash == small_skill(seed=1).content_hash
    with pytest.raises(errors.SkillNotFound, match=r"no skill 'run@worst' at .* There is: run"):
        elsewhere.pull(other, "run@worst")


def test_what_is_not_there_is_listed(elsewhere: RemoteBank, other: Bank) -> None:
    with pytest.raises(errors.SkillNotFound, match="There is none at all: is the address right"):
        elsewhere.pull(other, "run")
    assert not other.folder.exists()


def test_an_interrupted_push_publishes_nothing(
    elsewhere: RemoteBank, bank: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank.save(small_skill(), "run")
    with monkeypatch.context() as patch:
        patch.setattr(elsewhere._fs, "pipe_file", broken_after(elsewhere._fs, 1000))
        with pytest.raises(errors.StorageError, match=r"cannot write to .*connection lost"):
            elsewhere.push(bank, "run")
    assert elsewhere.names() == []
    assert elsewhere.push(bank, "run") == "run@1"


def broken_after(fs: Any, size: int) -> Any:
    """A store that loses the connection: stores of objects keep nothing, others a part."""
    real = fs.pipe_file

    def pipe_file(path: str, value: bytes, **options: Any) -> None:
        if "file" in fs.protocol:
            real(path, value[:size], **options)
        raise ConnectionError("connection lost")

    return pipe_file


def test_an_interrupted_pull_goes_on_where_it_stopped(
    elsewhere: RemoteBank, bank: Bank, other: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank.save(small_skill(), "run")
    elsewhere.push(bank, "run")
    size = bank.path("run").stat().st_size
    monkeypatch.setattr(remote, "CHUNK", 1000)
    real, fetched = elsewhere._fs.cat_file, []

    def cat_file(path: str, start: int = 0, end: int | None = None) -> bytes:
        if start >= 3000 and not fetched.count(-1):
            fetched.append(-1)
            raise ConnectionError("connection lost")
        fetched.append(start)
        data: bytes = real(path, start=start, end=end)
        return data

    monkeypatch.setattr(elsewhere._fs, "cat_file", cat_file)
    with pytest.raises(errors.StorageError, match=r"cannot read from .*connection lost"):
        elsewhere.pull(other, "run")
    assert other.names() == []
    assert len(list(other.folder.glob(".*.part"))) == 1
    assert elsewhere.pull(other, "run") == "run@1"
    broke = fetched.index(-1)
    assert fetched[:broke] == [0, 0, 1000, 2000]  # the header, then the file
    assert fetched[broke + 1 :] == [0, *range(3000, size, 1000)]
    assert list(other.folder.glob(".*.part")) == []


def test_a_flipped_bit_on_the_way_is_refused(
    elsewhere: RemoteBank, bank: Bank, other: Bank
) -> None:
    bank.save(small_skill(), "run")
    elsewhere.push(bank, "run")
    data = bytearray(bank.path("run").read_bytes())
    data[-1] ^= 1
    elsewhere._fs.pipe_file(f"{elsewhere._root}/run.h5", bytes(data))
    with pytest.raises(errors.DamagedFile):
        elsewhere.pull(other, "run")
    assert other.names() == []
    assert other.gc() == []


def test_a_store_that_keeps_something_else_is_noticed(
    elsewhere: RemoteBank, bank: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank.save(small_skill(), "run")
    real = elsewhere._fs.pipe_file
    with monkeypatch.context() as patch:
        patch.setattr(
            elsewhere._fs, "pipe_file", lambda path, value, **o: real(path, value[:-1] + b"?", **o)
        )
        with pytest.raises(errors.StorageError, match="reads back differently"):
            elsewhere.push(bank, "run")
    assert elsewhere.names() == []


def test_a_damaged_skill_is_not_pushed(elsewhere: RemoteBank, bank: Bank) -> None:
    bank.save(small_skill(), "run")
    path = bank.path("run")
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(errors.DamagedFile):
        elsewhere.push(bank, "run")
    assert elsewhere.names() == []


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89HDF\r\n\x1a\n" + b"\0" * 600])
def test_a_strangers_file_is_refused(elsewhere: RemoteBank, other: Bank, content: bytes) -> None:
    elsewhere._fs.makedirs(elsewhere._root, exist_ok=True)
    elsewhere._fs.pipe_file(f"{elsewhere._root}/run.h5", content)
    with pytest.raises((errors.NotASkillFile, errors.StorageError)):
        elsewhere.pull(other, "run")
    assert other.names() == []


def test_two_pulls_of_the_same_bytes_do_not_mix(bank: Bank, other: Bank) -> None:
    fsspec.filesystem("memory").store.clear()
    elsewhere = RemoteBank("memory://skills")
    bank.save(small_skill(), "run")
    elsewhere.push(bank, "run")
    body_hash = storage.parse_header(bank.path("run").read_bytes()).body_hash
    with other.receiving(body_hash), pytest.raises(errors.StorageError, match="wait for it"):
        elsewhere.pull(other, "run")
    assert elsewhere.pull(other, "run") == "run@1"


def test_gc_sweeps_what_an_abandoned_pull_left(other: Bank) -> None:
    with other.receiving("ab" * 32) as partial:
        partial.write_bytes(b"half")
        assert other.gc() == []
    assert other.gc() == [partial.name]


def test_names_there_cannot_lead_elsewhere(other: Bank) -> None:
    store = fsspec.filesystem("memory").store
    store.clear()
    elsewhere = RemoteBank("memory://skills")
    for name in ("..h5", ".hidden.h5", "a b.h5", "x@0.h5", "x@1.h5", "x@@2.h5", "x.h5.h5x"):
        elsewhere._fs.pipe_file(f"/skills/{name}", b"x")
    assert elsewhere.names() == []


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("nothing://x", "Protocol not known: nothing"),
        ("s3://bucket/skills", "cannot"),
        ("http://127.0.0.1:9/skills", "cannot list .*Cannot connect to host"),
    ],
)
def test_an_unknown_or_unreachable_place_is_one_clear_line(url: str, text: str) -> None:
    options: dict[str, Any] = {}
    if url.startswith("s3"):
        options = {"endpoint_url": "http://127.0.0.1:9", "key": "x", "secret": "x"}
        options["config_kwargs"] = {"retries": {"max_attempts": 1}, "connect_timeout": 1}
    with pytest.raises(errors.StorageError, match=text) as caught:
        RemoteBank(url, **options).names()
    assert "\n" not in str(caught.value)
    assert url in str(caught.value)


def test_what_is_not_installed_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(*_args: object, **_named: object) -> None:
        raise ImportError(f"Install {package}")

    monkeypatch.setattr(fsspec.core, "url_to_fs", lacking)
    package = "s3fs"
    with pytest.raises(errors.StorageError, match=r"Install s3fs\): pip install 'skillbank\[rem"):
        RemoteBank("s3://bucket/skills")
    package = "gcsfs"  # which the extra does not have
    with pytest.raises(errors.StorageError, match=r"Install gcsfs\)$"):
        RemoteBank("gs://bucket/skills")


def test_of_a_web_server_that_never_ends_no_more_is_read_than_asked(other: Bank) -> None:
    sent = 0

    class Endless(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            nonlocal sent
            self.send_response(200)
            self.end_headers()
            if self.path == "/":
                self.wfile.write(b'<a href="run.h5">run.h5</a><a href="run@best.alias">x</a>')
                return
            with contextlib.suppress(OSError):
                while sent < 1 << 28:
                    sent += self.wfile.write(b"1" * 65536)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Endless) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        there = RemoteBank(f"http://127.0.0.1:{server.server_port}/")
        with pytest.raises(errors.SkillNotFound, match="run@best"):
            there.pull(other, "run@best")
        server.shutdown()
    assert sent < 1 << 26


@contextlib.contextmanager
def folder_page(text: bytes, times: int = 1) -> Iterator[str]:
    """A web server of one page, in which HOST is itself; yields the address of a folder."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):
                for _ in range(times):
                    self.wfile.write(text.replace(b"HOST", self.headers["Host"].encode()))

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/my/skills"
        server.shutdown()


def test_a_page_without_end_is_one_error() -> None:
    with (
        folder_page(b"<" * (1 << 20), times=64) as url,
        pytest.raises(errors.StorageError, match="its page has more than 4,194,304 bytes"),
    ):
        RemoteBank(url).names()


def test_a_page_that_is_slow_to_search_is_searched_quickly() -> None:
    """fsspec's expression needs minutes for a tag of so many spaces."""
    with folder_page(b"<a" + b" " * 2500 + b'<a href="run.h5">') as url:
        start = time.monotonic()
        assert RemoteBank(url).names() == ["run"]
        assert time.monotonic() - start < 20


def test_links_of_a_page_count_if_they_lead_into_its_folder() -> None:
    links = ["a.h5", "a.h5", "b%402.h5", "/my/skills/c.h5", "http://HOST/my/skills/d.h5"]
    links += ["#", "../", "?C=N", "//[", "/e.h5", "/my/f.h5", "sub/g.h5", "http://x/my/skills/h.h5"]
    page = "".join(f"<A class=x HREF='{link}'>x</A>" for link in links)
    with folder_page(page.encode()) as url:
        there = RemoteBank(url)
        assert there.names() == ["a", "b", "c", "d"]
        assert there.versions("a") == [1]


def test_what_comes_slowly_from_the_web_comes_whole(bank: Bank, other: Bank) -> None:
    wide = TINY.model_copy(update={"critic_hidden": (300, 300)})
    bank.save(small_skill(architecture=wide, config=PretrainConfig(architecture=wide)), "run")
    image = bank.path("run").read_bytes()
    assert len(image) > 1 << 18

    class Slow(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(image)))
            self.end_headers()

        def do_GET(self) -> None:
            if self.path == "/":
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b'<a href="run.h5">run.h5</a>')
                return
            self.do_HEAD()
            with contextlib.suppress(OSError):
                for start in range(0, len(image), 1 << 15):
                    self.wfile.write(image[start : start + (1 << 15)])
                    time.sleep(0.01)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Slow) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        there = RemoteBank(f"http://127.0.0.1:{server.server_port}/")
        assert there.pull(other, "run") == "run@1"
        server.shutdown()
    assert other.path("run").read_bytes() == image


def test_a_bank_can_be_pulled_from_a_plain_web_server(
    bank: Bank, other: Bank, tmp_path: Path
) -> None:
    for seed in (1, 2):
        bank.save(small_skill(seed=seed), "run")
    bank.alias("run@1", "best")
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(bank.folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        there = RemoteBank(f"http://127.0.0.1:{server.server_port}/")
        assert there.versions("run") == [1, 2]
        for reference, seed in (("run@2", 2), ("run@best", 1), ("run", 2)):
            kept = there.pull(other, reference)
            assert other.read(kept).content_hash == small_skill(seed=seed).content_hash
        with pytest.raises(errors.SkillNotFound, match="There is: run"):
            there.pull(other, "walk")
        with pytest.raises(errors.StorageError, match="cannot write to http"):
            there.push(bank, "run@1", name="mine")
        away = RemoteBank(f"{there.url}other")  # a page that the server does not have
        assert away.names() == []
        with pytest.raises(errors.SkillNotFound, match="is the address right"):
            away.pull(other, "run")
        server.shutdown()


def test_of_a_file_that_is_too_large_nothing_is_fetched(elsewhere, bank, other, monkeypatch):
    bank.save(small_skill(), "run")
    elsewhere.push(bank, "run")
    monkeypatch.setattr(storage, "MAX_FILE_BYTES", 1000)
    with pytest.raises(errors.FileTooLarge, match=r"run\.h5: .* bytes"):
        elsewhere.pull(other, "run")
    assert not other.folder.exists()


def test_the_bytes_that_were_verified_are_those_that_are_pushed(
    elsewhere: RemoteBank, bank: Bank, other: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank.save(small_skill(seed=1), "run")
    path, later = bank.path("run"), storage.encode(*small_skill(seed=2).stored())
    real = storage.decode

    def decode(image: bytes, *rest: Any) -> storage.StoredSkill:
        path.write_bytes(later)
        return real(image, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(storage, "decode", decode)
        elsewhere.push(bank, "run")
    elsewhere.pull(other, "run")
    assert other.read("run").content_hash == small_skill(seed=1).content_hash


def test_damage_that_the_index_hides_is_not_pushed(elsewhere: RemoteBank, bank: Bank) -> None:
    bank.save(small_skill(), "run")
    path = bank.path("run")
    status, image = path.stat(), bytearray(path.read_bytes())
    image[552] ^= 1  # of the HDF5 structure
    path.write_bytes(image)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert bank.read("run").content_hash == small_skill().content_hash
    with pytest.raises(errors.DamagedFile, match=r"run\.h5"):
        elsewhere.push(bank, "run")
    assert elsewhere.names() == []


def test_a_push_reads_no_more_than_it_compares(
    elsewhere: RemoteBank, bank: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank.save(small_skill(), "run")
    image = bank.path("run").read_bytes()
    elsewhere._fs.makedirs(elsewhere._root, exist_ok=True)
    elsewhere._fs.pipe_file(f"{elsewhere._root}/run.h5", image + bytes(1 << 16))
    real, read = elsewhere._fs.cat_file, []

    def cat_file(path: str, **bounds: Any) -> bytes:
        data: bytes = real(path, **bounds)
        read.append(len(data))
        return data

    monkeypatch.setattr(elsewhere._fs, "cat_file", cat_file)
    assert elsewhere.push(bank, "run") == "run@2"
    assert max(read) == len(image) + 1


def test_what_a_remote_says_cannot_steer_a_terminal() -> None:
    class Hostile(MemoryFileSystem):
        protocol = "hostile"

        def ls(self, *_: Any, **__: Any) -> Any:
            raise OSError("denied\x1b]0;pwned\x07\x1b[2K\rall good" + 9999 * "!" + "\nmore")

    fsspec.register_implementation("hostile", Hostile, clobber=True)
    with pytest.raises(errors.StorageError) as refused:
        RemoteBank("hostile://x").names()
    told = str(refused.value)
    assert told.startswith(r"cannot list hostile://x: denied\x1b]0;pwned\x07\x1b[2K\rall good!")
    assert len(told) < 1100


def test_what_others_push_is_seen_by_who_has_looked_before(elsewhere, bank):
    from skillbank.remote import RemoteBank

    options = elsewhere._fs.storage_options
    theirs = RemoteBank(
        elsewhere.url,
        **options,
        **({"skip_instance_cache": True} if "file" not in elsewhere.url else {}),
    )
    for seed, numbers in ((1, [1]), (2, [1, 2])):
        bank.save(small_skill(seed=seed), "run")
        theirs.push(bank, "run")
        assert elsewhere.versions("run") == numbers
