"""The bank: names, versions, aliases, content addresses, and an index that can be lost."""

import errno
import fcntl
import json
import os
import shutil
import subprocess
import sys
import threading
import tracemalloc
import warnings
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from skill_files import FakeSkill, small_skill

from skillbank import durable, errors, storage
from skillbank.bank import Bank
from skillbank.skill import Skill


@pytest.fixture
def bank(tmp_path: Path) -> Bank:
    return Bank(tmp_path / "bank")


def test_a_loaded_skill_is_the_saved_one_bit_for_bit(bank: Bank) -> None:
    skill = Skill(*small_skill(seed=3).stored())
    assert bank.save(skill, "mine") == "mine@1"
    loaded = bank.load("mine")
    assert loaded.spec == skill.spec
    assert loaded.content_hash == skill.content_hash
    for name, array in skill.stored()[1].items():
        assert loaded.stored()[1][name].tobytes() == array.tobytes()


def test_saving_again_makes_a_version_and_keeps_the_old_one(bank: Bank) -> None:
    first, second = small_skill(seed=1), small_skill(seed=2)
    assert bank.save(first, "x") == "x@1"
    assert bank.save(second, "x") == "x@2"
    assert bank.names() == ["x"]
    assert bank.versions("x") == [1, 2]
    assert bank.read("x@1").content_hash == first.content_hash
    assert bank.read("x").content_hash == second.content_hash
    assert bank.read("x@latest").content_hash == second.content_hash
    with pytest.raises(errors.InvalidName, match=r"'x@latest' is an alias: remove 'x@2'$"):
        bank.remove("x@latest")


def test_a_lock_that_must_not_wait_does_not_wait_for_a_thread_either(bank: Bank) -> None:
    bank.save(small_skill(), "x")
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with bank._locked():
            held.set()
            done.wait(30.0)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(30.0)
    try:
        with pytest.raises(errors.StorageError, match="another thread"), bank._locked(wait=False):
            pass
    finally:
        done.set()
        thread.join()
    with bank._locked(wait=False), bank._locked(wait=False):  # again by the same thread
        pass


def test_saving_the_newest_version_once_more_changes_nothing(bank: Bank) -> None:
    assert bank.save(small_skill(), "x") == "x@1"
    assert bank.save(small_skill(), "x") == "x@1"
    assert bank.versions("x") == [1]


def test_what_was_read_can_be_saved_under_another_name(bank: Bank) -> None:
    bank.save(small_skill(), "x")
    stored = bank.read("x")
    assert bank.save(stored, "y") == "y@1"
    assert bank.path("y").read_bytes() == bank.path("x").read_bytes()
    assert repr(stored) == f"<StoredSkill small: {stored.content_hash[:8]}>"


@pytest.mark.parametrize(
    ("thing", "told"),
    [
        ("x", "'x' is only a name: the first argument must be a skill, as bank.load"),
        (Path("x.h5"), "'x.h5' is only a name"),
        (None, "NoneType is not a skill"),
        (SimpleNamespace(distill=None), r"is not a skill: distill\(\) turns a composition"),
    ],
)
def test_what_is_no_skill_is_not_saved(bank: Bank, thing: Any, told: str) -> None:
    swapped: Any = small_skill()
    for name in ("x", swapped):
        with pytest.raises(errors.SkillbankError, match=told):
            bank.save(thing, name)
    assert not bank.folder.exists()


def test_a_damaged_newest_version_does_not_count_as_saved(bank: Bank) -> None:
    bank.save(small_skill(), "x")
    damage(bank.path("x"))
    assert bank.save(small_skill(), "x") == "x@2"


def test_a_misspelt_name_gets_a_suggestion_and_the_list(bank: Bank) -> None:
    bank.save(small_skill(), "run_anywhere")
    bank.save(small_skill(), "hop")
    with pytest.raises(errors.SkillNotFound) as caught:
        bank.load("run_anywher")
    assert str(caught.value) == (
        "no skill 'run_anywher'. Did you mean 'run_anywhere'? In the bank: hop, run_anywhere"
    )
    bank.save(small_skill(), "x")
    with pytest.raises(errors.SkillNotFound, match=r"no skill 'x@7'\. There is: x@1, x@latest"):
        bank.load("x@7")


@pytest.mark.parametrize("file", ["/far/walk.h5", "walk.h5", "far/walk"])
def test_a_file_that_is_taken_for_a_name_is_told_how_to_load_it(bank: Bank, file: str) -> None:
    told = rf"no skill '{file}'\. A file is given as Path\('{file}'\), read by skillbank.Skill.load"
    with pytest.raises(errors.SkillNotFound, match=told):
        bank.load(file)
    with pytest.raises(errors.SkillNotFound, match=rf"^no file {file}$"):
        Skill.load(file)


