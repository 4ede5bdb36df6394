"""The command ``skillbank compose``, called from within."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import skillbank
from skillbank.cli import commands
from skillbank.cli_compose import compose_command
from skillbank.compose import Certificate, Composed
from skillbank.compose.making import CompositionWarning
from skillbank.config import Architecture
from skillbank.durable import alone
from skillbank.errors import Interrupted

SMALL = Architecture(
    critic_hidden=(16, 16), sampler_hidden=(16, 16), couplings=2, coupling_hidden=8
)


@pytest.fixture(scope="module")
def pair():
    config = skillbank.PretrainConfig(
        architecture=SMALL, total_steps=160, learning_starts=64, batch_size=16, num_envs=8
    )
    return [
        skillbank.pretrain("PointMassRunToward", config, name=name, env_kwargs={"direction": angle})
        for name, angle in (("east", 0.0), ("north", math.pi / 2))
    ]


@pytest.fixture
def call(pair, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SKILLBANK_HOME", str(tmp_path / "bank"))
    for skill in pair:
        skillbank.Bank().save(skill, skill.spec.name)

    def run(*words, code=0):
        if "compose" not in commands.commands:
            commands.add_command(compose_command)
        result = CliRunner().invoke(commands, ["compose", *words])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        return result

    return run


QUICK = ("--steps", "320", "--episodes", "2")


def test_two_skills_become_one_that_knows_its_parents(call, pair, tmp_path):
    result = json.loads(
        call("north", "east", "--as", "northeast", "--correct", "--json", *QUICK).stdout
    )
    assert result["skill"] == "northeast@1"
    assert result["reward"] == "0.5 r[north] + 0.5 r[east]"
    assert result["certificate"]["corrected"]
    skill = skillbank.Bank().load("northeast")
    assert set(skill.spec.parents) == {one.content_hash for one in pair}
    assert skill.content_hash == result["content_hash"]
    assert (tmp_path / result["correction"]).is_file()
    again = call("north", "east", "--check", "--correction", result["correction"], *QUICK)
    assert "corrected" in again.stdout


def test_checking_learns_nothing(call, tmp_path):
    text = call("north", "east", "--check", *QUICK).stdout
    assert "'0.5 north + 0.5 east': they" in text
    assert "From 2 episodes" in text
    assert skillbank.Bank(shipped=False).names() == ["east", "north"]
    assert not (tmp_path / "runs").exists()
    text = call(
        "north", "east", "--how", "sum", "--weight", "1", "--weight", "-0.5", "--check", *QUICK
    ).stdout
    assert "north - 0.5 east" in text
    rather = ("--how", "sum", "--weight", "1", "--weight", "-0.5", "--check", "--json")
    found = json.loads(call("north", "east", *rather, *QUICK).stdout, parse_constant=pytest.fail)
    assert found["certificate"]["overlap"] is None


def test_a_module_may_be_named_for_the_skills_own_task(call):
    assert "From 2 episodes" in call("north", "east", "--env", "json:", "--check", *QUICK).stdout


def test_mistakes_end_with_one_message(call):
    assert (
        "2 skills need --weight once each" in call("north", "east", "--weight", "1", code=2).output
    )
    assert "not negative" in call("north", "east", "--weight", "1", "--weight", "-1", code=2).output
    assert (
        "has no block 'heading'"
        in call("north", "east", "--turn", "0", "--turn", "90", "--check", code=4).output
    )
    assert "use only one" in call("north", "east", "--check", "--correct", code=2).output
    assert "x>=2" in call("north", "east", "--steps", "1", code=2).output
    assert "Did you mean 'north'" in call("nort", "east", code=2).output
    assert "cannot be the name" in call("north", "east", "--as", "n e", code=2).output


def test_another_temperature_needs_to_be_rescaled(call, pair):
    skillbank.Bank().save(pair[1].at_temperature(0.5), "warm")
    assert "they would at the same temperature" in call("east", "warm", "--check", code=4).output
    call("east", "warm", "--check", "--rescale", *QUICK)


def test_a_name_of_its_own(call, tmp_path):
    text = call("north", *QUICK, code=2).output
    assert "a composition of 'north' alone needs a name: --as NAME" in text
    references = [skillbank.Bank().show(name)["content_hash"] for name in ("north", "east")]
    text = call(*(f"sha256:{one}" for one in references), *QUICK, code=2).output
    assert text.rstrip().endswith("name it with --as")
    skillbank.Bank().load("east").save(tmp_path / "other.h5")
    done = json.loads(call("north", "other.h5", "--json", *QUICK).stdout)
    assert done["skill"] == "north_other@1"
    assert skillbank.Bank(shipped=False).names() == ["east", "north", "north_other"]


def test_what_is_said_is_said_in_options(call):
    with pytest.warns(CompositionWarning, match="--shared-goals, says"):
        text = call("north", "east", "--how", "or", "--check", code=4).output
    assert "say so by any_of(..., shared_goals=True) or --shared-goals" in text
    text = call("north", "east", "--how", "or", "--shared-goals", "--check", *QUICK).output
    assert "From 2 episodes" in text
    assert "--shared-goals needs --how or" in call("north", "east", "--shared-goals", code=2).output
    assert "degrees" in call("--help").output


def test_a_poor_certificate_names_the_option():
    e = np.full(4, 1.0)
    poor = Certificate("a & b", 0.1, 0.99, e, 50.0 * e, 0.0, 50.0, 1.0, False, 9.0)
    assert "and --correct learns what" in poor.text("--correct")
    assert "and corrected() learns what" in str(poor)


def test_a_stopped_distillation_says_what_is_kept(call, monkeypatch, tmp_path):
    def interrupted(*_args, **_named):
        raise Interrupted("interrupted")

    monkeypatch.setattr(Composed, "distill", interrupted)
    text = call("north", "east", *QUICK, code=130).output
    assert "the unfinished distillation was not saved" in text
    words = ["north", "east", "--as", "both", *QUICK]
    text = call(*words, "--correct", code=130).output
    kept = tmp_path / "runs" / "both" / "correction.npz"
    assert kept.is_file()
    again = ["skillbank", "compose", *words, "--correction", "runs/both/correction.npz"]
    assert text.splitlines()[-1].strip() == " ".join(again)


def test_a_correction_that_could_not_be_saved_is_told(call, monkeypatch):
    def interrupted(*_args, **_named):
        error = Interrupted("interrupted")
        error.add_note("the disk is full")
        raise error

    monkeypatch.setattr(Composed, "corrected", interrupted)
    text = call("north", "east", "--correct", *QUICK, code=130).output
    assert text.rstrip().endswith("stopped, but the disk is full")


def test_a_correction_that_did_not_begin_is_not_offered(call, monkeypatch):
    def interrupted(*_args, **_named):
        raise Interrupted("interrupted")

    monkeypatch.setattr(Composed, "corrected", interrupted)
    Path("old").mkdir()
    Path("old/correction.npz").write_bytes(b"of another run")
    for words in ([], ["--out", "old"]):
        text = call("north", "east", "--correct", *words, *QUICK, code=130).output
        assert text.rstrip().endswith("stopped before anything was learned; nothing was saved")


def test_each_composition_has_a_folder_of_its_own(call, tmp_path):
    words = ("north", "east", "--as", "both", *QUICK)
    call(*words)
    first = {path.name: path.read_bytes() for path in (tmp_path / "runs/both").iterdir()}
    assert len(first) > 1
    with alone(tmp_path / "runs/both"):
        assert "is at work in runs/both; use --as or --out" in call(*words, code=2).output
    call(*words)
    assert {path.name: path.read_bytes() for path in (tmp_path / "runs/both").iterdir()} == first
    assert len(list((tmp_path / "runs/both_2").iterdir())) == len(first)
