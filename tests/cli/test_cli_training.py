"""pretrain and finetune: what they call, write, print and resume."""

import dataclasses
import json
import os
import shlex
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import QUICK_FINETUNE, QUICK_PRETRAIN  # type: ignore[import-not-found]

import skillbank
from skillbank import cli_progress
from skillbank.bank_folder import checked_name
from skillbank.cli_printing import say
from skillbank.cli_settings import (
    bare_reference,
    configured,
)
from skillbank.cli_signals import StopRequest
from skillbank.config import finetune_recipe, shortened
from skillbank.durable import alone
from skillbank.errors import SkillbankError
from skillbank.finetuning import recipe_for
from skillbank.names import finetuned_name, pretrained_name
from skillbank.spec import CurvePoint
from skillbank.training import Progress


def test_pretrain_keeps_a_measured_skill(call: Any, bank: skillbank.Bank) -> None:
    result = call("pretrain", "--env", "PointMassRun", "--as", "mine", *QUICK_PRETRAIN)
    spec = bank.spec("mine")
    assert spec.steps == 400
    assert spec.updates > 0
    assert spec.architecture.critic_hidden == (16, 16)
    assert spec.evaluations[0].episodes == 4
    assert "mine@1: 400 steps" in result.stdout
    folder = Path("runs/mine")
    assert (folder / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "traces.png").read_bytes().startswith(b"\x89PNG")
    assert not (folder / "checkpoint.npz").exists()


def test_pretrain_prints_json_and_nothing_else(call: Any) -> None:
    result = call("pretrain", "--env", "PointMassRun", "--as", "mine", "--json", *QUICK_PRETRAIN)
    found = json.loads(result.stdout)
    assert found["skill"] == "mine@1"
    assert found["after"]["episodes"] == 4
    assert all(Path(path).is_file() for path in found["pictures"])


def test_it_is_told_where_a_skill_takes_the_name_of_one_that_ships(call: Any) -> None:
    words = ["pretrain", "--env", "PointMassRun", *QUICK_PRETRAIN]
    told = call(*words, "--as", "run_north").stderr
    assert "'run_north' now means your own skill; the shipped one is 'run_north@1'" in told
    assert "your own skill" not in call(*words, "--as", "mine").stderr


def test_a_task_is_made_with_keywords(call: Any, bank: skillbank.Bank) -> None:
    reach = ["--env", "PointMassReach", "--with", "max_episode_steps=9"]
    call("pretrain", *reach, "--with", "goals=right,up", "--as", "mine", *QUICK_PRETRAIN)
    made = {"goals": ("right", "up"), "max_episode_steps": 9}
    assert bank.spec("mine").env_kwargs == made
    words = ["--skill", "mine", *reach, "--with", "goals=down", "--as", "other"]
    call("finetune", *words, *QUICK_FINETUNE)
    other = bank.load("other")
    assert other.spec.env_kwargs == made | {"goals": "down"}
    measured = skillbank.evaluate(other, "PointMassReach", episodes=4, **other.spec.env_kwargs)
    assert other.spec.evaluations[0].mean_return == pytest.approx(measured.mean_return)
    look = ["evaluate", "--skill", "other", "--episodes", "4", "--json"]
    found = [
        json.loads(call(*look, *more).stdout)["mean_return"]
        for more in ([], ["--with", "max_episode_steps=5"])
    ]
    shorter = skillbank.evaluate(other, episodes=4, max_episode_steps=5)
    assert found == pytest.approx([measured.mean_return, shorter.mean_return])
    assert "max_episode_steps=9" in call("show", "other").stdout


def test_finetune_shows_before_and_after_and_what_was_lower(
    call: Any, bank: skillbank.Bank
) -> None:
    result = call("finetune", "--skill", "tiny", "--env", "PointMassUMaze", *QUICK_FINETUNE)
    lines = result.stdout.splitlines()
    scores = {line.split()[0]: float(line.split()[2].rstrip(",")) for line in lines[:-3]}
    assert list(scores)[:: len(scores) - 1] == ["before", "after"]
    assert scores.get("lowest", -np.inf) <= min(scores["before"], scores["after"])
    assert "success" in lines[0]
    parent = bank.read("tiny").content_hash
    assert bank.spec("tiny.point_mass_u_maze").parents == (parent,)
    assert Path("runs/tiny.point_mass_u_maze/traces.png").is_file()