def test_a_name_that_is_taken_for_a_file_is_told_how_to_load_it() -> None:
    told = r"no file run_anywhere\. .* by skillbank\.Bank\(\)\.load\('run_anywhere'\)"
    with pytest.raises(errors.SkillNotFound, match=told):
        Skill.load("run_anywhere")


def test_an_empty_bank_says_so(bank: Bank) -> None:
    assert bank.names() == []
    with pytest.raises(errors.SkillNotFound, match="In the bank: nothing yet"):
        bank.path("x")


@pytest.mark.parametrize(
    "name", ["", "a/b", "../x", ".hidden", "x@1", "a b", "x\n", "n" * 129, "x.h5"]
)
def test_a_name_that_no_file_could_have_is_refused(bank: Bank, name: str) -> None:
    with pytest.raises(errors.InvalidName, match="cannot be the name of a skill"):
        bank.save(small_skill(), name)
    with pytest.raises(errors.SkillNotFound):
        bank.path(name)
    assert not bank.folder.exists()


def test_remove_takes_all_versions_or_one(bank: Bank) -> None:
    for seed in range(3):
        bank.save(small_skill(seed=seed), "x")
    assert bank.remove("x@2") == ["x@2"]
    assert bank.versions("x") == [1, 3]
    assert bank.remove("x") == ["x@1", "x@3"]
    assert bank.names() == []
    with pytest.raises(errors.SkillNotFound):
        bank.remove("x")


def test_the_number_of_a_removed_version_is_never_given_again(bank: Bank) -> None:
    for seed in range(3):
        bank.save(small_skill(seed=seed), "x")
    bank.remove("x@3")
    bank.remove("x@2")
    (bank.folder / "index.json").unlink()
    assert bank.save(small_skill(seed=9), "x") == "x@4"
    bank.remove("x")
    assert bank.save(small_skill(seed=9), "x") == "x@5"


def test_aliases_move_and_go_with_their_version(bank: Bank) -> None:
    hashes = []
    for seed in range(2):
        skill = small_skill(seed=seed)
        bank.save(skill, "x")
        hashes.append(skill.content_hash)
    assert bank.alias(f"sha256:{hashes[0]}", "best") == "x@1"
    assert bank.read("x@best").content_hash == hashes[0]
    bank.alias("x@2", "best")
    assert bank.read("x@best").content_hash == hashes[1]
    assert bank.aliases("x") == {"best": 2, "latest": 2}
    with pytest.raises(errors.InvalidName, match="'x@best' is an alias: remove 'x@2'"):
        bank.remove("x@best")
    assert bank.removal("x@2") == bank.remove("x@2") == ["x@2", "x@best"]
    assert bank.aliases("x") == {"latest": 1}
    with pytest.raises(errors.SkillNotFound, match="There is: x@1, x@latest"):
        bank.load("x@best")


def test_an_alias_can_be_dropped(bank: Bank) -> None:
    bank.save(small_skill(), "x")
    bank.alias("x", "best")
    bank.unalias("x@best")
    with pytest.raises(errors.SkillNotFound, match=r"no alias 'x@best'. There is: none"):
        bank.unalias("x@best")


@pytest.mark.parametrize("label", ["latest", "1", "2nd", "", "a/b", "a.b"])
def test_an_alias_cannot_look_like_something_else(bank: Bank, label: str) -> None:
    bank.save(small_skill(), "x")
    with pytest.raises(errors.InvalidName, match="cannot be an alias"):
        bank.alias("x", label)


def test_a_skill_is_found_by_its_content(bank: Bank) -> None:
    skill = small_skill()
    bank.save(small_skill(seed=5), "other")
    bank.save(skill, "x")
    assert bank.resolve(f"sha256:{skill.content_hash[:8]}").reference == "x@1"
    assert bank.read(f"sha256:{skill.content_hash}").content_hash == skill.content_hash
    with pytest.raises(errors.SkillNotFound):
        bank.resolve("sha256:00000000")


def test_one_content_under_two_names_is_not_ambiguous(bank: Bank) -> None:
    skill = small_skill()
    bank.save(skill, "b")
    bank.save(skill, "a")
    assert bank.resolve(f"sha256:{skill.content_hash}").reference == "a@1"


def test_lineage_names_parents_by_content(bank: Bank) -> None:
    grandparent = small_skill(seed=1)
    bank.save(grandparent, "run")
    stranger = "ab" * 32
    parent = small_skill(seed=2, parents=(grandparent.content_hash, stranger))
    bank.save(parent, "hallway")
    child = small_skill(seed=3, parents=(parent.content_hash,))
    bank.save(child, "maze")
    assert [tuple(ancestor) for ancestor in bank.lineage("maze")] == [
        (1, parent.content_hash, "hallway@1"),
        (2, grandparent.content_hash, "run@1"),
        (2, stranger, None),
    ]


