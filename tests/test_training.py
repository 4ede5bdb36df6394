"""The loop: determinism, checkpoints, what ends an episode, symmetries, and what goes wrong."""

import dataclasses
import errno
import io
import json
import math

import numpy as np
import pytest
import small_worlds
import torch

import skillbank
from skillbank import checkpoint
from skillbank.agent import Agent
from skillbank.archives import arrays_of
from skillbank.config import Architecture, PretrainConfig
from skillbank.errors import (
    Interrupted,
    InvalidArgument,
    SkillbankError,
    StorageError,
    TrainingDiverged,
    UnsupportedEnvironment,
)
from skillbank.pretraining import pretrain, temperature_at
from skillbank.replay import Batch
from skillbank.soft_value import soft_value
from skillbank.spec import Symmetry
from skillbank.task import Task
from skillbank.training import Hooks, Training

assert small_worlds  # registers the environments

TINY = Architecture(critic_hidden=(16,), sampler_hidden=(16,), couplings=2, coupling_hidden=4)
SMALL = {
    "architecture": TINY,
    "num_envs": 4,
    "batch_size": 16,
    "replay_capacity": 500,
    "learning_starts": 40,
    "total_steps": 400,
}


def training(env_id="SmallWorld/Plane-v0", *, seed=0, env_kwargs=None, **changes):
    config = PretrainConfig(**(SMALL | changes))
    task = Task(env_id, config.num_envs, **(env_kwargs or {}))
    sizes = (task.observation_size, task.action_size)
    agent = Agent(config.architecture, config, *sizes, config.temperature, seed)
    return Training(
        agent,
        task,
        config,
        seed=seed,
        schedule=lambda _agent, _steps: True,
        warm=False,
        level=config.level_critics,
    )


def state(run):
    """Everything that a checkpoint keeps, as arrays and numbers, but the wall clock."""
    arrays = {}
    for part, network in run.agent.networks().items():
        arrays |= {f"{part}/{name}": value for name, value in network.arrays().items()}
    for part in ("critic_optimiser", "sampler_optimiser"):
        for index, moments in getattr(run.agent, part).state_dict()["state"].items():
            arrays |= {f"{part}/{index}/{k}": v.numpy().copy() for k, v in moments.items()}
    arrays["replay"] = run.replay.rows[: len(run.replay)].numpy().copy()
    arrays["generator"] = run.agent.generator.get_state().numpy().copy()
    counts = (run.steps, run.agent.updates, run.debt, run.replay.added, list(run.returns))
    curve = [(point.steps, point.updates, point.mean_return) for point in run.curve]
    return arrays, (*counts, curve, run.rng.bit_generator.state)


def assert_same(one, other):
    assert one[0].keys() == other[0].keys()
    for name, value in one[0].items():
        np.testing.assert_array_equal(value, other[0][name], err_msg=name)
    assert one[1] == other[1]


def stop_after(steps, run):
    return Hooks(should_stop=lambda: run.steps >= steps)


# Determinism.


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"noise_sigma": 0.3, "n_step": 3, "target_period": 5},
        {
            "architecture": TINY.model_copy(update={"sampler": "noise"}),
            "objective": "stein",
            "particles": 4,
            "proposals": "uniform",
        },
    ],
    ids=["default", "noise and n-step", "paper"],
)
def test_the_same_seed_learns_the_same_bit_for_bit(changes):
    runs = [training(**changes) for _ in range(2)]
    for run in runs:
        run.run(Hooks())
    assert runs[0].agent.updates == (400 - 40) // 8
    assert_same(state(runs[0]), state(runs[1]))
    other = training(seed=1, **changes)
    other.run(Hooks())
    assert not np.array_equal(state(other)[0]["replay"], state(runs[0])[0]["replay"])


# Checkpoints.


