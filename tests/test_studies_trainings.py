"""Units as they are trained: what is noted, what a resumed one ends with, and the rivals."""

import copy
import json
import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from studying import SEGMENT, STEPS, places, tiny

import skillbank
from skillbank import Skill, checkpoint
from skillbank.config import PretrainConfig
from skillbank.durable import alone
from skillbank.errors import Busy, IncompatibleSkill, StorageError
from skillbank.pretraining import pretrain
from skillbank.studies import cluster, performing, plan, rivals, soft_q, tracking
from skillbank.studies.unit import done, read_result, write_json
from skillbank.training import Hooks, Training


class Killed(Exception):
    """Stands for kill -9 in one process."""


def perform(unit, where, parent=None, kill_after=None):
    """Perform a unit; with ``kill_after``, end it after so many steps and do it again."""
    if kill_after is not None:
        note = tracking.Tracker.__call__

        def deadly(self, steps, step, policy):
            if steps > kill_after:
                raise Killed
            note(self, steps, step, policy)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tracking.Tracker, "__call__", deadly)
            with pytest.raises(Killed):
                performing.perform(unit, where, parent, lambda _: None)
        assert (where.folder(unit) / "checkpoint.npz").is_file()
    performing.perform(unit, where, parent, lambda _: None)
    assert done(unit, where)
    assert not (where.folder(unit) / "checkpoint.npz").exists()
    return read_result(where.result(unit))["measured"]


@pytest.fixture(scope="module")
def parent_skill(tmp_path_factory):
    where, unit = places(tmp_path_factory.mktemp("parent")), tiny(seed=9)
    perform(unit, where)
    return where.learned(unit)


@pytest.fixture(scope="module")
def parent_policy(tmp_path_factory):
    where, unit = places(tmp_path_factory.mktemp("parent")), tiny("ddpg", seed=9)
    perform(unit, where)
    return where.learned(unit)


@pytest.mark.parametrize("algorithm", ["default", "anchored", "ddpg", "ddpg_pretrained", "sac"])
def test_a_killed_unit_ends_with_the_same_numbers(tmp_path, algorithm, parent_skill, parent_policy):
    parent = {"anchored": parent_skill, "ddpg_pretrained": parent_policy}.get(algorithm)
    unit = tiny(algorithm, watched="goal")
    straight = perform(unit, places(tmp_path / "a"), parent)
    killed = perform(unit, places(tmp_path / "b"), parent, kill_after=SEGMENT + 40)
    assert killed == straight
    assert straight["steps"] == STEPS
    assert len(straight["evaluations"]["steps"]) == 4  # the first of what it started from


def test_another_seed_gives_other_numbers(tmp_path):
    assert perform(tiny(seed=0), places(tmp_path)) != perform(tiny(seed=1), places(tmp_path))


def test_what_is_learned_does_not_depend_on_being_watched(tmp_path):
    # evaluations on the way use no random numbers of the training
    unit = tiny(segment_steps=STEPS)
    where = places(tmp_path)
    perform(unit, where)
    assert isinstance(unit.learning, PretrainConfig)
    alone = pretrain(unit.env_id, unit.learning, seed=0, hooks=Hooks(segment_steps=STEPS))
    watched = Skill.load(where.learned(unit)).parameters()
    for name, value in alone.parameters().items():
        np.testing.assert_array_equal(value, watched[name])