@pytest.mark.parametrize(("dip", "told"), [(-9.0, True), (9.0, False)])
def test_lowest_is_told_where_it_is(
    dip: float, told: bool, call: Any, monkeypatch: pytest.MonkeyPatch, tiny_skill: skillbank.Skill
) -> None:
    point = CurvePoint(steps=7, updates=1, seconds=1.0, mean_return=dip, temperature=0.1)
    new = tiny_skill.with_spec(learning_curve=(point,))
    monkeypatch.setattr("skillbank.finetuning.finetune", lambda *_args, **_named: new)
    evaluation = skillbank.evaluate(tiny_skill, "PointMassRun", episodes=1)
    evaluation = dataclasses.replace(evaluation, returns=np.array([1.0]))
    monkeypatch.setattr("skillbank.evaluation.evaluate", lambda *_args, **_named: evaluation)
    shown = call("finetune", "--skill", "tiny", "--env", "PointMassRun").stdout
    assert ("lowest   return -9, at 7 steps" in shown) == told


def test_seconds_are_measured_where_no_episode_ends(call: Any) -> None:
    words = ["pretrain", "--env", "Pendulum-v1", "--as", "mine", *QUICK_PRETRAIN]
    found = json.loads(call(*words, "--json").stdout)  # 100 steps of each copy, an episode has 200
    assert found["lowest"] is None
    assert found["seconds"] > 0.0


def test_finetune_json_and_paper_schedule(call: Any, bank: skillbank.Bank) -> None:
    words = ["--skill", "tiny", "--env", "PointMassHallway", "--schedule", "paper", "--as", "x"]
    found = json.loads(call("finetune", *words, "--json", *QUICK_FINETUNE).stdout)
    assert found["before"]["metrics"]["progress"] > 0
    assert isinstance(found["lowest"], float)
    assert bank.spec("x").config.schedule == "paper"  # type: ignore[union-attr]


def test_before_is_the_evaluation_of_the_skill_itself(call: Any, bank: skillbank.Bank) -> None:
    words = ["--skill", "tiny", "--env", "PointMassHallway", "--seed", "3"]
    found = json.loads(call("finetune", *words, "--json", *QUICK_FINETUNE).stdout)
    alone = skillbank.evaluate(bank.load("tiny"), "PointMassHallway", episodes=4, seed=3)
    assert found["before"]["mean_return"] == alone.mean_return


def test_a_skill_file_will_do_for_a_name(call: Any, tiny_skill: skillbank.Skill) -> None:
    tiny_skill.save("my skill (1).h5")
    words = ["--skill", "my skill (1).h5", "--env", "PointMassHallway"]
    result = call("finetune", *words, *QUICK_FINETUNE)
    assert "my_skill_1_.point_mass_hallway@1" in result.stdout


def test_pretrain_without_options_is_run_anywhere(
    call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[Any, dict[str, Any]]] = []

    def learn(*args: Any, **named: Any) -> None:
        calls.append((args, named))
        raise SkillbankError("enough")

    monkeypatch.setattr("skillbank.pretraining.pretrain", learn)
    call("pretrain", code=2)
    (env_id, config), named = calls[0]
    assert (env_id, named["name"]) == ("skillbank/QuadrupedRun-v0", "run_anywhere")
    assert config == skillbank.config.recipe(env_id)


def test_finetune_without_options_is_the_narrow_hallway(call: Any) -> None:
    result = call("finetune", "--skill", "tiny", code=4)
    assert "tiny.quadruped_hallway_narrow" in result.stderr
    assert "does not fit skillbank/QuadrupedHallwayNarrow-v0" in result.stderr


# Stopping and going on.