def test_lineage_lists_each_parent_before_its_own_ancestors(bank: Bank) -> None:
    old, second = small_skill(seed=1), small_skill(seed=3)
    first = small_skill(seed=2, parents=(old.content_hash,))
    child = small_skill(seed=4, parents=(first.content_hash, second.content_hash))
    for name, skill in (("old", old), ("first", first), ("second", second), ("child", child)):
        bank.save(skill, name)
    assert [(one.depth, one.reference) for one in bank.lineage("child")] == [
        (1, "first@1"),
        (2, "old@1"),
        (1, "second@1"),
    ]


def test_a_lineage_may_be_longer_than_the_stack(
    bank: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank.folder.mkdir()
    parents: tuple[str, ...] = ()
    for number in range(sys.getrecursionlimit() + 2):
        skill = small_skill(parents=parents)
        (bank.folder / f"s{number}.h5").write_bytes(storage.encode(*skill.stored()))
        parents = (skill.content_hash,)
    monkeypatch.setattr(bank, "_holds", lambda *_: True)  # else each file is verified, slowly
    assert [one.depth for one in bank.lineage(f"s{number}")] == list(range(1, number + 1))


def test_each_ancestor_is_followed_once(bank: Bank) -> None:
    """Parents may be there twice, and a file is a stranger's: 16 to the 5th would take minutes."""
    parents: tuple[str, ...] = ()
    for seed in range(6):
        skill = small_skill(seed=seed, parents=parents)
        bank.save(skill, f"s{seed}")
        parents = (skill.content_hash, *dict.fromkeys(parents)) * 8
    assert len(bank.lineage("s5")) == 5 + 4 + 3 + 2 + 1


def test_diff_is_empty_for_equal_skills_and_exact_for_others(bank: Bank) -> None:
    one = small_skill(seed=1)
    spec, parameters = one.stored()
    other = {name: array.copy() for name, array in parameters.items()}
    other["sampler/0.bias"][0] += 0.5
    bank.save(one, "a")
    bank.save(FakeSkill(spec.model_copy(update={"temperature": 0.2}), other), "b")
    same = bank.diff("a", "a@1")
    assert same == ({}, {}, (one.content_hash, one.content_hash))
    differs = bank.diff("a", "b")
    assert differs.metadata == {"temperature": (0.1, 0.2)}
    assert list(differs.parameters) == ["sampler/0.bias"]
    assert differs.parameters["sampler/0.bias"] == pytest.approx(0.5, rel=1e-6)


def test_verify_names_what_is_damaged(bank: Bank) -> None:
    bank.save(small_skill(seed=1), "good")
    bank.save(small_skill(seed=2), "bad")
    assert bank.verify() == {}
    damage(bank.path("bad"))
    problems = bank.verify()
    assert list(problems) == ["bad@1"]
    assert isinstance(problems["bad@1"], errors.DamagedFile)
    with pytest.raises(errors.DamagedFile):
        bank.load("bad")
    assert bank.read("good").spec.name == "small"


def test_verify_names_what_cannot_be_read_and_goes_on(bank: Bank) -> None:
    bank.save(small_skill(seed=1), "good")
    (bank.folder / "broken.h5").symlink_to(bank.folder / "nowhere")
    (bank.folder / "loop.h5").symlink_to(bank.folder / "loop.h5")
    (bank.folder / "zzz.h5").write_bytes(b"no skill")
    assert list(bank.verify()) == ["broken@1", "loop@1", "zzz@1"]


def test_a_disk_without_locks_is_one_clear_error(
    bank: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank.save(small_skill(), "x")

    def refuse(_file: int, _how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    with monkeypatch.context() as patch:
        patch.setattr("fcntl.flock", refuse)
        with pytest.raises(errors.StorageError, match="No locks available"):
            bank.alias("x", "best")
        assert [line.reference for line in bank.listing()] == ["x@1"]
    bank.alias("x", "best")


def test_a_link_to_nowhere_is_listed_with_its_problem(bank: Bank) -> None:
    bank.save(small_skill(), "x")
    (bank.folder / "x@2.h5").symlink_to(bank.folder / "nowhere")
    good, bad = bank.listing()
    assert (good.problem, bad.reference) == (None, "x@2")
    assert str(bad.problem).startswith("no file")


def test_of_an_alias_that_is_too_long_nothing_is_read(bank: Bank) -> None:
    bank.save(small_skill(), "x")
    with (bank.folder / "x@best.alias").open("wb") as file:
        file.truncate(64 << 20)
    tracemalloc.start()
    try:
        assert bank.aliases("x") == {"latest": 1}
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_listing_survives_a_damaged_file(bank: Bank) -> None:
    bank.save(small_skill(seed=1), "good")
    bank.save(small_skill(seed=2), "bad")
    bank.alias("good", "best")
    damage(bank.path("bad"))
    bad, good = bank.listing()
    assert bad.entry is None
    assert bad.problem is not None
    assert "hash" in bad.problem
    assert good.entry is not None
    assert good.entry.env_id == "skillbank/QuadrupedRun-v0"
    assert sorted(good.aliases) == ["best", "latest"]


@pytest.mark.parametrize(
    "content", [None, b"", b"{", b"[]", b"[[{}, {}]]", b'[["x.h5", {"size": 1}]]', b"\xff" * 99]
)
def test_a_lost_or_damaged_index_is_made_again(bank: Bank, content: bytes | None) -> None:
    bank.save(small_skill(), "x")
    index = bank.folder / "index.json"
    before = json.loads(index.read_bytes())
    index.unlink() if content is None else index.write_bytes(content)
    again = Bank(bank.folder)
    assert again.names() == ["x"]
    again.read("x")
    assert json.loads(index.read_bytes()) == before


def test_a_bank_without_an_index_still_works(bank: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    replace_file = durable.replace_file

    def full_disk(path: Path, *rest: Any, **options: Any) -> None:
        if path.name == "index.json":
            raise errors.StorageError("cannot write the index: no space")
        replace_file(path, *rest, **options)

    monkeypatch.setattr(durable, "replace_file", full_disk)
    assert bank.save(small_skill(), "x") == "x@1"
    assert bank.save(small_skill(seed=2), "x") == "x@2"
    assert bank.read("x@1").content_hash == small_skill().content_hash
    assert [line.reference for line in bank.listing()] == ["x@1", "x@2"]
    assert bank.remove("x") == ["x@1", "x@2"]


def test_an_index_that_lies_about_places_changes_nothing(bank: Bank) -> None:
    skill = small_skill()
    bank.save(skill, "x")
    path = bank.folder / "index.json"
    index = dict(json.loads(path.read_bytes()))
    index["x.h5"]["offsets"] = [offset + 4 for offset in index["x.h5"]["offsets"]]
    path.write_text(json.dumps([*index.items()]))
    stored = Bank(bank.folder).read("x")
    assert stored.content_hash == skill.content_hash
    assert stored.parameters["noise"].tobytes() == skill.stored()[1]["noise"].tobytes()


def test_an_index_that_lies_about_contents_cannot_pass_one_skill_off_as_another(
    bank: Bank,
) -> None:
    wanted, other = small_skill(seed=1), small_skill(seed=2)
    bank.save(other, "a")
    bank.save(wanted, "b")
    path = bank.folder / "index.json"
    index = dict(json.loads(path.read_bytes()))
    index["a.h5"]["content_hash"] = wanted.content_hash
    path.write_text(json.dumps([*index.items()]))
    found = Bank(bank.folder).read(f"sha256:{wanted.content_hash}")
    assert found.content_hash == wanted.content_hash


def test_a_known_file_is_read_without_the_hdf5_library(
    bank: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank.save(small_skill(), "x")
    monkeypatch.setattr(
        "skillbank.storage_sandbox.subprocess.run", lambda *_, **__: pytest.fail("asked again")
    )
    assert bank.read("x").spec.name == "small"


@pytest.mark.parametrize("place", [600, -8, 2060])
def test_a_known_file_that_decays_on_the_disk_is_refused(bank: Bank, place: int) -> None:
    """The index still takes it for the same file: neither size nor time of change differ."""
    bank.save(small_skill(), "x")
    path = bank.path("x")
    status = path.stat()
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    try:
        stored = bank.read("x")
    except errors.DamagedFile:
        return
    assert stored.content_hash == small_skill().content_hash  # a byte that is not used
    assert list(bank.verify()) == ["x@1"]


def test_a_file_that_is_copied_in_becomes_known_by_being_read(bank: Bank, tmp_path: Path) -> None:
    storage.write(tmp_path / "given.h5", *small_skill().stored())
    bank.folder.mkdir()
    shutil.copy(tmp_path / "given.h5", bank.folder)
    assert bank.listing()[0].entry is not None
    assert bank.read("given").spec.name == "small"
    index = dict(json.loads((bank.folder / "index.json").read_bytes()))
    assert index["given.h5"]["offsets"]


def test_gc_sweeps_only_what_is_stale(bank: Bank) -> None:
    bank.save(small_skill(), "x")
    bank.alias("x", "best")
    stale = bank.folder / ".x.h5.0123456789abcdef.tmp"
    stale.write_bytes(b"half")
    dangling = bank.folder / "x@old.alias"
    dangling.write_bytes(b"7\n")
    foreign = bank.folder / "notes.txt"
    foreign.write_text("mine")
    assert bank.gc() == [stale.name]  # what a shipped skill is called is not for this one to say
    assert Bank(bank.folder, shipped=True).gc() == [dangling.name]
    assert foreign.exists()
    assert bank.aliases("x") == {"best": 1, "latest": 1}
    assert bank.gc() == []


def test_gc_leaves_the_aliases_of_shipped_skills_to_who_sees_them(tmp_path: Path) -> None:
    Bank(tmp_path, shipped=True).alias("point_reach_left", "best")
    storage.write(tmp_path / "point_reach_left@2.h5", *small_skill().stored())
    assert Bank(tmp_path).gc() == []
    assert Bank(tmp_path, shipped=True).gc() == []
    assert Bank(tmp_path, shipped=True).resolve("point_reach_left@best").number == 1


def test_gc_of_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no bank")
    with pytest.raises(errors.StorageError, match="cannot write to the bank"):
        Bank(tmp_path / "file").gc()
    assert Bank(tmp_path / "nothing").gc() == []


def test_gc_keeps_the_newest_the_aliased_and_the_parents(bank: Bank) -> None:
    skills = [small_skill(seed=seed) for seed in range(5)]
    for skill in skills:
        bank.save(skill, "x")
    bank.alias("x@1", "best")
    bank.save(small_skill(seed=9, parents=(skills[1].content_hash,)), "child")
    with pytest.raises(errors.InvalidArgument, match="at least 1"):
        bank.gc(keep=0)
    assert bank.superfluous(keep=1) == ["x@3", "x@4"]
    assert bank.gc(keep=1) == ["x@3", "x@4"]
    assert bank.versions("x") == [1, 2, 5]


def test_gc_removes_no_version_while_a_file_cannot_be_read(bank: Bank) -> None:
    """It may be the only good one that is removed, or a parent of what is damaged."""
    bank.save(small_skill(seed=1), "x")
    bank.save(small_skill(seed=2), "x")
    path, values = bank.path("x@2"), bank.read("x@2").parameters["noise"].tobytes()
    status, image = path.stat(), bytearray(path.read_bytes())
    image[image.index(values)] ^= 1
    path.write_bytes(image)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # the index takes it for good
    with pytest.raises(errors.StorageError, match=r"nothing was removed: x@2 cannot be read"):
        bank.gc(keep=1)
    assert bank.versions("x") == [1, 2]


def test_who_says_a_content_hash_must_have_it(bank: Bank) -> None:
    good, other = small_skill(seed=1), small_skill(seed=2)
    bank.save(good, "z")
    bank.save(small_skill(seed=3, parents=(good.content_hash,)), "kid")
    storage.write(bank.folder / "a.h5", *other.stored())
    image = (bank.folder / "a.h5").read_bytes()
    mine, theirs = (storage.parse_header(bank.path(x).read_bytes()).content_hash for x in "az")
    (bank.folder / "a.h5").write_bytes(image.replace(mine.encode(), theirs.encode(), 1))
    assert bank.resolve(f"sha256:{theirs}").reference == "z@1"
    assert bank.load(f"sha256:{theirs}").content_hash == theirs
    assert [one.reference for one in bank.lineage("kid")] == ["z@1"]


def test_who_looks_waits_for_nobody(bank: Bank) -> None:
    bank.save(small_skill(), "x")
    (bank.folder / "index.json").unlink()
    with (bank.folder / ".lock").open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        reader = Bank(bank.folder)
        assert reader.read("x").spec.name == "small"
        assert [line.reference for line in reader.listing()] == ["x@1"]


def test_numbers_come_to_an_end(bank: Bank) -> None:
    bank.save(small_skill(seed=1), "x")
    bank.path("x").rename(bank.folder / "x@999999999.h5")
    with pytest.raises(errors.StorageError, match="no version after 999,999,999"):
        bank.save(small_skill(seed=2), "x")


def test_shipped_skills_lie_under_the_users_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = tmp_path / "shipped"
    storage.write(shipped / "run.h5", *small_skill(seed=1).stored())
    monkeypatch.setattr("skillbank.bank.resources.files", lambda _: shipped)
    monkeypatch.setenv("SKILLBANK_HOME", str(tmp_path / "home"))
    bank = Bank()
    assert bank.folder == tmp_path / "home"
    assert bank.names() == ["run"]
    assert [line.shipped for line in bank.listing()] == [True]
    with pytest.raises(errors.StorageError, match="'run' is shipped with skillbank and cannot"):
        bank.remove("run")
    own = small_skill(seed=2)
    assert bank.save(own, "run") == "run@2"
    assert bank.read("run").content_hash == own.content_hash
    bank.alias("run@1", "best")
    assert bank.read("run@best").spec == bank.read("run@1").spec
    assert bank.remove("run") == ["run@2"]
    assert bank.versions("run") == [1]
    assert Bank(tmp_path / "elsewhere").names() == []
    assert Bank(tmp_path / "elsewhere", shipped=True).names() == ["run"]


def test_a_folder_that_cannot_be_written_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("not a folder")
    folder = tmp_path / "file" / "bank"
    with pytest.raises(errors.StorageError, match=r"cannot write to the bank .* Name another one"):
        Bank(folder).save(small_skill(), "x")
    monkeypatch.setenv("SKILLBANK_HOME", str(folder))
    with pytest.raises(errors.StorageError, match=r"cannot write to the bank .* Set SKILLBANK_HOM"):
        Bank().save(small_skill(), "x")


def test_looking_into_a_bank_makes_no_folder(tmp_path: Path) -> None:
    bank = Bank(tmp_path / "tpyo", shipped=True)
    assert "run_anywhere" in bank.names()
    assert bank.listing()
    bank.read("run_anywhere")
    assert bank.verify() == {}
    assert bank.gc() == []
    mistakes = (lambda: bank.remove("x"), lambda: bank.alias("x", "best"))
    for mistake in (*mistakes, lambda: bank.unalias("x@best")):
        with pytest.raises(errors.SkillNotFound):
            mistake()
    assert not bank.folder.exists()


@pytest.mark.parametrize("folder", ["s3://bucket/skills", Path("s3://bucket/skills")])
def test_a_url_is_no_folder(folder: str | Path) -> None:
    with pytest.raises(errors.StorageError, match=r"not s3://bucket/skills.*push.*pull"):
        Bank(folder)
    assert not Path("s3:").exists()


def test_a_bank_is_a_container_of_skills(bank: Bank) -> None:
    bank.save(small_skill(), "x")
    bank.save(small_skill(), "y")
    assert "x" in bank
    assert "x@1" in bank
    assert "x@2" not in bank
    assert "z" not in bank
    assert list(bank) == bank.names() == ["x", "y"]
    assert len(bank) == 2
    assert repr(bank) == f"<Bank {bank.folder}>"
    assert repr(Bank(bank.folder, shipped=True)).endswith("and the shipped skills>")


def test_an_empty_bank_is_a_bank(bank: Bank) -> None:
    assert len(bank) == 0
    assert (bank or Bank()) is bank


def test_a_bank_stays_where_it_was_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    bank = Bank("bank")
    monkeypatch.chdir("/")
    bank.save(small_skill(), "x")
    assert bank.folder == tmp_path / "bank"
    assert bank.path("x").is_file()


@pytest.mark.parametrize("shipped", [False, True])
def test_a_bank_is_the_same_in_another_process(tmp_path: Path, shipped: bool) -> None:
    bank = Bank(tmp_path / "bank", shipped=shipped)
    bank.save(small_skill(), "x")
    there = ForkingPickler.loads(ForkingPickler.dumps(bank))
    assert (repr(there), there.names()) == (repr(bank), bank.names())
    assert there.save(small_skill(seed=1), "x") == "x@2"


def test_a_file_is_looked_at_like_a_skill_of_the_bank(bank: Bank, tmp_path: Path) -> None:
    parent = small_skill(seed=1)
    bank.save(parent, "parent")
    child = small_skill(seed=2, parents=(parent.content_hash,))
    path = tmp_path / "child.h5"
    storage.write(path, *child.stored())
    assert bank.read(path).content_hash == bank.load(path).content_hash == child.content_hash
    assert bank.lineage(path) == [(1, parent.content_hash, "parent@1")]
    card = bank.show(path)
    assert card["path"] == card["reference"] == str(path)
    assert (card["versions"], card["aliases"]) == ([], {})
    assert list(bank.diff("parent", path).metadata) == ["parents"]
    assert bank.names() == ["parent"]


def test_a_skill_of_another_mujoco_is_loaded_with_a_warning(bank: Bank) -> None:
    bank.save(small_skill(versions={"mujoco": "2.0.0"}, model_hash="ab" * 32), "old")
    told = "' was made with MuJoCo 2.0.0, .*'pip install mujoco==2.0.0' installs the original"
    for load, what in ((bank.load, "old"), (Skill.load, bank.path("old"))):
        with pytest.warns(UserWarning, match=told) as warned:
            load(what)
        assert [warning.filename for warning in warned] == [__file__]
    without_physics = {"env_id": "skillbank/MultiGoal-v0", "model_hash": None}
    bank.save(small_skill(versions={"mujoco": "2.0.0"}, **without_physics), "plane")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bank.load("plane")


@pytest.mark.parametrize("text", ["3.3.0 --index-url https://evil.example", "3.3.0; sh", "$(sh)"])
def test_no_text_of_a_file_is_suggested_as_a_command(bank: Bank, text: str) -> None:
    bank.save(small_skill(versions={"mujoco": text}, model_hash="ab" * 32), "x")
    with pytest.warns(UserWarning, match="'x' was made with another version of MuJoCo") as warned:
        bank.load("x")
    assert text not in str(warned[0].message)
    assert "pip install" not in str(warned[0].message)


def test_a_skill_is_saved_by_its_own_name_unless_told_otherwise(bank: Bank) -> None:
    skill = small_skill(name="walk")
    assert bank.save(skill) == "walk@1"
    assert bank.save(skill, "stroll") == "stroll@1"
    assert bank.load("stroll").spec.name == "walk"
    with pytest.raises(errors.SkillbankError, match="asked for by its name or the Path"):
        bank.load(skill)  # type: ignore[arg-type]


def test_show_is_ready_for_json(bank: Bank) -> None:
    bank.save(small_skill(), "x")
    card = json.loads(json.dumps(bank.show("x")))
    assert card["reference"] == "x@1"
    assert card["spec"]["temperature"] == 0.1
    assert card["parameters"]["noise"] == [2, 2]


def test_listing_needs_no_torch(bank: Bank) -> None:
    import subprocess

    bank.save(small_skill(), "x")
    program = (
        "import sys; from skillbank.bank import Bank; "
        f"lines = Bank({str(bank.folder)!r}).listing(); "
        "heavy = {'torch', 'h5py', 'mujoco', 'dm_control'} & set(sys.modules); "
        "sys.exit(repr(heavy) if heavy or len(lines) != 1 else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "change",
    [
        {"env_id": "\x1b]0;pwned\x07\x1b[2J"},
        {"env_id": "two\nlines"},
        {"steps": -5},
        {"offsets": [0] * 513},
        {"parents": ["a" * 64] * 65},
        {"unknown": 0},
    ],
    ids=lambda change: next(iter(change)),
)
def test_an_index_with_what_no_file_may_hold_is_made_again(
    bank: Bank, change: dict[str, Any]
) -> None:
    bank.save(small_skill(), "x")
    index = bank.folder / "index.json"
    ((name, entry),) = json.loads(index.read_bytes())
    index.write_text(json.dumps([[name, entry | change]]))
    again = Bank(bank.folder).listing()[0].entry
    assert again is not None
    assert again.model_dump(mode="json") == entry | {"offsets": None}


def test_an_index_with_a_key_twice_is_made_again(bank: Bank) -> None:
    bank.save(small_skill(), "x")
    index = bank.folder / "index.json"
    index.write_text(index.read_text().replace('"steps":100', '"steps":100,"steps":7'))
    again = Bank(bank.folder).listing()[0].entry
    assert again is not None
    assert again.steps == 100


@pytest.mark.parametrize(
    ("start", "unit", "end"),
    [
        ("{", '"{}":0,', '"":0}'),
        ("[", '["{}",{{}}],', "0]"),
        ('[["x.h5",{"offsets":[', "0,", "0]}]]"),
        ('{"x.h5":{"offsets":[', "0,", "0]}}"),
        ('[["x.h5",{', '"{}":0,', '"":0}]]'),
    ],
    ids=["entries", "pairs", "offsets", "no pairs", "keys"],
)
def test_a_hostile_index_takes_little_memory(
    tmp_path: Path, start: str, unit: str, end: str
) -> None:
    """An error for each value, or with a copy of the whole entry, would take hundreds of bytes."""
    many = "".join(unit.format(number) for number in range(300_000))
    (tmp_path / "index.json").write_text(start + many + end)
    program = (
        "import sys; from pathlib import Path; from skillbank.bank import Bank\n"
        "status = Path('/proc/self/status')\n"
        "def peak(): return int(status.read_text().split('VmHWM:')[1].split()[0])\n"
        "before = peak(); assert Bank(Path(sys.argv[1])).listing() == []\n"
        "print(peak() - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, check=True
    )
    assert int(done.stdout) < 80_000  # KiB


def test_an_index_that_grows_too_large_stays_as_it_is(
    bank: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank.save(small_skill(seed=1), "x")
    before = (bank.folder / "index.json").read_bytes()
    monkeypatch.setattr("skillbank.bank_index.MAX_BYTES", len(before) + 1)
    bank.save(small_skill(seed=2), "y")
    assert (bank.folder / "index.json").read_bytes() == before
    again = Bank(bank.folder)
    assert [line.reference for line in again.listing()] == ["x@1", "y@1"]
    assert again.read("y").content_hash == small_skill(seed=2).content_hash


def hidden_damage(bank: Bank, reference: str) -> None:
    """Flip a bit of the HDF5 structure; the index still takes the file for the same."""
    path = bank.path(reference)
    status, image = path.stat(), bytearray(path.read_bytes())
    image[552] ^= 1
    path.write_bytes(image)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_damage_that_the_index_hides_counts_when_a_copy_is_saved_or_deleted(bank: Bank) -> None:
    for seed in (1, 2):
        bank.save(small_skill(seed=seed), "x")
    image = bank.path("x@2").read_bytes()
    hidden_damage(bank, "x@2")
    assert bank.read("x").content_hash == small_skill(seed=2).content_hash
    with pytest.raises(errors.StorageError, match=r"nothing was removed: x@2 cannot be read"):
        bank.gc(keep=1)
    assert bank.save(small_skill(seed=2), "x") == "x@3"
    hidden_damage(bank, "x@3")
    assert bank.add(image, "x") == "x@4"
    assert bank.add(image, "x") == "x@4"


@pytest.mark.parametrize("seconds", [-5, 0])
def test_a_file_from_before_1970_is_one_like_others(bank: Bank, seconds: int) -> None:
    bank.save(small_skill(), "x")
    os.utime(bank.path("x"), (seconds, seconds))
    assert bank.read("x").content_hash == small_skill().content_hash
    (line,) = bank.listing()
    assert line.problem is None
    assert bank.verify() == {}
    assert bank.gc(keep=1) == []


def test_an_older_version_saved_once_more_is_the_newest(tmp_path):
    bank, first = Bank(tmp_path), small_skill(seed=1)
    for skill in (first, small_skill(seed=2)):
        bank.save(skill, "x")
    assert bank.save(first, "x") == "x@3"
    assert bank.read("x").content_hash == first.content_hash


def test_version_one_has_one_name(tmp_path):
    storage.write(tmp_path / "x@1.h5", *small_skill().stored())
    assert Bank(tmp_path).names() == []


def test_what_is_removed_is_gone_after_a_power_cut(tmp_path, synced):
    bank = Bank(tmp_path)
    bank.save(small_skill(), "x")
    bank.alias("x", "best")
    bank.unalias("x@best")
    assert "x@best.alias" not in synced[-1][1]
    bank.remove("x")
    assert "x.h5" not in synced[-1][1]
    assert "x@1.gone" in synced[-1][1]


def test_a_number_is_used_up_before_its_version_is_deleted(tmp_path, monkeypatch):
    bank = Bank(tmp_path)
    bank.save(small_skill(), "x")
    real = durable.replace_file

    def full(path, image, **how):
        if path.suffix == ".gone":
            raise errors.StorageError("no space")
        real(path, image, **how)

    monkeypatch.setattr(durable, "replace_file", full)
    with pytest.raises(errors.StorageError, match="no space"):
        bank.remove("x")
    assert bank.read("x@1").content_hash == small_skill().content_hash


def test_a_file_of_the_same_size_is_looked_into_again(tmp_path):
    bank = Bank(tmp_path)
    bank.save(small_skill(seed=1), "x")
    other = small_skill(seed=2)
    image = storage.encode(*other.stored())
    assert len(image) == bank.path("x").stat().st_size
    durable.replace_file(bank.path("x"), image)
    os.utime(bank.path("x"), ns=(1, 1))
    assert bank.listing()[0].entry.content_hash == other.content_hash


def test_a_shipped_skill_and_the_users_own_of_one_name_are_known_apart(tmp_path, monkeypatch):
    shipped = tmp_path / "shipped"
    storage.write(shipped / "run.h5", *small_skill(seed=1).stored())
    monkeypatch.setattr("skillbank.bank.resources.files", lambda _: shipped)
    own = tmp_path / "own"
    storage.write(own / "run.h5", *small_skill(seed=2).stored())
    for name, when in (("shipped", 5), ("own", 5)):
        os.utime(tmp_path / name / "run.h5", ns=(when, when))
    told = []
    for bank in (Bank(own, shipped=True), Bank(tmp_path / "none", shipped=True)):
        told.append(bank.listing()[0].entry.content_hash)
    (own / "run.h5").unlink()
    told.append(Bank(own, shipped=True).listing()[0].entry.content_hash)
    one, two = small_skill(seed=1).content_hash, small_skill(seed=2).content_hash
    assert told == [two, one, one]


def test_a_second_name_of_version_one_is_no_version(tmp_path):
    bank = Bank(tmp_path)
    bank.save(small_skill(seed=1), "x")
    storage.write(tmp_path / "x@1.h5", *small_skill(seed=2).stored())
    assert bank.versions("x") == [1]
    assert bank.read("x@1").content_hash == small_skill(seed=1).content_hash


def test_where_something_lies_no_version_is_written(tmp_path, monkeypatch):
    """As X.h5 does, where the disk ignores case; or a link to nowhere, which no scan follows."""
    bank = Bank(tmp_path)
    bank.save(small_skill(seed=1), "x")
    before = bank.path("x").read_bytes()
    scan = bank._versions
    monkeypatch.setattr(bank, "_versions", lambda: [v for v in scan() if v.name != "x"])
    with pytest.raises(errors.StorageError, match="it exists already"):
        bank.save(small_skill(seed=2), "x")
    assert (tmp_path / "x.h5").read_bytes() == before


def test_a_listing_tells_the_latest_evaluation(tmp_path):
    from skillbank.spec import EvaluationRecord

    told = [
        EvaluationRecord(
            env_id="A-v0", episodes=2, seed=0, mean_return=r, interval=(r, r), metrics={}
        )
        for r in (1.0, 2.0)
    ]
    bank = Bank(tmp_path)
    bank.save(small_skill(evaluations=tuple(told)), "x")
    (tmp_path / "index.json").unlink()
    assert Bank(tmp_path).listing()[0].entry.evaluation == told[-1]