def test_a_checkpoint_of_another_definition_is_not_used(tmp_path):
    where, unit = places(tmp_path), tiny()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(performing, "_summary", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            performing.perform(unit, where, None, lambda _: None)
    checkpoint = where.folder(unit) / "checkpoint.npz"
    assert checkpoint.is_file()
    other = tiny(evaluations=2)  # its tracker's arrays have another size
    assert len(perform(other, where)["evaluations"]["steps"]) == 3


def test_a_checkpoint_from_another_parent_is_not_used(tmp_path, parent_skill):
    where, unit = places(tmp_path), tiny("anchored")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(performing, "_summary", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            performing.perform(unit, where, parent_skill, lambda _: None)
    assert (where.folder(unit) / "checkpoint.npz").is_file()
    again = tmp_path / "again.h5"  # the same training, with other seconds in its curve
    Skill.load(parent_skill).with_spec(description="again").save(again)
    assert perform(unit, where, again) == perform(unit, places(tmp_path / "b"), again)


@pytest.mark.parametrize("algorithm", ["default", "ddpg"])
def test_a_damaged_checkpoint_costs_steps_and_no_more(tmp_path, algorithm):
    where, unit = places(tmp_path), tiny(algorithm)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(performing, "_summary", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            performing.perform(unit, where, None, lambda _: None)
    checkpoint = where.folder(unit) / "checkpoint.npz"
    whole = checkpoint.read_bytes()
    for place in (len(whole) // 2, *range(-60, 0)):  # among the numbers, and in the directory
        image = bytearray(whole)
        image[place] ^= 0x55
        checkpoint.write_bytes(image)
        assert performing._whole(checkpoint) in (False, True)  # it is said, not raised
    image = bytearray(whole)
    image[len(whole) // 2] ^= 1
    checkpoint.write_bytes(image)
    assert perform(unit, where) == perform(unit, places(tmp_path / "b"))


def test_a_checkpoint_from_another_shipped_skill_is_not_used(tmp_path, monkeypatch, parent_skill):
    where, unit = places(tmp_path), tiny("anchored", parent="bank:run_anywhere")
    ships = Skill.load(parent_skill)
    monkeypatch.setattr(performing, "shipped", lambda _: ships)
    with monkeypatch.context() as patch:
        patch.setattr(performing, "_summary", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            performing.perform(unit, where, None, lambda _: None)
    assert (where.folder(unit) / "checkpoint.npz").is_file()
    ships.with_spec(description="another").save(tmp_path / "other.h5")
    ships = Skill.load(tmp_path / "other.h5")
    assert perform(unit, where) == perform(unit, places(tmp_path / "b"))


def test_a_unit_tells_whose_skill_it_started_from(tmp_path, parent_skill):
    where, unit = places(tmp_path), tiny("anchored")
    perform(unit, where, parent_skill)
    made = read_result(where.result(unit))["made"]
    assert made["parent"] == performing.parameters_hash(parent_skill)
    assert made["parameters"] == performing.parameters_hash(where.learned(unit))
    assert made["parameters"] != made["parent"]
    older = {"mujoco": "2.0.0"}  # of which only who acts with the skill is warned
    Skill.load(parent_skill).with_spec(versions=older).save(tmp_path / "again.h5")
    assert made["parent"] == performing.parameters_hash(tmp_path / "again.h5")


def test_checkpoints_that_cannot_be_written_are_told(tmp_path, monkeypatch, capsys):
    def full(self, path):
        raise StorageError("no room")

    monkeypatch.setattr(checkpoint, "save", full)
    perform(tiny(), places(tmp_path))
    assert "no room" in capsys.readouterr().err


def test_a_unit_is_held_by_one_process(tmp_path):
    where, unit = places(tmp_path), tiny()
    where.folder(unit).mkdir(parents=True)
    with (
        alone(where.folder(unit)),
        pytest.raises(Busy, match=f"process {os.getpid()} is using"),
    ):
        performing.perform(unit, where, None, lambda _: None)


def test_what_is_done_is_not_done_again(tmp_path):
    where, unit = places(tmp_path), tiny()
    perform(unit, where)
    with pytest.MonkeyPatch.context() as patch:  # as by a second command that was told a bit late
        patch.setattr(performing, "_measured", lambda *_: 1 / 0)
        performing.perform(unit, where, None, lambda _: None)
        where.learned(unit).write_bytes(b"another skill")
        with pytest.raises(ZeroDivisionError):
            performing.perform(unit, where, None, lambda _: None)


def test_a_training_that_diverges_at_its_very_end_is_a_result(tmp_path, monkeypatch):
    last = Training.run

    def run(self, hooks):
        last(self, hooks)
        with torch.no_grad():
            next(iter(self.agent.critic.parameters())).fill_(torch.nan)

    monkeypatch.setattr(Training, "run", run)
    assert "diverged before step 240" in perform(tiny(), places(tmp_path))["diverged"]


def test_a_training_that_diverges_where_it_is_evaluated_is_a_result(tmp_path, monkeypatch):
    learn = Training._learn

    def diverge(self, *rest):
        figures = learn(self, *rest)
        if self.steps == 76:  # the next step, 80, is one of the curve's
            with torch.no_grad():
                next(iter(self.agent.sampler.parameters())).fill_(torch.nan)
        return figures

    monkeypatch.setattr(Training, "_learn", diverge)
    assert "diverged before step 80" in perform(tiny(), places(tmp_path))["diverged"]


def test_a_quick_study_starts_from_the_skill_that_ships(tmp_path, monkeypatch):
    monkeypatch.setenv("SKILLBANK_HOME", str(tmp_path))
    ships = skillbank.Bank().load("run_anywhere")
    skillbank.Bank().save(ships.with_spec(description="mine"), "run_anywhere")
    assert skillbank.Bank().load("run_anywhere").content_hash != ships.content_hash
    assert performing.shipped("run_anywhere").content_hash == ships.content_hash


@pytest.fixture
def diverging(monkeypatch):
    for model in (rivals.PaperDDPG, rivals.SAC):

        def diverge(self, train=model.train, **sizes):
            with torch.no_grad():
                next(self.policy.parameters()).fill_(torch.nan)
            train(self, **sizes)

        monkeypatch.setattr(model, "train", diverge)


@pytest.mark.usefixtures("diverging")
@pytest.mark.parametrize("algorithm", ["ddpg", "sac"])
def test_a_diverged_training_is_a_result(tmp_path, algorithm):
    measured = perform(tiny(algorithm), places(tmp_path))
    assert "diverged before step" in measured["diverged"]


@pytest.mark.usefixtures("diverging")
def test_on_a_cluster_a_diverged_training_is_a_result_and_leaves_nothing(tmp_path):
    where, unit = places(tmp_path), tiny("ddpg")
    old = where.learned(unit)
    old.parent.mkdir(parents=True)
    old.write_bytes(b"of another definition")
    note = SimpleNamespace(tell=SimpleNamespace(remote=lambda *_: None))
    outcome = cluster.perform_there(unit.model_dump_json(), str(where.work), None, note)
    assert "diverged" in outcome.result["measured"]
    assert outcome.learned is None


def test_a_result_that_cannot_be_written_leaves_the_checkpoint(tmp_path):
    where, unit = places(tmp_path), tiny()
    checkpoint = where.folder(unit) / "checkpoint.npz"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(b"x")
    where.results.write_text("a file where a folder should be")
    with pytest.raises(StorageError):
        performing.keep({}, unit, where)
    assert checkpoint.exists()


# What is noted.


def test_the_notes_of_a_training_are_its_episodes(tmp_path):
    rewards, ended, goals = [], [], []
    step_of = soft_q.Tracker.__call__

    def listen(self, steps, step, policy):
        rewards.append(step.reward.numpy().copy())
        ended.append(step.ended.copy())
        goals.append(tracking.final_info(step.info, step.ended)["goal"])
        step_of(self, steps, step, policy)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(soft_q.Tracker, "__call__", listen)
        measured = perform(tiny(watched="goal", segment_steps=STEPS), places(tmp_path))
    returns, running = [], np.zeros(4)
    for reward, end in zip(rewards, ended, strict=True):
        running += reward
        returns += running[end].tolist()
        running[end] = 0.0
    told = [value for value in measured["training_returns"] if value is not None]
    assert min(returns) - 1e-2 <= min(told) <= max(told) <= max(returns) + 1e-2
    most = [value for value in measured["watched"]["most"] if value is not None]
    assert max(most) == np.max(goals)
    assert min(v for v in measured["watched"]["least"] if v is not None) == np.min(goals)
    assert measured["final"]["episodes"] == 4
    assert sum(measured["final"]["goals"]) <= 4


def test_traces_and_action_values_are_kept_where_asked(tmp_path):
    measured = perform(tiny(traces=2, action_values=True), places(tmp_path))
    assert len(measured["traces"]) == 2
    assert all(len(place) == 2 for trace in measured["traces"] for place in trace)
    values = measured["action_values"]
    assert np.shape(values["q"]) == (3, performing.LEVELS, performing.LEVELS)
    assert np.shape(values["actions"]) == (3, performing.SHOWN_ACTIONS, 2)
    json.dumps(measured, allow_nan=False)


def test_numbers_are_rounded_and_nan_becomes_null():
    values = np.array([[1.234567891, np.nan], [np.inf, 1e-12]])
    assert tracking.rounded(values) == [[1.2346, None], [None, 1e-12]]
    assert tracking.rounded(np.array([2.0, 3.00004])) == [2.0, 3.0]
    with pytest.raises(ValueError, match="Out of range"):
        write_json_of_nan()


def write_json_of_nan():
    from pathlib import Path

    write_json(Path("never.json"), float("nan"))


# The rivals.


def model_of(unit, seed=0, warm=False):
    envs = rivals.StableBaselinesTask(unit.env_id, 1)
    return rivals.PaperDDPG(unit.learning, envs, seed, warm), envs


def test_ddpg_copies_its_targets_every_so_many_updates_and_not_between():
    unit = tiny("ddpg")
    model, _ = model_of(unit)
    model.set_logger(rivals.Logger(None, []))
    model.learn(unit.learning.learning_starts + unit.learning.target_period)
    start = {k: v.clone() for k, v in model.critic_target.state_dict().items()}
    assert model._n_updates == unit.learning.target_period
    for name, value in model.critic.state_dict().items():
        torch.testing.assert_close(start[name], value, rtol=0, atol=0)
    model.learn(10, reset_num_timesteps=False)
    for name, value in model.critic_target.state_dict().items():
        torch.testing.assert_close(start[name], value, rtol=0, atol=0)
    moved = [not torch.equal(start[k], v) for k, v in model.critic.state_dict().items()]
    assert all(moved)


def test_ddpgs_updates_are_the_librarys():
    ours, library = (model_of(tiny("ddpg"))[0] for _ in range(2))
    changes = []
    for model, train in ((ours, ours.train), (library, super(type(library), library).train)):
        model.set_logger(rivals.Logger(None, []))
        model.tau = 0.0  # the library's target copies, which ours makes later
        np.random.seed(3)  # the library draws noise and batches from there
        model.learn(40)  # the same actions for both
        # Plain steps: Adam's are of one size, whatever rounding has left of a gradient.
        for part in (model.actor, model.critic):
            part.optimizer = torch.optim.SGD(part.parameters(), lr=1e-3)
        start = {k: v.clone() for k, v in model.policy.state_dict().items()}
        train(5, 8)
        changes.append({k: v - start[k] for k, v in model.policy.state_dict().items()})
    assert [k for k, v in changes[0].items() if v.any()] == [k for k in start if "target" not in k]
    torch.testing.assert_close(*changes, rtol=1e-3, atol=1e-7)


def test_ddpg_keeps_two_learning_rates_through_its_updates():
    model, _ = model_of(tiny("ddpg"))
    model.set_logger(rivals.Logger(None, []))
    model.learn(70)
    assert [g["lr"] for g in model.actor.optimizer.param_groups] == [1e-4]
    assert [g["lr"] for g in model.critic.optimizer.param_groups] == [1e-3]


def test_ddpgs_noise_is_that_of_a_step():
    # stationary deviation of x += sigma n - theta x: sigma / sqrt(1 - (1 - theta)^2)
    model, _ = model_of(tiny("ddpg"))
    np.random.seed(0)  # the library draws from there
    drawn = np.stack([model.action_noise() for _ in range(4000)])
    expected = 0.3 / np.sqrt(1.0 - 0.85**2)
    assert drawn[100:].std() == pytest.approx(expected, rel=0.1)


def test_a_pretrained_rival_acts_by_its_policy_from_the_start_and_others_do_not(parent_policy):
    unit = tiny("ddpg")
    for warm in (False, True):
        model, envs = model_of(unit, warm=warm)
        rivals.start_from(model, envs, parent_policy)
        model._last_obs = np.zeros((1, 2), np.float32)
        own, _ = model.predict(model._last_obs)
        acted, _ = model._sample_action(100, None, 1)
        assert np.allclose(acted, own) is warm


def test_networks_widen_to_new_observations_without_a_change(tmp_path):
    # QuadrupedRun's observation is a part of the hallway's
    narrow = tiny("ddpg", env_id="skillbank/QuadrupedRun-v0")
    wide = tiny("ddpg", env_id="skillbank/QuadrupedHallwayNarrow-v0")
    model, envs = model_of(narrow)
    rivals.save_policy(model, tmp_path / "policy.npz")
    other, others = model_of(wide, seed=1)
    rivals.start_from(other, others, tmp_path / "policy.npz")
    obs = others.reset()
    blocks = [(b.name, b.size) for b in others.task.observation_blocks]
    known = {b.name for b in envs.task.observation_blocks}
    columns = np.concatenate([np.full(size, name in known) for name, size in blocks])
    assert not columns.all()
    np.testing.assert_allclose(other.predict(obs)[0], model.predict(obs[:, columns])[0], atol=1e-6)
    rivals.save_policy(other, tmp_path / "wide.npz")
    with pytest.raises(IncompatibleSkill, match="lacks some of it"):
        rivals.start_from(model, envs, tmp_path / "wide.npz")


def test_a_segment_of_ours_starts_all_episodes_anew_and_saves_there_alone(tmp_path):
    saved, at = [], []
    unit = tiny()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "save", lambda training, path: saved.append(training.steps))
        reset_of = Training._loop
        patch.setattr(
            Training, "_loop", lambda self, *how: (at.append(self.steps), reset_of(self, *how))
        )
        perform(unit, places(tmp_path))
    assert at == [0, SEGMENT, 2 * SEGMENT]
    assert saved == [SEGMENT, 2 * SEGMENT]


def test_each_segment_of_a_rival_has_its_own_randomness(tmp_path, monkeypatch):
    seeds, real = [], rivals.PaperDDPG.set_random_seed
    monkeypatch.setattr(
        rivals.PaperDDPG,
        "set_random_seed",
        lambda self, seed: (seeds.append(seed), real(self, seed))[1],
    )
    perform(tiny("ddpg", seed=3), places(tmp_path))
    assert seeds[-3:] == [3, 3 + SEGMENT, 3 + 2 * SEGMENT]


@pytest.mark.parametrize("algorithm", ["default", "ddpg"])
def test_a_killed_unit_whose_replay_is_full_ends_with_the_same_numbers(tmp_path, algorithm):
    unit = tiny(algorithm)
    learning = unit.learning.model_copy(update={"replay_capacity": 60})
    unit = unit.model_copy(update={"learning": learning})
    straight = perform(unit, places(tmp_path / "a"))
    assert perform(unit, places(tmp_path / "b"), kill_after=SEGMENT + 40) == straight


def test_soft_copies_follow_every_update():
    """``target <- (1 - rate) target + rate network``, of critic and actor."""
    unit = tiny("ddpg")
    rate = plan.SOFT["target_rate"]
    model, _ = model_of(unit.changed(learning=unit.learning.changed(**plan.SOFT)))
    model.set_logger(rivals.Logger(None, []))
    model.learn(unit.learning.learning_starts + 1)
    assert model._n_updates == 1
    nets = {part: getattr(model, part) for part in ("critic", "actor")}
    targets = {part: getattr(model, f"{part}_target") for part in nets}
    before = {part: copy.deepcopy(target.state_dict()) for part, target in targets.items()}
    model.train(1)
    for part, network in nets.items():
        for name, value in network.state_dict().items():
            expected = (1.0 - rate) * before[part][name] + rate * value
            torch.testing.assert_close(targets[part].state_dict()[name], expected)
            assert not torch.equal(before[part][name], expected)


def test_ddpg_copies_both_its_targets():
    unit = tiny("ddpg")
    model, _ = model_of(unit)
    model.set_logger(rivals.Logger(None, []))
    model.learn(unit.learning.learning_starts + unit.learning.target_period)
    for part in ("critic", "actor"):
        target = getattr(model, f"{part}_target").state_dict()
        for name, value in getattr(model, part).state_dict().items():
            torch.testing.assert_close(target[name], value, rtol=0, atol=0)


def test_symmetric_sac_sees_each_transition_under_one_symmetry_of_the_task():
    unit = tiny("sac", env_id="skillbank/QuadrupedHallwayNarrow-v0")
    learning = unit.learning.changed(symmetry=True, learning_starts=100)
    envs = rivals.StableBaselinesTask(unit.env_id, 1)
    model = rivals._model(learning, envs, seed=0, warm=False)
    model.set_logger(rivals.Logger(None, []))
    steps = 20
    model.learn(steps)
    kept = model.replay_buffer
    stored = [getattr(kept, name)[:steps, 0] for name in ("observations", "actions")]
    stored += [kept.next_observations[:steps, 0], kept.rewards[:steps]]
    declared = envs.task.symmetries
    images = np.stack(
        [
            np.concatenate(
                (
                    stored[0][:, one.obs_index] * np.array(one.obs_sign),
                    stored[1][:, one.action_index] * np.array(one.action_sign),
                    stored[2][:, one.obs_index] * np.array(one.obs_sign),
                    stored[3],
                ),
                1,
            )
            for one in declared
        ]
    )  # [16, steps, numbers]
    found = kept.sample(600)
    rows = (found.observations, found.actions, found.next_observations, found.rewards)
    gaps = np.abs(images[:, :, None] - torch.cat(rows, 1).numpy()).max(3)  # [16, steps, 600]
    which, row = np.unravel_index(gaps.reshape(-1, 600).argmin(0), gaps.shape[:2])
    assert gaps.reshape(-1, 600).min(0).max() < 1e-6
    assert np.bincount(which, minlength=len(declared)).min() >= 15  # 37.5 expected
    assert len(set(row)) == steps
