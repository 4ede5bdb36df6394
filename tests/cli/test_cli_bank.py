"""The commands that keep house in a bank do what the library does, and say so."""

import json
import os

import numpy as np
import pytest
from click.testing import CliRunner

from skillbank.bank import Bank
from skillbank.cli import commands
from skillbank.skill import Skill
from skillbank.spec import SkillSpec


@pytest.fixture
def call(tmp_path):
    folder = tmp_path / "bank"

    def run(*words, code=0, stdin=None):
        done = CliRunner().invoke(commands, [*map(str, words), "--bank", str(folder)], stdin)
        assert done.exit_code == code, done.output
        return done.output

    run.bank = Bank(folder, shipped=True)
    return run


def test_export_and_import_give_the_same_skill_back(call, tmp_path):
    for kind in ("h5", "safetensors"):
        path = tmp_path / f"a.{kind}"
        call("export", "run_anywhere", path, "--format", kind)
        assert f"saved as {kind}@1" in call("import", path, "--as", kind)
        assert "the same skill" in call("diff", kind, "run_anywhere")
    original = call.bank.read("run_anywhere")
    assert call.bank.read("h5").content_hash == original.content_hash


def test_onnx_and_card_are_written(call, tmp_path):
    call("export", "run_anywhere", tmp_path, "--format", "onnx")
    assert len(list(tmp_path.glob("*.onnx"))) == 2
    call("export", "run_anywhere", tmp_path / "card.md", "--format", "card")
    assert "run_anywhere" in (tmp_path / "card.md").read_text()


def test_what_a_path_ends_with_says_the_format(call, tmp_path):
    call("export", "point_run_east", tmp_path / "east.onnx")
    written = {path.name for path in tmp_path.glob("*.onnx")}
    assert written == {"east-sampler.onnx", "east-critic.onnx"}
    call("export", "point_run_east", tmp_path / "EAST.H5")
    assert "the same skill" in call("diff", tmp_path / "EAST.H5", "point_run_east")
    for name in ("east.pt", "east", "v1.2"):
        said = call("export", "point_run_east", tmp_path / name, code=2)
        assert ".h5, .safetensors, .onnx, .md" in said
        assert not (tmp_path / name).exists()


def test_what_cannot_be_written_is_told_with_what_would_help(call, tmp_path):
    said = call("export", "point_run_east", tmp_path, "--format", "h5", code=2)
    assert "Is a directory. Name a file" in said
    (tmp_path / "file").touch()
    said = call("export", "point_run_east", tmp_path / "file" / "x.h5", code=2)
    assert "Name a file in a folder" in said
    assert "space" not in said


def test_a_file_is_shown_compared_and_exported_like_a_skill_of_the_bank(call, tmp_path):
    path = tmp_path / "theirs.h5"
    call("export", "point_run_east", path)
    assert str(path) in call("show", path)
    assert "the same skill" in call("diff", path, "point_run_east")
    call("export", path, tmp_path / "again.h5")
    assert (tmp_path / "again.h5").read_bytes() == path.read_bytes()
    assert f"{path}: good" in call("verify", path)
    path.write_bytes(path.read_bytes()[:-1])
    assert f"{path}: BAD" in call("verify", path, "run_anywhere", code=3)
    assert "no file" in call("show", tmp_path / "none.h5", code=2)


def test_aliases_are_seen_and_go_with_their_version(call):
    skill = call.bank.load("point_run_east").with_spec(name="walk")
    call.bank.save(skill, "walk")
    assert "walk@best is walk@1" in call("alias", f"sha256:{skill.content_hash}", "best")
    (line,) = (line for line in call("list").splitlines() if line.startswith("walk@1"))
    assert line.endswith("@best")
    assert "best (version 1)" in call("show", "walk")
    asked = call("remove", "walk@1", stdin="n\n")
    assert "delete walk@1, alias walk@best for good?" in asked
    assert call("remove", "walk@1", "--yes").splitlines() == [
        "walk@1 deleted",
        "alias walk@best deleted",
    ]


def test_a_bank_that_is_not_there_is_told_and_not_made(call, tmp_path):
    said = call("list")
    assert f"no bank at {call.bank.folder} yet" in said
    assert "run_anywhere" in said
    assert not call.bank.folder.exists()
    call.bank.save(call.bank.load("point_run_east"), "x")
    assert "no bank" not in call("list")


