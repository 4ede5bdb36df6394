"""The README is run: its Python, its commands, its links; and CI runs its command for the tests."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
from skillbank.envs import ENV_IDS

from skillbank.cli import commands
from skillbank.task import Task

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def calls() -> list[list[str]]:
    """Every ``skillbank ...`` in the README's shell blocks."""
    lines = [part for block in blocks("bash") for line in block.splitlines() for part in [line]]
    words = [shlex.split(part, comments=True) for line in lines for part in line.split("&&")]
    return [found[1:] for found in words if found and Path(found[0]).name == "skillbank"]


def test_the_python_runs(tmp_path: Path) -> None:
    found = blocks("python")
    assert 25 <= len(found[0].splitlines()) <= 40
    printed = run("\n".join(found), tmp_path)
    assert "roam.point_mass_hallway" in printed
    before, after = map(float, re.findall(r"([0-9.]+) m along the hallway", printed))
    assert after > before + 2.0  # the README says 2.8 m
    maze = re.search(r"(\d+)% of the episodes come to the target of the maze", printed)
    assert maze is not None
    assert int(maze[1]) >= 90
    assert "hallway@1 ['hallway']" in printed
    assert "'0.5 point_run_east + 0.5 point_run_north': " in printed


def test_the_guide_to_training_runs(tmp_path: Path) -> None:
    guide = (ROOT / "docs" / "training.md").read_text()
    printed = run("\n".join(blocks("python", guide)), tmp_path)
    *_, reach, gentle = printed.splitlines()
    last = reach.split()
    assert last[:2] == ["mine/Reach-v0,", "speed=0.2"]
    assert float(last[2]) < 0.3  # m; at random it is about 1
    assert float(gentle) > 150.0  # `roam` has some 143
    assert (tmp_path / "traces.png").stat().st_size > 1_000
    assert (tmp_path / "hallway.gif").stat().st_size > 1_000


def test_the_guide_to_banks_runs(tmp_path: Path) -> None:
    guide = (ROOT / "docs" / "banks.md").read_text()
    first, _, last = blocks("python", guide)  # the middle one needs a bucket
    ours = 'skill = skillbank.Bank().load("point_run_east")\n'
    first = first.replace("bank = skillbank.Bank()\n", 'bank = skillbank.Bank("mine")\n' + ours)
    first = first.replace('"sha256:f7d1739b"', '"sha256:" + skill.content_hash')
    first = first.replace('Path("theirs.h5")', 'bank.path("hallway@1")')
    run(first + 'bank.save(skill, "hallway")\n' + last, tmp_path)
    assert (tmp_path / "hallway.md").is_file()


def run(code: str, folder: Path) -> str:
    """What a program prints that must not warn."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_there_are_commands() -> None:
    upkeep = {"show", "verify", "remove", "unalias", "gc"}
    assert {words[0] for words in calls()} == set(commands.commands) - upkeep


@pytest.mark.parametrize("words", calls(), ids=" ".join)
def test_every_command_is_one(words: list[str]) -> None:
    command = commands.commands[words[0]]
    assert isinstance(command, click.Command)
    command.make_context(words[0], words[1:])  # an unknown option is an error


def test_the_table_of_tasks_has_all_of_them_with_their_sizes() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \| (\d+) \| (\d+) \| (\d+) \|", (ROOT / "docs" / "tasks.md").read_text(), re.M
    )
    made = {name: Task(name, 1) for name, *_ in rows}
    assert rows == [
        (name, *map(str, (task.observation_size, task.action_size, task.max_episode_steps)))
        for name, task in made.items()
    ]
    assert {task.env_id for task in made.values()} == set(ENV_IDS)


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
