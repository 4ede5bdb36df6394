"""The command ``skillbank compose``, called from within."""

import json
import math

import pytest
from click.testing import CliRunner

import skillbank
from skillbank.cli import commands
from skillbank.cli_compose import compose_command
from skillbank.config import Architecture

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


def test_one_skill_is_not_written_over_itself(call, pair):
    assert "say with --as" in call("east", *QUICK, code=2).output
    assert skillbank.Bank().load("east").content_hash == pair[0].content_hash
    result = call(f"sha256:{pair[0].content_hash[:8]}", "north", *QUICK)
    assert result.stdout.startswith(f"sha256_{pair[0].content_hash[:8]}_north@1")


def test_a_soft_or_may_be_told_that_goals_are_shared(call):
    words = ("north", "east", "--how", "or", "--check", *QUICK)
    with pytest.warns(skillbank.compose.CompositionWarning, match="--shared-goals"):
        call(*words, code=4)
    assert "'north | east': they" in call(*words, "--shared-goals").stdout


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


def test_mistakes_end_with_one_message(call):
    assert (
        "2 skills need --weight as many times, got 1"
        in call("north", "east", "--weight", "1", code=2).output
    )
    assert "not negative" in call("north", "east", "--weight", "1", "--weight", "-1", code=2).output
    assert (
        "has no block 'heading'"
        in call("north", "east", "--turn", "0", "--turn", "90", "--check", code=4).output
    )
    assert "Did you mean 'north'" in call("nort", "east", code=2).output
    assert "cannot be the name" in call("north", "east", "--as", "n e", code=2).output


def test_another_temperature_needs_to_be_rescaled(call, pair):
    skillbank.Bank().save(pair[1].at_temperature(0.5), "warm")
    assert "at one temperature they do" in call("east", "warm", "--check", code=4).output
    call("east", "warm", "--check", "--rescale", *QUICK)
