"""evaluate, play, list, show, verify, remove, doctor, and the help."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

import skillbank
from skillbank import doctor, evaluation
from skillbank.cli import commands
from skillbank.cli_printing import print_evaluation
from skillbank.errors import UnsupportedEnvironment
from skillbank.evaluation import Evaluation
from skillbank.film import film
from skillbank.spec import ObservationBlock


def test_evaluate_measures_what_the_library_measures(call: Any, bank: skillbank.Bank) -> None:
    words = ["--skill", "tiny", "--env", "PointMassHallway", "--episodes", "3", "--seed", "5"]
    found = json.loads(call("evaluate", *words, "--json").stdout)
    record = skillbank.evaluate(bank.load("tiny"), "PointMassHallway", episodes=3, seed=5).record()
    assert found["mean_return"] == record.mean_return
    assert tuple(found["interval"]) == record.interval
    assert found["metrics"] == record.metrics
    assert Path(found["pictures"][0]).read_bytes().startswith(b"\x89PNG")


def test_evaluate_says_it_in_a_sentence(call: Any) -> None:
    result = call("evaluate", "--skill", "tiny", "--episodes", "8", "--out", "seen")
    assert result.stdout.startswith("return ")
    assert "net distance" in result.stdout
    assert "(8 episodes, seed 0)" in result.stdout
    assert "directions, counter-clockwise from east" in result.stdout
    assert Path("seen/traces.png").is_file()
    assert "note: " not in result.stderr


def test_evaluate_says_when_the_return_is_of_another_reward_than_the_skills(
    call: Any, bank: skillbank.Bank
) -> None:
    bank.save(bank.load("tiny").with_spec(reward="half of east"), "other")
    result = call("evaluate", "--skill", "other", "--episodes", "2")
    assert "PointMassRun's own reward; this skill is for half of east" in result.stderr


def test_evaluate_by_name_version_and_file(call: Any, bank: skillbank.Bank) -> None:
    words = ["--env", "PointMassRun", "--episodes", "2", "--json"]
    scores = {
        json.loads(call("evaluate", "--skill", name, *words).stdout)["mean_return"]
        for name in ("tiny", "tiny@1", str(bank.path("tiny")))
    }
    assert len(scores) == 1


def test_evaluations_on_two_tasks_do_not_overwrite_each_other(call: Any) -> None:
    pictures = []
    for task in ("PointMassRun", "PointMassHallway"):
        words = ["--skill", "tiny", "--env", task, "--episodes", "2", "--json"]
        pictures += json.loads(call("evaluate", *words).stdout)["pictures"]
    assert pictures == [
        "runs/evaluate/tiny/point_mass_run/traces.png",
        "runs/evaluate/tiny/point_mass_hallway/traces.png",
    ]


@pytest.fixture
def plane_skill(bank: skillbank.Bank) -> None:
    """A skill on the multi-goal plane, whose pictures need no OpenGL."""
    block = ObservationBlock(name="position", size=2)
    changed = {"observation_blocks": (block,), "env_id": "skillbank/MultiGoal-v0", "symmetries": ()}
    bank.save(bank.load("tiny").with_spec(**changed), "plane")


@pytest.mark.usefixtures("plane_skill")
def test_play_writes_a_gif(call: Any) -> None:
    from PIL import Image

    result = call("play", "--skill", "plane", "--out", "film.gif", "--episodes", "2")
    with Image.open("film.gif") as film:
        assert f"film.gif: {film.n_frames} pictures" in result.stdout  # type: ignore[attr-defined]
        assert film.n_frames > 2  # type: ignore[attr-defined]
        assert film.info["duration"] == 250  # ms: 4 pictures a second on this plane
    assert list(Path().glob(".film*")) == []


@pytest.mark.usefixtures("plane_skill")
def test_play_writes_a_film(call: Any) -> None:
    from imageio_ffmpeg import count_frames_and_secs

    result = call("play", "--skill", "plane", "--out", "deep/film.mp4", "--episodes", "2")
    frames, seconds = count_frames_and_secs("deep/film.mp4")
    assert f"deep/film.mp4: {frames} pictures" in result.stdout
    assert seconds == pytest.approx(frames / 4, abs=0.3)
    assert [path.name for path in Path("deep").iterdir()] == ["film.mp4"]
    assert "runs/play/plane/multi_goal.mp4: " in call("play", "--skill", "plane").stdout


@pytest.mark.usefixtures("plane_skill")
def test_the_same_seed_is_the_same_film(call: Any) -> None:
    for name in ("a.gif", "b.gif"):
        call("play", "--skill", "plane", "--out", name, "--seed", "7")
    assert Path("a.gif").read_bytes() == Path("b.gif").read_bytes()
    plane = skillbank.Bank().load("plane")
    for name in ("c.gif", "d.gif"):  # of one skill, whose own stream goes on
        film(plane, None, Path(name), seed=7)
        assert Path(name).read_bytes() == Path("a.gif").read_bytes()


@pytest.mark.usefixtures("plane_skill")
def test_a_film_without_end_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "MAX_STEPS", 5)
    with pytest.raises(UnsupportedEnvironment, match="in 5 steps: it needs max_episode_steps"):
        film(skillbank.Bank().load("plane"), None, Path("long.gif"))
    assert not Path("long.gif").exists()


def test_play_without_opengl_says_what_to_install(
    call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = importlib.import_module

    def broken(name: str, *rest: Any) -> Any:
        if name.startswith("mujoco."):
            raise ImportError("no EGL here")
        return load(name, *rest)

    monkeypatch.setattr(importlib, "import_module", broken)
    error = call("play", "--skill", "tiny", "--out", "film.gif", code=4).stderr
    assert "libegl1" in error
    assert not Path("film.gif").exists()


def test_play_of_what_draws_no_pictures_says_so(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def render(_: Any) -> Any:
        raise NotImplementedError  # as Gymnasium's own

    monkeypatch.setattr("skillbank.envs.engine.VectorTask.render", render)
    error = call("play", "--skill", "tiny", "--out", "film.gif", code=4).stderr
    assert "PointMassRun-v0 draws no pictures" in error


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (
            0,
            "Run-v0: ArithmeticError: an OpenGL library; without a display, set MUJOCO_GL=egl",
        ),
        (2, "draws pictures of (4, 4, 3) and of (4, 5, 3); a film needs one size"),
    ],
)
def test_play_of_what_cannot_be_drawn_says_why(
    number: int, told: str, call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []

    def render(_: Any) -> Any:
        if number == 0:
            raise ArithmeticError("an OpenGL library")
        drawn.append(np.zeros((4, 4 + len(drawn) // number, 3), np.uint8))
        return (drawn[-1],)

    monkeypatch.setattr("skillbank.envs.engine.VectorTask.render", render)
    error = call("play", "--skill", "tiny", "--out", "film.gif", code=4).stderr
    assert told in error
    assert not Path("film.gif").exists()


def test_all_metrics_of_a_task_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    values = {name: np.arange(2.0) for name in ("distance", "direction", *"abcdefghij")}
    found = Evaluation("Own-v0", 0, np.ones(2), np.ones(2, int), values)
    print_evaluation("", found)
    lines = capsys.readouterr().out.splitlines()
    assert "distance 0.5 m" in lines[0]
    assert lines[1] == ", ".join(f"{name} 0.5" for name in "abcdefgh") + ", and 2 more (--json)"
    print_evaluation("before", found)
    assert capsys.readouterr().out.splitlines()[1].startswith("         a 0.5, b 0.5")


@pytest.mark.usefixtures("plane_skill")
def test_multi_goal_evaluation_draws_figure_1(call: Any) -> None:
    words = ["--skill", "plane", "--episodes", "5", "--json"]
    pictures = json.loads(call("evaluate", *words).stdout)["pictures"]
    assert [Path(path).name for path in pictures] == ["traces.png", "figure_1.png"]


def test_list_is_one_line_for_each_skill(call: Any, bank: skillbank.Bank) -> None:
    bank.save(bank.load("tiny").with_spec(name="other"), "other")
    lines = call("list").stdout.splitlines()
    assert lines[0].split() == ["SKILL", "TASK", "STEPS", "RETURN"]
    own = [line.split() for line in lines[1:] if "shipped" not in line]
    assert own == [
        ["other@1", "PointMassRun", "400", "-"],
        ["tiny@1", "PointMassRun", "400", "-"],
    ]


def test_list_json(call: Any, bank: skillbank.Bank) -> None:
    listed = json.loads(call("list", "--json").stdout)
    tiny = next(entry for entry in listed if entry["reference"] == "tiny@1")
    assert tiny["content_hash"] == bank.read("tiny").content_hash
    assert tiny["env_id"] == "skillbank/PointMassRun-v0"
    assert not tiny["shipped"]


def test_list_goes_on_past_a_damaged_file(call: Any, bank: skillbank.Bank) -> None:
    (bank.folder / "broken.h5").write_bytes(b"nothing of the kind")
    output = call("list").stdout
    assert "cannot be used" in output
    assert "tiny@1" in output


def test_bank_option_is_another_bank(call: Any, bank: skillbank.Bank) -> None:
    skillbank.Bank("there").save(bank.load("tiny"), "elsewhere")
    assert "elsewhere@1" in call("list", "--bank", "there").stdout
    assert "elsewhere@1" not in call("list").stdout


def test_show_tells_everything(call: Any, bank: skillbank.Bank) -> None:
    record = skillbank.evaluate(bank.load("tiny"), "PointMassRun", episodes=2).record()
    parent = bank.load("tiny")
    child = parent.with_spec(parents=(str(parent.content_hash),), evaluations=(record,))
    bank.save(child, "child")
    shown = call("show", "child").stdout
    assert "made from other skills, 400 steps" in shown
    bank.save(child.with_spec(config=skillbank.FinetuneConfig()), "tuned")
    assert "fine-tuned, 400 steps" in call("show", "tuned").stdout
    assert "pretrained, 400 steps" in call("show", "tiny").stdout
    assert "velocity 2" in shown
    assert "made from    tiny@1" in shown
    grown = bank.load("child")
    bank.save(grown.with_spec(parents=(str(grown.content_hash),)), "grandchild")
    assert "made from      tiny@1" in call("show", "grandchild").stdout
    assert f"return {record.mean_return:.4g}" in shown
    assert json.loads(call("show", "child", "--json").stdout)["spec"]["steps"] == 400


def test_verify_finds_one_flipped_bit(call: Any, bank: skillbank.Bank) -> None:
    assert "tiny@1: good" in call("verify").stdout
    path = bank.path("tiny")
    image = bytearray(path.read_bytes())
    image[-100] ^= 1
    path.write_bytes(image)
    assert "tiny@1: BAD" in call("verify", code=3).stdout
    assert json.loads(call("verify", "tiny", "--json", code=3).stdout)["tiny@1"]


def test_verify_finds_a_link_to_nowhere(call: Any, bank: skillbank.Bank) -> None:
    (bank.folder / "tiny@2.h5").symlink_to("nowhere")
    told = call("verify", code=3).stdout
    assert "tiny@1: good" in told
    assert "tiny@2: BAD: no file" in told
    assert "cannot be used: no file" in call("list").stdout


def test_a_description_forges_no_line_of_show(call: Any, bank: skillbank.Bank) -> None:
    forged = "it runs\ntask         another\n\ncontent      " + 64 * "0"
    bank.save(bank.load("tiny").with_spec(description=forged), "x")
    lines = call("show", "x").stdout.splitlines()
    assert [line.split()[1] for line in lines if line.startswith(("task ", "content "))] == [
        "skillbank/PointMassRun-v0",
        bank.read("x").content_hash,
    ]
    assert "             task         another" in lines


def test_remove_asks_first(call: Any, bank: skillbank.Bank) -> None:
    assert "nothing was deleted" in call("remove", "tiny", stdin="n\n").stderr
    assert (
        "nothing was deleted; --yes skips the question" in call("remove", "tiny", code=130).stderr
    )
    assert "tiny" in bank.names()
    assert "tiny@1 deleted" in call("remove", "tiny", "--yes").stdout
    assert "tiny" not in bank.names()


def test_doctor_knows_the_bad_combination() -> None:
    assert doctor.known_problem("mujoco", "3.17.0") is None
    assert doctor.known_problem("mujoco", "3.20.1") is None
    for bad in ("3.16.0", "4.0.0", "2.3.7"):
        assert "mujoco>=3.17,<4" in str(doctor.known_problem("mujoco", bad))
    assert "not installed" in str(doctor.known_problem("torch", None))
    assert "1.0.50" in str(doctor.known_problem("dm-control", "1.0.14"))


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux")
def test_only_the_cores_that_this_process_may_use_are_counted() -> None:
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert doctor.cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)
    assert doctor.cores() == len(allowed)


def test_doctor_reports_this_machine(
    call: Any, bank: skillbank.Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mujoco

    monkeypatch.setattr(doctor, "_simulation", lambda: [doctor.Check("simulation", "runs")])
    found = {check["name"]: check for check in json.loads(call("doctor", "--json").stdout)}
    assert found["mujoco"]["found"] == mujoco.__version__
    assert found["bank"]["found"] == str(bank.folder)
    bad = [doctor.Check("rendering", "-", "install the moon")]
    monkeypatch.setattr(doctor, "_simulation", lambda: bad)
    assert "install the moon" in call("doctor", code=2).stdout


def test_doctor_tells_what_a_missing_extra_would_bring(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"onnx": None, "ray": "2.40.0"}
    monkeypatch.setattr(doctor, "_version", lambda name: versions.get(name, "1.0"))
    monkeypatch.setattr(doctor, "_simulation", list)
    told = {check.name: check for check in doctor.examine(Path())}
    assert told["[ray]"].found == "ray 2.40.0"
    assert "pip install 'skillbank[export]' provides export to ONNX" in told["[export]"].found
    assert told["[export]"].problem is None


def test_doctor_simulates() -> None:
    checks = {check.name: check for check in doctor._simulation()}
    assert checks["simulation"].problem is None
    rendering = checks["rendering"].problem  # None, or what to install
    assert rendering is None or "OpenGL" in rendering


@pytest.mark.parametrize("words", [["--help"], *([name, "--help"] for name in commands.commands)])
def test_every_command_has_help(words: list[str], call: Any) -> None:
    shown = call(*words).stdout
    assert shown.startswith("Usage:")
    assert len(shown.splitlines()) > 4


@pytest.mark.parametrize("name", commands.commands)
def test_every_path_of_every_command_may_begin_with_a_tilde(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "x").touch()
    for option in commands.commands[name].params:
        if isinstance(option.type, click.Path):
            assert option.type.convert("~/x", option, None) == tmp_path / "x"
            if not option.type.dir_okay:
                with pytest.raises(click.BadParameter, match="is a directory"):
                    option.type.convert("~", option, None)


@pytest.mark.parametrize("words", [["--help"], ["list"], ["show", "tiny"], ["pretrain", "--help"]])
def test_looking_is_light(words: list[str], bank: skillbank.Bank) -> None:
    """Neither torch nor a simulator is loaded to look at skills."""
    code = (
        "import sys; from skillbank.cli import commands\n"
        f"try: commands({words!r})\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "heavy = {'torch', 'mujoco', 'dm_control', 'matplotlib', 'scipy', 'tqdm'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