@pytest.fixture
def stops_at(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often the training may still ask whether to stop."""
    left = [10**9]

    def asked(self: StopRequest) -> bool:
        left[0] -= 1
        return self.made or left[0] < 0

    monkeypatch.setattr(StopRequest, "__call__", asked)
    return left


def test_a_stopped_training_goes_on_where_it_was(
    call: Any, bank: skillbank.Bank, stops_at: list[int]
) -> None:
    words = ["pretrain", "--env", "PointMassRun", "--as", "mine", *QUICK_PRETRAIN]
    stops_at[0] = 60
    stopped = call(*words, code=130)
    again = shlex.join(["skillbank", *words, "--resume"])
    assert again in stopped.stderr
    assert "mine" not in bank.names()
    assert Path("runs/mine/checkpoint.npz").is_file()

    stops_at[0] = 10**9
    refused = call(*words, code=2)
    assert again in refused.stderr
    assert "checkpoint.npz" in refused.stderr

    call(*shlex.split(again)[1:])
    assert bank.spec("mine").steps == 400
    assert not Path("runs/mine/checkpoint.npz").exists()


def test_a_tilde_that_the_shell_left_is_the_home_folder_to_the_end(
    call: Any, bank: skillbank.Bank, stops_at: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(Path("home").absolute()))
    words = ["pretrain", "--env", "PointMassRun", "--out=~/run", "--bank=~/bank", "--as", "mine"]
    stops_at[0] = 60
    stopped = call(*words, *QUICK_PRETRAIN, code=130)
    assert Path("home/run/checkpoint.npz").is_file()
    stops_at[0] = 10**9
    call(*shlex.split(stopped.stderr.splitlines()[-1])[1:])
    assert skillbank.Bank("home/bank").spec("mine").steps == 400
    assert not Path("~").exists()


def test_a_short_training_can_be_made_longer(
    call: Any, bank: skillbank.Bank, stops_at: list[int]
) -> None:
    quick = [*QUICK_FINETUNE]
    for setting in ("learning_starts=100", "anneal_steps=200"):  # so both follow from --steps
        at = quick.index(setting)
        del quick[at - 1 : at + 1]
    words = ["finetune", "--skill", "tiny", "--env", "PointMassUMaze", "--as", "mine", *quick]
    stops_at[0] = 60
    call(*words, code=130)
    stops_at[0] = 10**9
    words[words.index("--steps") + 1] = "600"
    call(*words, "--resume")
    spec = bank.spec("mine")
    assert isinstance(spec.config, skillbank.FinetuneConfig)
    assert spec.steps == spec.config.total_steps == 600
    assert spec.config.learning_starts == 100  # as it began: a quarter of 400


def test_what_is_set_at_a_resume_must_be_as_it_began(call: Any, stops_at: list[int]) -> None:
    words = ["pretrain", "--env", "PointMassRun", "--as", "mine", *QUICK_PRETRAIN]
    stops_at[0] = 60
    call(*words, code=130)
    words[words.index("learning_starts=100")] = "learning_starts=50"
    assert "learning_starts: 100, now 50" in call(*words, "--resume", code=2).stderr


def test_fewer_steps_shorten_the_schedule_too() -> None:
    maze = finetune_recipe("QuadrupedUMaze")
    brief = shortened(maze, 4_000)
    assert brief.anneal_steps == pytest.approx(maze.anneal_steps * 4_000 / maze.total_steps, abs=1)
    assert brief.learning_starts == 1_000
    assert 0 < brief.frozen_updates < (4_000 - 1_000) // maze.steps_per_update // 2
    assert configured(brief, ["anneal_steps=9"]).anneal_steps == 9


def test_finetune_in_fewer_steps_gets_to_its_last_alpha(call: Any, bank: skillbank.Bank) -> None:
    quick = [word for word in QUICK_FINETUNE if word != "anneal_steps=200"]
    quick.pop(quick.index("frozen_updates=2") - 2)  # the --set of what is left out
    call("finetune", "--skill", "tiny", "--env", "PointMassUMaze", "--as", "mine", *quick)
    spec = bank.spec("mine")
    assert isinstance(spec.config, skillbank.FinetuneConfig)
    assert spec.config.anneal_steps == round(12_000 * 400 / 16_000)
    assert spec.temperature == pytest.approx(spec.config.final_temperature)


def test_resume_without_a_checkpoint(call: Any) -> None:
    words = ["pretrain", "--env", "PointMassRun", "--resume", *QUICK_PRETRAIN]
    told = call(*words, code=2).stderr
    assert "start without --resume" in told
    assert "the bank has" not in told
    shipped = call("pretrain", "--resume", *QUICK_PRETRAIN, code=2).stderr  # run_anywhere
    assert "the bank has" not in shipped
    words += ["--as", "mine"]
    call(*words[:3], *words[4:])
    assert "the bank has mine@1; start without --resume" in call(*words, code=2).stderr


def test_steps_in_powers_of_ten_and_few_of_them(call: Any, bank: skillbank.Bank) -> None:
    words = ["pretrain", "--env", "PointMassRun", "--as", "mine", *QUICK_PRETRAIN]
    words[words.index("--steps") + 1] = "1.2e3"
    assert "hardly anything is learned" not in call(*words).stderr
    assert bank.spec("mine").steps == 1200
    words[words.index("--steps") + 1] = "101"
    assert "warning: only 0 updates: hardly anything is learned" in call(*words).stderr


def test_a_second_training_of_one_name_has_a_folder_of_its_own(
    call: Any, stops_at: list[int]
) -> None:
    words = ["pretrain", "--env", "PointMassRun", "--as", "mine", *QUICK_PRETRAIN]
    call(*words)
    first = {path.name: path.read_bytes() for path in Path("runs/mine").iterdir()}
    stops_at[0] = 60
    call(*words, code=130)
    assert Path("runs/mine_2/checkpoint.npz").is_file()
    stops_at[0] = 10**9
    assert "runs/mine_2/checkpoint.npz" in call(*words, code=2).stderr  # it is unfinished
    call(*words, "--resume")
    assert Path("runs/mine_2/traces.png").is_file()
    assert {path.name: path.read_bytes() for path in Path("runs/mine").iterdir()} == first


@pytest.mark.parametrize("folder", ["runs/mine", "runs/mine_2", "elsewhere"])
def test_a_folder_with_a_training_at_work_is_refused(folder: str, call: Any) -> None:
    for path in {Path("runs/mine"), Path(folder)}:
        path.mkdir(parents=True)
        (path / "events").touch()
    before = Path("runs/mine/events").stat()
    words = ["pretrain", "--env", "PointMassRun", "--as", "mine", *QUICK_PRETRAIN]
    words += ["--out", folder] if folder == "elsewhere" else []
    with alone(Path(folder)):
        error = call(*words, code=2).stderr
    assert f"another training is at work in {folder}; use --as or --out" in error
    assert Path("runs/mine/events").stat() == before
    call(*words)


@pytest.mark.usefixtures("signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_measuring_keeps_the_skill(
    number: int, call: Any, bank: skillbank.Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure(*_args: Any, **_named: Any) -> None:
        os.kill(os.getpid(), number)
        signal.pause()

    monkeypatch.setattr("skillbank.evaluation.evaluate", measure)
    words = ["pretrain", "--env", "PointMassRun", "--with=max_episode_steps=9", "--as", "mine"]
    words += ["--bank", str(bank.folder), *QUICK_PRETRAIN]
    result = call(*words, code=130)
    assert result.stderr.splitlines()[-1].split() == [
        *("skillbank", "evaluate", "--skill", "mine@1", "--env", "PointMassRun"),
        *("--with=max_episode_steps=9", "--bank", str(bank.folder)),
    ]
    assert "'mine@1' is in the bank. To evaluate it:" in result.stderr
    assert bank.spec("mine").evaluations == ()


@pytest.mark.usefixtures("signals")
def test_a_signal_while_saving_waits(
    call: Any, bank: skillbank.Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = skillbank.Bank.save

    def interrupted(self: skillbank.Bank, skill: skillbank.Skill, name: str) -> str:
        os.kill(os.getpid(), signal.SIGINT)
        return save(self, skill, name)

    monkeypatch.setattr(skillbank.Bank, "save", interrupted)
    call("pretrain", "--env", "PointMassRun", "--as", "mine", *QUICK_PRETRAIN, code=130)
    assert len(bank.spec("mine").evaluations) == 1


# Progress.


def progress(steps: int, mean_return: float = 1.5) -> Progress:
    return Progress(steps, 1000, steps // 10, steps / 50, mean_return, 0.1, {"q": 2.0})


def test_without_a_terminal_a_line_every_so_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(cli_progress, "PLAIN_SECONDS", 0.0)
    with cli_progress.Watch(tmp_path, said.append) as watch:
        watch(progress(100, float("nan")))
        watch(progress(500))
    assert said[0].startswith("100/1000 steps, 50 a second, return -, alpha 0.1, 18 s left")
    assert said[1].startswith("500/1000 steps, 50 a second, return 1.5, alpha 0.1, 10 s left")


def test_without_a_terminal_quiet_in_between(tmp_path: Path) -> None:
    said: list[str] = []
    with cli_progress.Watch(tmp_path, said.append) as watch:
        watch(progress(100))
        watch(progress(200))
    assert said == []


def test_in_a_terminal_a_live_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with cli_progress.Watch(tmp_path, lambda _line: None) as watch:
        watch(progress(100))
        watch(progress(1000))
    shown = capsys.readouterr().err
    assert "100%" in shown
    assert "return 1.5, alpha 0.1" in shown
    assert "left" in shown


def test_an_evaluation_is_counted(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    with cli_progress.counting(7, said.append) as report:
        report(3, 20)  # quiet at first
        monkeypatch.setattr(cli_progress, "PLAIN_SECONDS", 0.0)
        report(4, 21)
    assert said == ["4/7 episodes, step 21"]
    assert capsys.readouterr().err == ""  # it is not a terminal


def test_in_a_terminal_the_steps_of_an_evaluation_are_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setattr("tqdm.tqdm.monitor_interval", 0)
    bars: list[Any] = []
    with cli_progress.counting(7, bars.append) as report:
        time.sleep(1.1)  # it is quiet for a second
        report(6, 20)
        time.sleep(0.11)
        report(6, 33)  # no episode has ended since
        say("a warning")
    shown = capsys.readouterr().err
    assert "6/7 episodes, step 33" in shown
    assert "\ra warning\n" in shown  # on a line of its own
    assert shown.endswith("\r")  # nothing is left of it

    def interrupted() -> None:
        with cli_progress.counting(7, bars.append) as report:
            time.sleep(1.1)
            report(1, 2)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert capsys.readouterr().err.endswith("\n")  # after ^C the line cannot be cleared
    assert bars == []


def test_tensorboard_has_the_figures(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with cli_progress.Watch(tmp_path, lambda _line: None) as watch:
        watch(progress(100))
        watch(progress(200))
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    found = {tag: [e.value for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    assert found["return"] == [1.5, 1.5]
    assert found["update/q"] == [2.0, 2.0]
    assert {"temperature", "steps_per_second", "updates"} <= set(found)


def test_a_log_that_cannot_be_written_does_not_end_the_training(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said: list[str] = []
    with cli_progress.Watch(tmp_path / "file" / "below", said.append) as watch:
        watch(progress(100))
        watch(progress(200))
    assert len(said) == 1
    assert "no more logs" in said[0]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(42, "42 s"), (200, "3 min 20 s"), (7500, "2 h 5 min"), (float("inf"), "an unknown time")],
)
def test_durations(seconds: float, text: str) -> None:
    assert cli_progress.duration(seconds) == text


# Settings.


def test_names_of_skills() -> None:
    assert pretrained_name("skillbank/QuadrupedRun-v0") == "run_anywhere"
    assert pretrained_name("Ant-v5") == "ant_v5"
    assert pretrained_name("日本-v1") == "v1"
    assert pretrained_name("日本") == "skill"
    assert finetuned_name("a", "QuadrupedUMaze") == "a.quadruped_u_maze"
    assert finetuned_name("x" * 128, "mine/Reach-v0") == "x" * 117 + ".mine_reach"
    assert checked_name(pretrained_name("Long" * 50)) == ("long_" * 50)[:128]
    for given, name in {
        "walk@2": "walk_v2",
        "some/folder/walk.h5": "walk",
        "a b/.my skill.h5": "my_skill",
        "naïve@best": "na_ve_vbest",
        "???.h5": "skill",
    }.items():
        assert checked_name(bare_reference(given)) == name


def test_settings_of_every_kind() -> None:
    config = configured(
        skillbank.PretrainConfig(),
        [
            "batch_size=64",
            "objective=stein",
            "architecture.critic_hidden=[8]",
            "architecture.sampler_hidden=32,16",
            "symmetry=False",
            "first_temperature=None",
        ],
    )
    assert config.architecture.sampler_hidden == (32, 16)
    assert config.first_temperature is None
    assert (config.batch_size, config.objective, config.symmetry) == (64, "stein", False)
    assert config.architecture.critic_hidden == (8,)
    assert config.architecture.critics == 2  # the other fields stay


def test_settings_as_people_write_them() -> None:
    words = ["symmetry=False", "architecture.critic_hidden=32,16", "n_step_until=None"]
    words += ["architecture.sampler_hidden=8", "level_critics=True"]
    config = configured(skillbank.PretrainConfig(n_step_until=9), words)
    assert (config.symmetry, config.level_critics, config.n_step_until) == (False, True, None)
    assert config.architecture.critic_hidden == (32, 16)
    assert config.architecture.sampler_hidden == (8,)


@pytest.mark.parametrize("command", [["pretrain"], ["finetune", "--skill", "point_run_east"]])
def test_the_settings_are_listed_with_what_they_mean(command: list[str], call: Any) -> None:
    lines = call(*command, "--env", "PointMassRun", "--set", "help").stdout.splitlines()
    settings = [line.partition("  # ")[0] for line in lines]
    config: Any = skillbank.config.recipe("PointMassRun")
    if command != ["pretrain"]:  # in the skill's own units: its discount is not the default
        config = recipe_for(skillbank.Bank(shipped=True).spec("point_run_east"), "PointMassRun")
        assert config.discount != finetune_recipe("PointMassRun").discount
    assert configured(config, settings) == config
    assert all(line.partition("  # ")[2].strip() for line in lines)
    assert len(lines) == len(type(config).model_fields) + (command == ["pretrain"]) * 6
    objective = next(line for line in lines if line.startswith("objective="))
    assert objective.endswith("one of stein, divergence, map")
    assert not Path("runs").exists()


def test_settings_listed_for_actions_of_one_component_are_those_that_it_learns_by(
    call: Any,
) -> None:
    lines = call("pretrain", "--env", "Pendulum-v1", "--set", "help").stdout.splitlines()
    listed = configured(skillbank.PretrainConfig(), [line.partition("  # ")[0] for line in lines])
    quick = [word for word in QUICK_PRETRAIN if word not in ("--episodes", "4")]
    call("pretrain", "--env", "Pendulum-v1", *quick, "--episodes", "1")
    learned = skillbank.Bank().spec("pendulum_v1").config
    assert listed.architecture.sampler == learned.architecture.sampler == "noise"
    assert listed.objective == learned.objective == "stein"
    assert listed.proposals == learned.proposals == "uniform"


@pytest.mark.parametrize(
    ("setting", "text"),
    [
        ("batch_sise=64", "no setting 'batch_sise'. Did you mean 'batch_size'?"),
        ("architecture=x", "no setting 'architecture'"),
        ("batch_size", "'--set key=value'"),
        ("batch_size=many", "batch_size: Input should be a valid integer"),
        ("batch_size=-1", "batch_size: Input should be greater than or equal to 1, got -1"),
        ("discount=NaN", "discount"),
    ],
)
def test_settings_that_cannot_be(setting: str, text: str) -> None:
    with pytest.raises(SkillbankError) as raised:
        configured(skillbank.PretrainConfig(), [setting])
    assert text in str(raised.value)


def test_settings_that_do_not_go_together() -> None:
    with pytest.raises(SkillbankError) as raised:
        configured(skillbank.PretrainConfig(), ["total_steps=10"])
    text = (
        "learning_starts must be below total_steps: nothing would be learned "
        "(skillbank.shortened(config, steps), or --steps, scales both)"
    )
    assert str(raised.value) == text