def test_a_resumed_training_has_everything_but_the_simulation(tmp_path):
    """Networks, optimisers, replay, both random streams and all counts go on bit for bit.

    The simulation does not: its episodes start anew, so that what is collected next differs.
    """
    first = training()
    with pytest.raises(Interrupted):
        first.run(
            dataclasses.replace(stop_after(200, first), checkpoint=tmp_path / "checkpoint.npz")
        )
    second = training()
    checkpoint.load(second, tmp_path / "checkpoint.npz")
    first.replay.end_episodes()  # as a resume does: no transition spans the gap
    assert first.steps == 200
    assert first.agent.updates > 0
    assert_same(state(first), state(second))
    for _ in range(5):  # and they learn the same from the same memory
        for run in (first, second):
            run.agent.update(run._batch())
    assert_same(state(first), state(second))

    resumed = training()
    resumed.run(Hooks(checkpoint=tmp_path / "checkpoint.npz", resume=True))
    whole = training()
    whole.run(Hooks())
    assert (resumed.steps, resumed.agent.updates) == (whole.steps, whole.agent.updates)
    assert resumed.replay.added == whole.replay.added
    assert math.isfinite(resumed.curve[-1].mean_return)


def test_in_segments_a_resumed_training_equals_an_uninterrupted_one(tmp_path):
    """Episodes start anew where a segment ends, and a stop loses no more than a segment."""
    segments = Hooks(segment_steps=160)
    whole = training()
    whole.run(segments)
    path = tmp_path / "checkpoint.npz"
    stopped = training()
    with pytest.raises(Interrupted):
        stopped.run(
            dataclasses.replace(stop_after(280, stopped), segment_steps=160, checkpoint=path)
        )
    resumed = training()
    resumed.run(dataclasses.replace(segments, checkpoint=path, resume=True))
    assert_same(state(whole), state(resumed))


def test_a_curve_has_its_points_also_in_short_segments():
    brief = {"total_steps": 1_000, "learning_starts": 900, "env_id": "SmallWorld/Errand-v0"}
    curves = []
    for segment in (None, 24):
        run = training(env_kwargs={"length": 1}, **brief)
        run.run(Hooks(segment_steps=segment))
        curves.append([point.steps for point in run.curve])
    assert curves[0] == curves[1]
    assert len(curves[0]) > 150


def test_a_training_may_be_resumed_for_longer_but_not_as_another(tmp_path):
    path = tmp_path / "checkpoint.npz"
    training().run(Hooks(checkpoint=path))
    training(total_steps=800).run(Hooks(checkpoint=path, resume=True))
    with pytest.raises(SkillbankError, match=r"started differently.*discount: 0\.99, now 0\.9"):
        checkpoint.load(training(discount=0.9), path)
    with pytest.raises(SkillbankError, match="seed: 0, now 3"):
        checkpoint.load(training(seed=3), path)
    with pytest.raises(SkillbankError, match="env_id: SmallWorld/Plane-v0, now"):
        checkpoint.load(training("skillbank/MultiGoal-v0"), path)
    with pytest.raises(SkillbankError, match="is at 800 steps; total_steps=200 is less"):
        checkpoint.load(training(total_steps=200), path)
    other = training()
    other.parents = ("ab" * 32,)
    with pytest.raises(SkillbankError, match="parent: None, now abab"):
        checkpoint.load(other, path)


def test_a_resumed_training_has_the_same_environment(tmp_path):
    path = tmp_path / "checkpoint.npz"
    made = {"good_steps": 1_000, "what": "crash"}
    run = training("SmallWorld/Broken-v0", env_kwargs=made, **noise_fed())
    run.run(Hooks())
    checkpoint.save(run, path)
    same = {"good_steps": np.int64(1_000), "what": "crash"}
    checkpoint.load(training("SmallWorld/Broken-v0", env_kwargs=same, **noise_fed()), path)
    other = training("SmallWorld/Broken-v0", env_kwargs=made | {"seed": 9}, **noise_fed())
    with pytest.raises(SkillbankError, match=r"env_kwargs: .*'seed': 9"):
        checkpoint.load(other, path)


def test_a_resumed_training_is_where_its_schedule_says(tmp_path):
    path = tmp_path / "checkpoint.npz"
    run = training()
    run.run(Hooks())
    checkpoint.save(run, path)
    again = training()

    def schedule(agent, steps):
        agent.temperature = 1.0 / steps
        return True

    again.schedule = schedule
    again.run(Hooks(checkpoint=path, resume=True))  # nothing is left to do
    assert again.agent.temperature == 1.0 / 400


