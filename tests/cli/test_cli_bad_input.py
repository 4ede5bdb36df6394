"""A user's mistakes: one message that says what would have worked, the right exit code, no loss."""

import errno
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from conftest import QUICK_FINETUNE, QUICK_PRETRAIN  # type: ignore[import-not-found]
from gymnasium.spaces import Box, Dict, Discrete

import skillbank


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["evalute"], 2, "no command 'evalute'. Did you mean 'evaluate'?"),
        (["pretrain", "--sed", "1"], 2, "--seed"),
        (["pretrain", "--steps", "0"], 2, "--steps"),
        (["pretrain", "--steps", "-5"], 2, "--steps"),
        (["pretrain", "--steps", "many"], 2, "--steps"),
        (["pretrain", "--set", "total_steps=9"], 2, "learning_starts must be below total_steps"),
        (["pretrain", "--seed", "-1"], 2, "--seed"),
        (["pretrain", "--seed", "1.5"], 2, "--seed"),
        (["pretrain", "--preset", "papr"], 2, "paper"),
        (["pretrain", "--threads", "0"], 2, "--threads"),
        (["pretrain", "--steps", "1.5e0"], 2, "--steps"),
        (["pretrain", "--steps", "1e99"], 2, "--steps"),
        (["pretrain", "--as", ""], 2, "'' cannot be the name of a skill"),
        (["finetune", "--skill", "tiny", "--as", ""], 2, "'' cannot be the name of a skill"),
        (["pretrain", "--as", "a/b"], 2, "'a/b' cannot be the name of a skill"),
        (["pretrain", "--as", "x", "--set", "batchsize=3"], 2, "Did you mean 'batch_size'?"),
        (["pretrain", "--device", "cuda:99"], 2, "device 'cuda:99' cannot be used; available: cpu"),
        (["pretrain", "--device", "toaster"], 2, "device 'toaster' cannot be used; available: cpu"),
        (["pretrain", "--env", "QuadrupdRun"], 4, "Did you mean 'QuadrupedRun'?"),
        (["pretrain", "--env", "no_such_module:X-v0"], 2, "cannot import 'no_such_module'"),
        (["pretrain", "--env", "a/tasks.py:X-v0"], 2, "from its folder, give its module: tasks:X"),
        (["pretrain", "--env", "json:mine/ANT-v9"], 4, "Did you mean 'Ant-v5'?"),
        (["pretrain", "--env", "CartPole-v1"], 4, "Discrete(2)"),
        (["finetune"], 2, "--skill"),
        (["finetune", "--skill", "tinny"], 2, "Did you mean 'tiny'?"),
        (["finetune", "--skill", "missing.h5"], 2, "missing.h5"),
        (["finetune", "--skill", "tiny", "--env", "PointMasRun"], 4, "Did you mean 'PointMassRun'"),
        (["finetune", "--skill", "tiny", "--schedule", "anchor"], 2, "anchored"),
        (["evaluate", "--skill", "tiny", "--env", "MultiGoal"], 4, "does not fit skillbank/Multi"),
        (["evaluate", "--skill", "tiny", "--episodes", "0"], 2, "--episodes"),
        (["play", "--skill", "tiny", "--with", "render_mode=human"], 2, "'render_mode' is not for"),
        (["evaluate", "--skill", "tiny", "--with", "skill=x"], 2, "'skill' is not for the task"),
        (["show", "x", "--bank", "~no_such_user/x"], 2, "no bank at ~no_such_user/x yet"),
        (["compose", "tiny", "tiny", "--turn", "nan", "--turn", "0"], 2, "finite numbers of degr"),
        (["show", "tinny"], 2, "Did you mean 'tiny'?"),
        (["show", "sha256:12"], 2, "its first 8 to 64 hexadecimal digits"),
        (["show", "far/walk.safetensors"], 2, "'skillbank import far/walk.safetensors --as NAME'"),
        (["remove", "tinny"], 2, "Did you mean 'tiny'?"),
        (["verify", "tinny"], 2, "Did you mean 'tiny'?"),
        (["list", "--bank", "s3://bucket/skills"], 2, "not s3://bucket/skills: copy skills"),
        (["play", "--skill", "tiny", "--with", "report=1"], 4, "it has no 'report'"),
        (["play", "--skill", "tiny", "--out", "film.avi"], 2, "a film is .mp4 or .gif"),
    ],
)
def test_one_message_and_the_exit_code(
    words: list[str], code: int, text: str, call: Any, bank: skillbank.Bank
) -> None:
    result = call(*words, code=code)
    assert text in result.stderr
    assert result.stdout == ""
    assert bank.names() == [*skillbank.Bank(shipped=True).names()]
    assert not Path("runs").exists()