def test_versions_aliases_and_sweeping(call, tmp_path):
    skill = call.bank.load("run_anywhere")
    call.bank.save(skill, "walk")
    changed = skill.with_spec(description="another")
    call.bank.save(changed, "walk")
    assert "walk@best is walk@1" in call("alias", "walk@1", "best")
    found = json.loads(call("diff", "walk@best", "walk@2", "--json"))
    assert list(found["metadata"]) == ["description"]
    assert found["parameters"] == {}
    assert "alias walk@best deleted" in call("unalias", "walk@best")
    assert call("gc", "--keep", 1, "--dry-run") == "would remove walk@1\n"
    assert call.bank.versions("walk") == [1, 2]
    assert "--dry-run needs --keep" in call("gc", "--dry-run", code=2)
    assert "removed walk@1" in call("gc", "--keep", 1)
    assert call.bank.versions("walk") == [2]


def test_equal_values_of_different_content_are_not_called_the_same_skill(call):
    old = call.bank.read("point_run_east")  # of a release with fewer fields
    whole = SkillSpec.model_validate(
        old.spec.model_dump() | {"config": old.spec.config.model_dump()}
    )
    skill = Skill(whole, old.parameters)
    call.bank.save(skill, "whole")
    said = call("diff", "point_run_east", "whole")
    assert "the same skill" not in said
    assert f"content {old.content_hash[:12]} -> {skill.content_hash[:12]}" in said
    found = json.loads(call("diff", "point_run_east", "whole", "--json"))
    assert found["content_hashes"] == [old.content_hash, skill.content_hash]


def test_what_differs_takes_a_line_each(call):
    lines = call("diff", "run_east", "run_north").splitlines()
    assert "name: run_east -> run_north" in lines
    assert max(map(len, lines)) < 250
    (symmetries,) = (line for line in lines if line.startswith("symmetries"))
    one, _, other = symmetries.removeprefix("symmetries: ").partition(" -> ")
    assert one != other  # eight each, but not the same eight
    assert one.startswith("[8 entries")


def test_a_difference_in_lines_takes_one_line(call):
    skill = call.bank.load("point_run_east")
    call.bank.save(skill.with_spec(description="one\ntemperature: 0.1 -> 0.2\ttwo"), "x")
    call.bank.save(skill.with_spec(description="other"), "y")
    (line,) = call("diff", "x", "y").splitlines()
    assert line == r"description: one\ntemperature: 0.1 -> 0.2\ttwo -> other"


def test_damage_that_the_index_hides_is_not_exported_as_a_skill_file(call, tmp_path):
    call.bank.save(call.bank.load("point_run_east"), "walk")
    path = call.bank.path("walk")
    status, image = path.stat(), bytearray(path.read_bytes())
    image[552] ^= 1  # of the HDF5 structure
    path.write_bytes(image)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert call.bank.read("walk").spec.name == "point_run_east"
    assert f"{path}: the bytes do not match" in call("export", "walk", tmp_path / "a.h5", code=3)
    assert not (tmp_path / "a.h5").exists()


def test_push_and_pull(call, tmp_path):
    url = (tmp_path / "elsewhere").as_uri()
    assert url in call("push", "run_anywhere", url)
    assert "run_anywhere@1 is the same skill" in call("pull", "run_anywhere", url)  # it ships
    call("import", call.bank.path("run_anywhere"), "--as", "mine")
    call("push", "mine", url)
    call("remove", "mine", "--yes")
    assert "saved as mine@2" in call("pull", "mine", url)
    assert f"{url} has other@1" in call("push", "mine", url, "--as", "other")
    assert "saved as third@1" in call("pull", "other", url, "--as", "third")
    assert call.bank.read("third").content_hash == call.bank.read("mine").content_hash
    pulled = call.bank.read("mine")
    assert all(np.isfinite(value).all() for value in pulled.parameters.values())


def test_a_wrong_file_is_refused(call, tmp_path):
    wrong = tmp_path / "wrong.h5"
    wrong.write_bytes(b"no skill")
    assert "wrong.h5" in call("import", wrong, "--as", "wrong", code=3)