def test_alpha_goes_from_its_first_value_to_the_skills_in_half_of_the_steps():
    changes = {"temperature": 0.1, "first_temperature": 0.001}
    config = PretrainConfig(**(SMALL | changes))
    told = [temperature_at(config, steps, 400) for steps in (0, 50, 100, 200, 399)]
    np.testing.assert_allclose(told, [0.001, 0.1**2.5, 0.01, 0.1, 0.1])  # log-linear
    seen = []
    hooks = Hooks(on_step=lambda run, _step: seen.append((run.steps, run.agent.temperature)))
    skill = skillbank.pretrain("SmallWorld/Plane-v0", config, hooks=hooks)
    for steps, alpha in seen:  # within a round of all copies
        earlier, now = (temperature_at(config, n, 400) for n in (steps - SMALL["num_envs"], steps))
        assert earlier <= alpha <= now
    assert skill.spec.temperature == 0.1


def test_training_for_longer_does_not_send_alpha_back(tmp_path):
    path, alphas = tmp_path / "checkpoint.npz", []
    changes = {"temperature": 0.1, "first_temperature": 0.001}

    def going_on(steps, resume):
        config = PretrainConfig(**(SMALL | changes | {"total_steps": steps}))
        told = Hooks(
            checkpoint=path,
            resume=resume,
            on_step=lambda run, _: (
                alphas.append(run.agent.temperature),
                checkpoint.save(run, path),
            ),
        )
        skillbank.pretrain("SmallWorld/Plane-v0", config, hooks=told)

    going_on(400, False)
    going_on(600, True)
    going_on(800, True)  # and it is not forgotten on the way
    assert alphas == sorted(alphas)
    assert len(alphas) == 800 / SMALL["num_envs"]


def test_one_alpha_is_kept_throughout():
    config = PretrainConfig(**SMALL, temperature=0.3)
    assert {temperature_at(config, steps, 400) for steps in range(0, 400, 7)} == {0.3}


def test_a_checkpoint_may_be_larger_than_a_plain_archive(tmp_path, monkeypatch):
    path, run = tmp_path / "checkpoint.npz", training()
    run.run(Hooks())
    with monkeypatch.context() as patch:  # stands for a replay of gigabytes
        patch.setattr("zipfile.ZIP64_LIMIT", 1000)
        checkpoint.save(run, path)
    kept = training()
    checkpoint.load(kept, path)
    assert kept.steps == run.steps


