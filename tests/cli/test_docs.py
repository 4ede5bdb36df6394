"""The README is run: its Python, its commands, its links; and CI runs its command for the tests."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from skillbank.cli import commands

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def calls() -> list[list[str]]:
    """Every ``skillbank ...`` in the README's shell blocks."""
    lines = [part for block in blocks("bash") for line in block.splitlines() for part in [line]]
    words = [shlex.split(part, comments=True) for line in lines for part in line.split("&&")]
    return [found[1:] for found in words if found and Path(found[0]).name == "skillbank"]


def test_the_python_runs(tmp_path: Path) -> None:
    first, *others = blocks("python")
    assert 25 <= len(first.splitlines()) <= 40
    code = "\n".join((first, *others))
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "roam.PointMassHallway" in done.stdout
    before, after = map(float, re.findall(r"([0-9.]+) m along the hallway", done.stdout))
    assert after > before + 1.0  # the README says 2.1 m
    assert "hallway@1 ['hallway']" in done.stdout
    assert "'0.5 point_run_east + 0.5 point_run_north': " in done.stdout


def test_there_are_commands() -> None:
    upkeep = {"show", "verify", "remove", "unalias", "gc"}
    assert {words[0] for words in calls()} == set(commands.commands) - upkeep


@pytest.mark.parametrize("words", calls(), ids=" ".join)
def test_every_command_is_one(words: list[str]) -> None:
    command = commands.commands[words[0]]
    assert isinstance(command, click.Command)
    command.make_context(words[0], words[1:])  # an unknown option is an error


def test_every_link_leads_somewhere() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert target.startswith("https://") or (ROOT / target).is_file(), target
    for target in re.findall(r"`((?:docs|envs)/[^`]+)`", README):
        assert (ROOT / target).is_file(), target


def test_ci_runs_the_command_for_the_tests() -> None:
    lines = [line for block in blocks("bash") for line in block.splitlines()]
    pattern = re.search(r"grep '(.*)' README.md", (ROOT / ".ci" / "run").read_text())
    assert pattern is not None
    assert len([line for line in lines if re.search(pattern[1], line)]) == 1


def test_constraints_pin_what_the_project_needs() -> None:
    text = (ROOT / "constraints.txt").read_text()
    pinned = dict(line.split("==") for line in text.splitlines() if "==" in line)
    needed = re.search(
        r"^dependencies = \[(.*?)^\]", (ROOT / "pyproject.toml").read_text(), re.S | re.M
    )
    assert needed is not None
    names = re.findall(r'"([a-z0-9-]+)', needed[1])
    assert len(names) > 10
    assert set(names) <= set(pinned)
    assert "://" not in text
