"""The commands that keep house in a bank do what the library does, and say so."""

import json

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

    def run(*words, code=0):
        done = CliRunner().invoke(commands, [*map(str, words), "--bank", str(folder)])
        assert done.exit_code == code, done.output
        return done.output

    run.bank = Bank(folder, shipped=True)
    return run


def test_export_and_import_give_the_same_skill_back(call, tmp_path):
    for kind in ("h5", "safetensors"):
        path = tmp_path / f"a.{kind}"
        call("export", "run_anywhere", path, "--format", kind)
        assert f"kept as {kind}@1" in call("import", path, "--as", kind)
        assert "the same skill" in call("diff", kind, "run_anywhere")
    original = call.bank.read("run_anywhere")
    assert call.bank.read("h5").content_hash == original.content_hash


def test_onnx_and_card_are_written(call, tmp_path):
    call("export", "run_anywhere", tmp_path, "--format", "onnx")
    assert len(list(tmp_path.glob("*.onnx"))) == 2
    call("export", "run_anywhere", tmp_path / "card.md", "--format", "card")
    assert "run_anywhere" in (tmp_path / "card.md").read_text()


def test_versions_aliases_and_sweeping(call, tmp_path):
    skill = call.bank.load("run_anywhere")
    call.bank.save(skill, "walk")
    changed = skill.with_spec(description="another")
    call.bank.save(changed, "walk")
    assert "walk@best is walk@1" in call("alias", "walk@1", "best")
    found = json.loads(call("diff", "walk@best", "walk@2", "--json"))
    assert list(found["metadata"]) == ["description"]
    assert found["parameters"] == {}
    assert "no more" in call("unalias", "walk@best")
    assert "removed" in call("gc", "--keep", 1)
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


def test_push_and_pull(call, tmp_path):
    url = (tmp_path / "elsewhere").as_uri()
    assert url in call("push", "run_anywhere", url)
    assert "kept as" in call("pull", "run_anywhere", url)
    pulled = call.bank.read("run_anywhere")
    assert all(np.isfinite(value).all() for value in pulled.parameters.values())


def test_a_wrong_file_is_refused(call, tmp_path):
    wrong = tmp_path / "wrong.h5"
    wrong.write_bytes(b"no skill")
    assert "wrong.h5" in call("import", wrong, "--as", "wrong", code=3)