def test_a_damaged_skill_is_exit_code_3(call: Any, bank: skillbank.Bank) -> None:
    path = bank.path("tiny")
    path.write_bytes(path.read_bytes()[:-7])
    for words in (["finetune"], ["evaluate"], ["play"]):
        assert str(path) in call(*words, "--skill", "tiny", code=3).stderr
    for name in ("text.h5", "text.txt"):
        Path(name).write_text("not a skill")
        assert f"{name}: not a skill file" in call("evaluate", "--skill", name, code=3).stderr


def test_both_layouts_of_a_misfit_are_shown(call: Any) -> None:
    error = call("finetune", "--skill", "tiny", "--env", "QuadrupedRun", code=4).stderr
    assert "velocity" in error
    assert "gravity" in error
    assert "<--" in error


def test_a_bank_that_cannot_be_written_is_refused_before_training(
    call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skillbank.pretraining.pretrain", lambda *a, **k: pytest.fail("trained"))
    Path("file").touch()
    words = ["pretrain", "--env", "PointMassRun"]
    result = call(*words, "--bank", "file/below", code=2)
    assert f"cannot write to {Path('file/below').absolute()}" in result.stderr
    assert "--bank" in result.stderr
    result = call(*words, "--out", "file/below", code=2)
    assert "cannot write to file/below" in result.stderr
    assert "--out" in result.stderr


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Makes the disk full wherever a path begins with one of the given folders."""
    full: list[str] = []
    replace = os.replace

    def refuse(source: Any, target: Any, **named: Any) -> None:
        if any(os.path.abspath(target).startswith(folder) for folder in full):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target, **named)

    monkeypatch.setattr(os, "replace", refuse)
    return lambda folder: full.append(os.path.abspath(folder))


def test_a_full_disk_does_not_lose_the_skill(
    call: Any, bank: skillbank.Bank, full_disk: Callable[[Path], None]
) -> None:
    full_disk(bank.folder)
    words = ["pretrain", "--env", "PointMassRun", "--as", "mine", *QUICK_PRETRAIN]
    result = call(*words, code=2)
    assert "No space left on device" in result.stderr
    assert "the trained skill is in runs/mine/mine.h5" in result.stderr
    assert skillbank.Skill.load("runs/mine/mine.h5").spec.steps == 400


def test_pictures_that_cannot_be_written_are_only_missed(
    call: Any, bank: skillbank.Bank, full_disk: Callable[[Path], None]
) -> None:
    full_disk(Path("runs"))
    words = ["pretrain", "--env", "PointMassRun", "--as", "mine", *QUICK_PRETRAIN]
    result = call(*words)
    assert "warning: cannot write runs/mine/traces.png" in result.stderr
    assert "mine" in bank.names()


def test_ctrl_c_while_pictures_are_drawn_says_where_the_skill_is(
    call: Any, bank: skillbank.Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drawing(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("skillbank.figures.learning_curve", drawing)
    words = ["pretrain", "--env", "PointMassRun", "--as", "mine", *QUICK_PRETRAIN]
    assert "'mine@1' is in the bank" in call(*words, code=130).stderr
    assert "mine" in bank.names()


# Environments that misbehave.


class Misbehaving(gymnasium.Env[Any, Any]):
    """Well-behaved for 40 steps."""

    observation_space = Box(-1.0, 1.0, (2,), np.float32)
    action_space: gymnasium.Space[Any] = Box(-1.0, 1.0, (2,), np.float32)

    def __init__(self, how: str) -> None:
        self.how, self.now = how, 0

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> Any:
        self.now += 1
        obs, reward = np.zeros(2, np.float32), 0.0
        if self.now == 40:
            if self.how == "nan":
                obs[1] = np.nan
            if self.how == "reward":
                reward = float("inf")
            if self.how == "shape":
                obs = np.zeros(3, np.float32)
            if self.how == "error":
                raise ZeroDivisionError("a bug")
        return obs, reward, False, self.now % 10 == 0, {}


@pytest.fixture
def misbehaving(request: pytest.FixtureRequest) -> Iterator[str]:
    name = f"Misbehaving{request.param.title()}-v0"
    gymnasium.register(name, lambda: Misbehaving(request.param), max_episode_steps=1_000)
    yield name
    del gymnasium.registry[name]


@pytest.mark.parametrize(
    ("misbehaving", "text"),
    [
        ("nan", "step 40: the final observation of copy 0 is not finite"),
        ("reward", "step 40: the reward of copy 0 is not finite"),
        ("shape", r"copy 0 returned an observation of shape \(3,\)"),
        ("error", rf"step 40: {re.escape(__file__)}:\d+: ZeroDivisionError: a bug"),
    ],
    indirect=["misbehaving"],
)
def test_an_environment_that_breaks_in_the_middle(misbehaving: str, text: str, call: Any) -> None:
    result = call("pretrain", "--env", misbehaving, "--as", "mine", *QUICK_PRETRAIN, code=4)
    assert re.search(text, result.stderr)
    assert "what was learned is in runs/mine/checkpoint.npz" in result.stderr
    assert f"pretrain --env {misbehaving}" in result.stderr
    with np.load("runs/mine/checkpoint.npz") as saved:
        networks = [name for name in saved if name.startswith(("critic/", "sampler/"))]
        assert networks
        assert all(np.isfinite(saved[name]).all() for name in networks)
        assert b'"steps": 156' in saved["meta"].tobytes()  # 39 good steps of four copies


@pytest.mark.parametrize(
    ("space", "which", "text"),
    [
        (Dict(a=Box(-1.0, 1.0, (2,))), "observation_space", "FlattenObservation"),
        (Box(0, 255, (8, 8, 3), np.uint8), "observation_space", "one-dimensional Box"),
        (Discrete(3), "action_space", "Discrete(3)"),
        (Box(-np.inf, np.inf, (2,)), "action_space", "finite bounds"),
    ],
)
def test_spaces_that_cannot_be_learned_on(
    space: gymnasium.Space[Any], which: str, text: str, call: Any
) -> None:
    class Odd(Misbehaving):
        def __init__(self) -> None:
            super().__init__("not")
            setattr(self, which, space)

    gymnasium.register("Odd-v0", Odd)
    try:
        assert text in call("pretrain", "--env", "Odd-v0", code=4).stderr
    finally:
        del gymnasium.registry["Odd-v0"]


def test_a_task_of_the_users_own_by_its_module(call: Any) -> None:
    Path("my_tasks_for_this_test.py").write_text(
        "import gymnasium\n"
        "gymnasium.register('Mine-v0', 'gymnasium.envs.classic_control.pendulum:PendulumEnv',"
        " max_episode_steps=20)\n"
    )
    words = ["pretrain", "--env", "my_tasks_for_this_test:Mine-v0", *QUICK_PRETRAIN]
    assert "mine@1" in call(*words).stdout
    words = ["pretrain", "--env", "my_tasks_for_this_test:", *QUICK_PRETRAIN]
    assert "name the task too: my_tasks_for_this_test:ID" in call(*words, code=2).stderr


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("goals", "'--with goals' should be '--with key=value'"),
        ("2=3", "'--with 2=3' should be '--with key=value'"),
        ("seed=3", "'seed' is an option: --seed"),
    ],
)
def test_keywords_that_are_none(given: str, told: str, call: Any) -> None:
    assert told in call("evaluate", "--skill", "tiny", "--with", given, code=2).stderr


def test_a_task_without_a_time_limit_is_told_at_the_start(call: Any) -> None:
    pendulum = "gymnasium.envs.classic_control.pendulum:PendulumEnv"
    gymnasium.register("Endless-v0", pendulum)
    words = ["pretrain", "--env", "Endless-v0", *QUICK_PRETRAIN]
    try:
        call(*words, "--with", "max_episode_steps=20")  # a warning would be an error
        told = call(*words, "--set", "learning_starts=500", code=2).stderr
        assert "learning_starts" in told
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("skillbank.evaluation.MAX_STEPS", 30)
            with pytest.warns(UserWarning, match="Endless-v0 declares no max_episode_steps"):
                told = call(*words).stderr
    finally:
        del gymnasium.registry["Endless-v0"]
    assert "logs in" in told.splitlines()[0]
    assert "could not be evaluated: Endless-v0 has not ended an episode in 30 steps" in told


def test_a_keyword_that_the_task_does_not_have(call: Any) -> None:
    words = ["--env", "PointMassReach", "--with", "goals=left,middle"]
    error = call("pretrain", *words, *QUICK_PRETRAIN, code=4).stderr
    assert "cannot be made with goals=['left', 'middle']: goals must name some of" in error


def test_a_skills_own_task_by_its_module(call: Any, bank: skillbank.Bank) -> None:
    Path("tasks_of_another_test.py").write_text(
        "import gymnasium\n"
        "gymnasium.register('Swing-v0', 'gymnasium.envs.classic_control.pendulum:PendulumEnv',"
        " max_episode_steps=20)\n"
    )
    words = ["pretrain", "--env", "tasks_of_another_test:Swing-v0", *QUICK_PRETRAIN]
    assert "swing@1" in call(*words).stdout
    light = bank.load("swing").with_spec(env_kwargs={"g": 0.5})
    bank.save(light, "light")
    look = ["evaluate", "--skill", "light", "--episodes", "3", "--json"]
    own, named = (call(*look, "--env", f"tasks_of_another_test:{e}") for e in ("", "Swing-v0"))
    returns = [json.loads(one.stdout)["mean_return"] for one in (own, named)]
    told = [skillbank.evaluate(light, "Swing-v0", episodes=3, g=g).mean_return for g in (0.5, 10.0)]
    assert returns == pytest.approx(told)
    assert returns[0] != returns[1]


def test_modules_of_tasks_are_named_once(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "other"):
        Path(f"tasks_{name}.py").write_text(
            "import gymnasium\n"
            f"gymnasium.register('{name}/Swing-v0', max_episode_steps=9,\n"
            "    entry_point='gymnasium.envs.classic_control.pendulum:PendulumEnv')\n"
        )
    monkeypatch.setenv("SKILLBANK_TASKS", "tasks_one, tasks_other")
    assert "one_swing@1" in call("pretrain", "--env", "one/Swing-v0", *QUICK_PRETRAIN).stdout
    call("evaluate", "--skill", "one_swing", "--episodes", "2")
    call("evaluate", "--skill", "one_swing", "--episodes", "2", "--env", "other/Swing-v0")
    monkeypatch.setenv("SKILLBANK_TASKS", "no_such_tasks")
    error = call("evaluate", "--skill", "tiny", code=2).stderr
    assert "cannot import 'no_such_tasks' of SKILLBANK_TASKS: " in error


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("broken_syntax", "x = 1\ndef f(:\n", "broken_syntax.py:2: SyntaxError: "),
        ("broken_name", "x = 1\n\nx + y\n", "broken_name.py:3: NameError: name 'y' is not"),
        ("broken_import", "import nothing_like_it\n", "broken_import.py:1: ModuleNotFoundError: "),
    ],
)
def test_a_module_that_cannot_be_imported(name: str, text: str, told: str, call: Any) -> None:
    Path(f"{name}.py").write_text(text)
    error = call("pretrain", "--env", f"{name}:Mine-v0", code=2).stderr
    assert f"cannot import '{name}': " in error
    assert told in error


def test_a_task_whose_module_is_not_named(call: Any, bank: skillbank.Bank) -> None:
    bank.save(bank.load("tiny").with_spec(env_id="Nobodys-v0"), "mine")
    error = call("evaluate", "--skill", "mine", code=4).stderr
    assert "If a module of yours registers it: --env MODULE:Nobodys-v0" in error


def test_a_noise_fed_skill_cannot_be_anchored(call: Any, bank: skillbank.Bank) -> None:
    words = ["pretrain", "--env", "PointMassRun", "--as", "noisy", *QUICK_PRETRAIN]
    call(*words, "--set", "architecture.sampler=noise", "--set", "objective=stein",
         "--set", "proposals=uniform", "--set", "particles=4")  # fmt: skip
    words = ["finetune", "--skill", "noisy", "--env", "PointMassHallway", *QUICK_FINETUNE]
    stopped = call(*words, "--schedule", "anchored", code=4)
    assert "schedule 'paper' (--schedule paper)" in stopped.stderr
    assert stopped.stdout == ""  # it was not evaluated first
    assert "logs in" not in stopped.stderr


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("symmetry=no", "symmetry: Input should be a valid boolean"),
        ("total_steps=9", "learning_starts must be below total_steps: nothing would be learned"),
    ],
)
def test_a_wrong_setting_is_told_alone(setting: str, told: str, call: Any) -> None:
    stderr = call("pretrain", "--set", setting, code=2).stderr
    assert f"error: {told}" in stderr
    assert "{" not in stderr
