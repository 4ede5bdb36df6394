"""A skill of a few seconds, and the command line called from within."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import skillbank
from skillbank.cli import commands
from skillbank.config import Architecture

SMALL = {
    "architecture.critic_hidden": "[16, 16]",
    "architecture.sampler_hidden": "[16, 16]",
    "architecture.couplings": "2",
    "architecture.coupling_hidden": "8",
}
QUICK = ["--steps", "400", "--set", "learning_starts=100", "--set", "batch_size=16"]
QUICK += ["--set", "num_envs=4", "--episodes", "4"]
QUICK_PRETRAIN = QUICK + [word for k, v in SMALL.items() for word in ("--set", f"{k}={v}")]
QUICK_FINETUNE = [*QUICK, "--set", "anneal_steps=200", "--set", "frozen_updates=2"]


@pytest.fixture(scope="session")
def tiny_skill() -> skillbank.Skill:
    """A point mass that hardly learned anything."""
    config = skillbank.PretrainConfig(
        architecture=Architecture(
            critic_hidden=(16, 16), sampler_hidden=(16, 16), couplings=2, coupling_hidden=8
        ),
        total_steps=400,
        learning_starts=100,
        batch_size=16,
        num_envs=4,
    )
    return skillbank.pretrain("PointMassRun", config, name="tiny")


@pytest.fixture
def bank(
    tiny_skill: skillbank.Skill, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> skillbank.Bank:
    """A bank with that skill, in an empty present folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SKILLBANK_HOME", str(tmp_path / "bank"))
    bank = skillbank.Bank()
    bank.save(tiny_skill, "tiny")
    return bank


@pytest.fixture
def call(bank: skillbank.Bank) -> Callable[..., Result]:
    """The command line; whatever is not an exit by its own will is raised."""

    def run(*words: str, code: int = 0, stdin: str | None = None) -> Result:
        result = CliRunner().invoke(commands, words, input=stdin)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        return result

    return run


@pytest.fixture
def signals() -> Iterator[None]:
    """Gives the signals back as they were: a stopped command leaves them ignored."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