def test_what_is_no_checkpoint_is_refused(tmp_path):
    path = tmp_path / "checkpoint.npz"
    with pytest.raises(SkillbankError, match="no checkpoint at"):
        training().run(Hooks(checkpoint=path, resume=True))
    with pytest.raises(SkillbankError, match="resume=True needs a checkpoint"):
        training().run(Hooks(resume=True))
    run = training()
    run.run(Hooks())
    checkpoint.save(run, path)
    whole = path.read_bytes()
    for content in (b"", b"not a checkpoint", whole[: len(whole) // 2], whole[:-30]):
        path.write_bytes(content)
        with pytest.raises(SkillbankError, match=r"is not a checkpoint: (?!.*pickle)"):
            checkpoint.load(training(), path)
    with np.load(io.BytesIO(whole)) as file:
        arrays = dict(file)
    for name in ("generator", "replay", "critic/0.weight"):
        with path.open("wb") as file:
            np.savez(file, **{k: v[:1] if k == name else v for k, v in arrays.items()})
        with pytest.raises(SkillbankError, match="is not a checkpoint of this training"):
            checkpoint.load(training(), path)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The arrays of a checkpoint."""
    path = tmp_path_factory.mktemp("saved") / "checkpoint.npz"
    run = training()
    run.run(Hooks())
    checkpoint.save(run, path)
    return arrays_of(path)


@pytest.mark.parametrize(
    "value", [np.zeros((1, 1, 1), "f4"), np.zeros((0,), "f4"), np.zeros(()), None]
)
def test_an_optimisers_state_of_another_shape_is_refused(tmp_path, saved, value):
    """The optimiser would read and write beyond it."""
    name = "critic_optimiser/2/exp_avg"
    wrong = saved[name].astype("f8") if value is None else value
    np.savez(tmp_path / "c.npz", **saved | {name: wrong})
    with pytest.raises(SkillbankError, match=rf"{name} is .*, not float32"):
        checkpoint.load(training(), tmp_path / "c.npz")


@pytest.mark.parametrize(
    "change",
    [
        *({name: None} for name in ("debt", "returns", "curve", "rng", "steps", "updates")),
        *({name: "word"} for name in ("debt", "seconds", "steps", "added", "planned_steps")),
        *({"curve": [3]}, {"returns": ["a"]}, {"rng": {}}, {"started": []}, {"started": None}),
    ],
    ids=str,
)
def test_a_document_that_makes_no_sense_is_refused(tmp_path, saved, change):
    meta = json.loads(saved["meta"].tobytes()) | change
    document = np.frombuffer(json.dumps(meta).encode(), np.uint8)
    np.savez(tmp_path / "c.npz", **saved | {"meta": document})
    with pytest.raises(SkillbankError, match=r"is not a checkpoint|was started differently"):
        checkpoint.load(training(), tmp_path / "c.npz")


def test_another_learned_file_is_not_replaced_by_a_checkpoint(tmp_path):
    path = tmp_path / "c.npz"
    np.savez(path, meta=np.frombuffer(b'{"about": {}}', np.uint8))  # as in a correction
    with pytest.raises(SkillbankError, match="is not a checkpoint"):
        training().run(Hooks(checkpoint=path))


def test_an_unfinished_training_is_replaced_by_no_other(tmp_path):
    path, run = tmp_path / "c.npz", training()
    with pytest.raises(Interrupted):
        run.run(dataclasses.replace(stop_after(120, run), checkpoint=path))
    kept = path.read_bytes()
    for other in (training(), training("skillbank/MultiGoal-v0"), training(total_steps=100)):
        with pytest.raises(SkillbankError, match=r"at 120 of 400 steps; pass resume=True .*delete"):
            other.run(Hooks(checkpoint=path))
        assert (other.steps, path.read_bytes()) == (0, kept)
    training().run(Hooks(checkpoint=path, resume=True))


def test_a_finished_training_is_extended_from_its_end(tmp_path):
    path, run = tmp_path / "c.npz", training()
    run.run(Hooks(checkpoint=path))
    steps, longer = [], training(total_steps=480)
    longer.run(Hooks(checkpoint=path, resume=True, on_step=lambda at, _: steps.append(at.steps)))
    assert (steps[0], steps[-1]) == (404, 480)


@pytest.mark.parametrize("steps", [0, 400], ids=["not begun", "complete"])
def test_a_checkpoint_with_nothing_left_to_lose_is_replaced(tmp_path, steps):
    path, run = tmp_path / "c.npz", training()
    if steps:
        run.run(Hooks())
    checkpoint.save(run, path)
    other = training(seed=1)
    with pytest.raises(Interrupted):
        other.run(dataclasses.replace(stop_after(120, other), checkpoint=path))
    checkpoint.load(training(seed=1), path)


# What goes wrong.


@pytest.mark.parametrize("what", ["nan_obs", "inf_reward", "wrong_shape", "crash"])
def test_an_environment_that_breaks_midway_loses_nothing(tmp_path, what):
    path = tmp_path / "checkpoint.npz"
    broken = {"what": what, "seed": 2, "good_steps": 60}
    run = training("SmallWorld/Broken-v0", env_kwargs=broken, **noise_fed())
    with pytest.raises(UnsupportedEnvironment, match="step 61"):
        run.run(Hooks(checkpoint=path))
    assert run.steps == 60 * 4
    kept = training("SmallWorld/Broken-v0", env_kwargs=broken, **noise_fed())
    checkpoint.load(kept, path)
    assert kept.steps == 60 * 4
    assert kept.agent.updates == run.agent.updates > 0
    assert all(np.isfinite(value).all() for value in state(kept)[0].values())


def noise_fed():
    """One action has no pairs to couple, so its sampler is fed with noise."""
    return {"architecture": TINY.model_copy(update={"sampler": "noise"}), "objective": "stein"}


def test_a_training_that_does_nothing_leaves_the_checkpoint_that_is_there(tmp_path):
    path = tmp_path / "checkpoint.npz"
    run = training()
    with pytest.raises(Interrupted):
        run.run(dataclasses.replace(stop_after(120, run), checkpoint=path))
    kept = path.read_bytes()
    with pytest.raises(Interrupted):
        training().run(Hooks(checkpoint=path, resume=True, should_stop=lambda: True))
    assert path.read_bytes() == kept
    with pytest.raises(Interrupted):
        training().run(Hooks(checkpoint=tmp_path / "new.npz", should_stop=lambda: True))
    assert (tmp_path / "new.npz").exists()


def test_a_checkpoint_may_be_named_by_a_text(tmp_path):
    run = training()
    with pytest.raises(Interrupted):
        run.run(dataclasses.replace(stop_after(120, run), checkpoint=str(tmp_path / "c.npz")))
    again = training()
    again.run(Hooks(checkpoint=str(tmp_path / "c.npz"), resume=True))
    assert again.steps == again.config.total_steps


def test_an_interruption_says_what_was_saved(tmp_path, monkeypatch):
    def said(**asked):
        run = training()
        with pytest.raises(Interrupted) as caught:
            run.run(dataclasses.replace(stop_after(120, run), **asked))
        return str(caught.value)

    path = tmp_path / "c.npz"
    assert said() == "interrupted; nothing was saved, as there is no checkpoint"
    assert said(checkpoint=path, segment_steps=200) == f"interrupted; nothing was saved in {path}"
    assert said(checkpoint=path) == f"interrupted; what was saved is in {path}"
    path.unlink()
    monkeypatch.setattr("numpy.savez", full_disk)
    assert said(checkpoint=path) == f"interrupted; nothing was saved in {path}"


def full_disk(*_args, **_arrays):
    raise OSError(errno.ENOSPC, "no space left")


@pytest.mark.parametrize("place", [".", "file.txt/c.npz"])
def test_a_checkpoint_that_cannot_be_written_is_known_before_the_first_step(tmp_path, place):
    (tmp_path / "file.txt").write_text("precious")
    run = training()
    with pytest.raises(StorageError, match="Name a file in a folder"):
        run.run(Hooks(checkpoint=tmp_path / place))
    assert run.steps == 0
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]


def test_a_checkpoint_replaces_no_other_file(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("precious")
    np.savez(tmp_path / "data.npz", data=np.arange(3))
    for other in (path, tmp_path / "data.npz"):
        run, before = training(), other.read_bytes()
        with pytest.raises(SkillbankError, match="is not a checkpoint"):
            run.run(Hooks(checkpoint=other))
        assert (run.steps, other.read_bytes()) == (0, before)


def test_a_save_that_fails_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("numpy.savez", full_disk)
    with pytest.warns(UserWarning, match="no space left"):
        training().run(Hooks(checkpoint=tmp_path / "c.npz", segment_steps=100))


def test_wrong_hooks_are_known_at_once():
    with pytest.raises(SkillbankError, match=r"pretrain\(\) takes skillbank.Hooks, .*not int"):
        pretrain("SmallWorld/Plane-v0", PretrainConfig(**SMALL), hooks=3)
    with pytest.raises(InvalidArgument, match="segment_steps must be 1 or more, got 0"):
        Hooks(segment_steps=0)


def test_ctrl_c_saves_what_was_learned(tmp_path):
    path, run = tmp_path / "checkpoint.npz", training()

    def interrupt():
        if run.steps >= 120:
            raise KeyboardInterrupt
        return False

    with pytest.raises(KeyboardInterrupt):
        run.run(Hooks(checkpoint=path, should_stop=interrupt))
    kept = training()
    checkpoint.load(kept, path)
    assert kept.steps == 120


def poison(run):
    with torch.no_grad():
        run.agent.critic["out.bias"].fill_(float("nan"))


def overflow(run):  # the loss is infinite, ADAM's step zero, and every parameter stays finite
    run.replay.rows[:, run.replay._reward] = 1e25


@pytest.mark.parametrize(("damage", "said"), [(poison, "smaller learning rate"), (overflow, "inf")])
def test_a_diverged_training_keeps_the_last_good_checkpoint(tmp_path, damage, said):
    path, run = tmp_path / "checkpoint.npz", training()
    with pytest.raises(Interrupted):
        run.run(dataclasses.replace(stop_after(200, run), checkpoint=path))
    good = path.read_bytes()
    again = training()

    def stop():
        damage(again)
        return False

    with pytest.raises(TrainingDiverged, match=said):
        again.run(Hooks(checkpoint=path, resume=True, should_stop=stop))
    assert path.read_bytes() == good


# What is stored and learned.


def test_truncation_is_stored_as_going_on_and_termination_as_the_end():
    run = training("skillbank/MultiGoal-v0", total_steps=2_000, learning_starts=1_999)
    run.run(Hooks())
    obs, action, _, terminated, ended, next_obs = run.replay.rows[: len(run.replay)].split(
        run.replay._widths, dim=1
    )
    assert (ended >= terminated).all()
    timed_out = (ended > terminated).squeeze(1)
    assert timed_out.any()
    # the true end of a truncated episode, and not the start of the next
    moved = (obs + action).clip(-7.0, 7.0)
    torch.testing.assert_close(next_obs, moved, atol=1e-5, rtol=0.0)


def batch_of(count=6, terminated=None, seed=0):
    generator = torch.Generator().manual_seed(seed)
    obs, next_obs = torch.randn(2, count, 2, generator=generator)
    action = torch.rand(count, 2, generator=generator) * 2 - 1
    reward = torch.randn(count, generator=generator)
    end = torch.zeros(count) if terminated is None else terminated
    return Batch(obs, action, reward, torch.full((count,), 0.9), end, next_obs)


def agent_of(symmetries=(), seed=0, **changes):
    config = PretrainConfig(**(SMALL | changes))
    return Agent(config.architecture, config, 2, 2, 0.2, seed, symmetries=symmetries)


def test_critics_regress_on_reward_plus_value_unless_terminated():
    terminated = torch.tensor([0.0, 1.0, 0.0, 1.0, 0.0, 0.0])
    batch = batch_of(terminated=terminated)
    agent, same = agent_of(), agent_of()
    with torch.no_grad():
        q_next, log_weight = same.proposals(batch.next_obs)
        value = soft_value(q_next, log_weight, 0.2)
        target = torch.where(terminated == 1.0, batch.reward, batch.reward + 0.9 * value)
        loss = 0.5 * (same.critic(batch.obs, batch.action) - target).square().mean(1).sum()
    figures = agent.update_critic(batch)
    torch.testing.assert_close(figures.critic_loss, loss)
    torch.testing.assert_close(figures.value, value.mean())


def test_targets_follow_by_their_rate_and_period():
    agent = agent_of(target_period=3, target_rate=0.5)
    start = agent.target_critic.arrays()
    for _ in range(2):
        agent.update(batch_of())
    for name, value in agent.target_critic.arrays().items():
        np.testing.assert_array_equal(value, start[name])
    agent.update(batch_of())
    for name, value in agent.target_critic.arrays().items():
        expected = 0.5 * (start[name] + agent.critic.arrays()[name])
        np.testing.assert_allclose(value, expected, atol=1e-6)


def test_rewards_are_scaled_once():
    run = training(reward_scale=10.0, learning_starts=399)
    run.run(Hooks())
    stored = set((10.0 * run.replay.rewards()).tolist())
    assert set(run._batch().reward.tolist()) <= stored


def test_level_critics_start_at_what_the_first_rewards_promise():
    # learning starts with the last step, whose four transitions owe no update yet
    run = training(level_critics=True, learning_starts=396, total_steps=400, steps_per_update=100)
    run.run(Hooks())
    assert run.agent.updates == 0
    level = float(run.replay.rewards().mean()) / (1 - 0.99)
    for critic in (run.agent.critic, run.agent.target_critic):
        np.testing.assert_allclose(critic.arrays()["out.bias"], level, rtol=1e-5)


def test_level_allows_for_steps_that_terminate():
    """The constant that repeated backups of all stored steps lead to."""
    changes = {"learning_starts": 396, "total_steps": 400, "steps_per_update": 100}
    run = training("SmallWorld/Errand-v0", env_kwargs={"length": 3}, level_critics=True, **changes)
    run.run(Hooks())
    rewards, ends = run.replay.rewards().double(), run.replay.terminations().double()
    assert 0.15 < ends.mean() < 0.3
    level = 0.0
    for _ in range(200):
        level = float((rewards + 0.99 * (1.0 - ends) * level).mean())
    assert 3.0 < level < 6.0
    for critic in (run.agent.critic, run.agent.target_critic):
        np.testing.assert_allclose(critic.arrays()["out.bias"], level, rtol=1e-5)


def test_first_actions_are_uniform_and_later_ones_stay_in_the_box():
    run = training(noise_sigma=3.0, learning_starts=200, replay_capacity=4_000, total_steps=2_000)
    run.run(Hooks())
    action = run.replay.rows[: len(run.replay), 2:4]
    assert action.abs().max() == 1.0  # so strong a noise reaches the walls, and no further
    first = action[:200]
    assert first.abs().max() < 1.0
    assert abs(first.var().item() * 3 - 1) < 0.15


def test_a_warm_training_starts_with_the_policys_own_actions():
    run, twin = training(), training()
    run.warm = True
    obs = torch.zeros(4, 2)
    expected = twin.agent.act(obs).numpy()
    np.testing.assert_array_equal(run._action(obs), expected)


# Symmetries.

QUARTER = Symmetry(  # (x, y) -> (-y, x)
    name="a quarter turn",
    obs_index=(1, 0),
    obs_sign=(-1, 1),
    action_index=(1, 0),
    action_sign=(-1, 1),
)


def turned(x):
    return torch.stack((-x[:, 1], x[:, 0]), 1)


def test_an_update_sees_whole_transitions_through_a_symmetry():
    batch = batch_of(16)
    agent, plain = agent_of((QUARTER,)), agent_of()
    torch.randint(1, (16,), generator=plain.generator)  # the choice among one
    by_hand = batch._replace(
        obs=turned(batch.obs), action=turned(batch.action), next_obs=turned(batch.next_obs)
    )
    agent.update(batch)
    plain.update(by_hand)
    for part, network in agent.networks().items():
        for name, value in network.arrays().items():
            np.testing.assert_array_equal(
                value, plain.networks()[part].arrays()[name], err_msg=f"{part}/{name}"
            )


def test_acting_through_a_symmetry_is_undone():
    agent, plain = agent_of((QUARTER,)), agent_of()
    obs = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    action = agent.act(obs)
    torch.testing.assert_close(turned(action), plain.act(turned(obs)))


def test_all_symmetries_are_drawn():
    nothing = Symmetry(
        name="identity", obs_index=(0, 1), obs_sign=(1, 1), action_index=(0, 1), action_sign=(1, 1)
    )
    agent = agent_of((nothing, QUARTER))
    obs = torch.ones(400, 2)
    seen = agent.symmetries.obs(obs, agent.symmetries.draw(400, agent.generator))
    share = (seen[:, 0] < 0).float().mean().item()
    assert 0.4 < share < 0.6


def test_targets_begin_as_copies_of_the_critics():
    agent = agent_of()
    for name, value in agent.critic.arrays().items():
        np.testing.assert_array_equal(agent.target_critic.arrays()[name], value)


def test_each_network_has_its_own_learning_rate():
    agent = agent_of(critic_learning_rate=2e-3, sampler_learning_rate=5e-4)
    batch, before = batch_of(), {k: n.arrays() for k, n in agent.networks().items()}
    agent.update(batch)
    for part, rate in (("critic", 2e-3), ("sampler", 5e-4)):  # ADAM's first step is of its rate
        after = agent.networks()[part].arrays()
        step = max(np.abs(after[name] - old).max() for name, old in before[part].items())
        assert step == pytest.approx(rate, rel=1e-2)


def test_the_seed_decides_parameters_and_noise_alike():
    one, other = agent_of(seed=0), agent_of(seed=1)
    assert not torch.equal(one.noise(3, 2), other.noise(3, 2))
    names = [n for n, v in one.sampler.arrays().items() if v.any() and "head.bias" not in n]
    for name in names:
        assert not np.array_equal(one.sampler.arrays()[name], other.sampler.arrays()[name]), name


def test_a_finite_set_acts_as_it_is_without_a_symmetry():
    agent, plain = agent_of((QUARTER,)), agent_of()
    agent.noise_set = plain.noise_set = torch.tensor([[0.5, -1.0]])
    obs = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(agent.act(obs), plain.act(obs))


def test_each_segment_begins_other_episodes():
    run, seeds = training(seed=5), []
    reset = run.task.reset
    run.task.reset = lambda seed=None: (seeds.append(seed), reset(seed=seed))[1]
    run.run(Hooks(segment_steps=160))
    assert seeds == [5, 5 + 160, 5 + 320]


ERRAND = {"env_id": "SmallWorld/Errand-v0", "env_kwargs": {"length": 2}}  # 2 to 5 steps, of 1 each


def test_returns_are_those_of_single_episodes():
    run = training(**ERRAND)
    run.run(Hooks())
    assert set(run.returns) == {2.0, 3.0, 4.0, 5.0}
    assert 2.0 <= run.curve[-1].mean_return <= 5.0


def test_the_disturbance_ends_with_its_episode():
    run, left, at_start = training(noise_sigma=0.5, **ERRAND), [], []
    act, begins = run._action, (0, 160, 320)

    def watched(obs):
        if run.steps in begins:
            at_start.append(run.disturbance.copy())
        return act(obs)

    run._action = watched
    hooks = Hooks(
        segment_steps=160, on_step=lambda r, s: left.append(r.disturbance[s.ended].copy())
    )
    run.run(hooks)
    assert not np.concatenate(left).any()
    assert len(at_start) == 3
    assert not np.array(at_start).any()
    assert run.disturbance.any()


def test_targets_are_of_one_step_after_so_many_environment_steps():
    run = training(n_step=3, n_step_until=200)
    run.run(Hooks())
    run.steps = 199
    assert run._batch().discount.min() < 0.99**2
    run.steps = 200
    assert run._batch().discount.min() == pytest.approx(0.99)


def test_level_is_of_the_scaled_reward():
    changes = {"learning_starts": 396, "total_steps": 400, "steps_per_update": 100}
    run = training(level_critics=True, reward_scale=10.0, **changes)
    run.run(Hooks())
    level = 10.0 * float(run.replay.rewards().mean()) / (1 - 0.99)
    np.testing.assert_allclose(run.agent.critic.arrays()["out.bias"], level, rtol=1e-5)


@pytest.mark.parametrize("symmetry", [True, False])
def test_pretraining_learns_through_the_tasks_symmetries(symmetry):
    seen = set()
    hooks = Hooks(on_step=lambda run, _: seen.add(getattr(run.agent.symmetries, "count", None)))
    skill = pretrain("PointMassRun", PretrainConfig(**SMALL, symmetry=symmetry), hooks=hooks)
    assert seen == {8 if symmetry else None}
    assert len(skill.spec.symmetries) == (8 if symmetry else 0)


@pytest.mark.parametrize("level", [True, False])
def test_pretraining_levels_its_critics_where_it_is_told_to(level):
    told = []
    hooks = Hooks(on_step=lambda run, _: told.append(run.level))
    pretrain("PointMassRun", PretrainConfig(**SMALL, level_critics=level), hooks=hooks)
    assert set(told) == {level}


def test_the_seed_decides_what_pretraining_starts_from():
    changes = SMALL | {"total_steps": 44, "steps_per_update": 100}  # no update
    config = PretrainConfig(**changes)
    one, other = (pretrain("SmallWorld/Plane-v0", config, seed=s).parameters() for s in (0, 1))
    for part in ("critic", "sampler"):
        assert not np.array_equal(one[f"{part}/0.weight"], other[f"{part}/0.weight"])


@pytest.mark.parametrize("name", ["on_progress", "on_warning", "should_stop", "on_step"])
def test_a_hook_that_is_no_function_is_refused_at_once(name):
    with pytest.raises(InvalidArgument, match=f"{name} must be a function, got True"):
        Hooks(**{name: True})


def test_a_device_by_another_name_is_the_same_device():
    """Large enough that two threads share the gradients of the sampling network."""
    config = PretrainConfig(**(SMALL | {"batch_size": 256, "particles": 4, "total_steps": 120}))
    one, other = (
        pretrain("SmallWorld/Plane-v0", config, device=device).parameters()
        for device in ("cpu", "cpu:0")
    )
    for name, values in one.items():
        np.testing.assert_array_equal(values, other[name], err_msg=name)
