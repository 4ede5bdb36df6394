"""Fine-tuning starts as the skill, hands over to a noise set without a jump, ends in one action."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import small_worlds
import torch
from energies import any_energy  # noqa: F401 (a fixture)

from skillbank import storage
from skillbank.agent import Agent
from skillbank.config import Architecture, FinetuneConfig, PretrainConfig, finetune_recipe
from skillbank.errors import IncompatibleSkill, InvalidName, SkillbankError
from skillbank.finetuning import Schedule, finetune, recipe_for, started_agent
from skillbank.networks import FlowSampler
from skillbank.pretraining import pretrain
from skillbank.skill import Skill
from skillbank.soft_value import soft_value
from skillbank.task import Task
from skillbank.training import Hooks

pytestmark = pytest.mark.usefixtures("any_energy")

assert small_worlds  # registers the environments

PLANE = "SmallWorld/Plane-v0"
TINY = Architecture(critic_hidden=(16,), sampler_hidden=(16,), couplings=2, coupling_hidden=4)
BRIEF = {"num_envs": 4, "batch_size": 16, "replay_capacity": 500}
NOT_AT_ALL = BRIEF | {  # the first update would come after the last step
    "learning_starts": 36,
    "total_steps": 40,
    "steps_per_update": 100,
}
NEVER = {"shrink_start": 10_000}  # fresh noise to the end


def pretrained(env_id=PLANE, network=TINY, **changes):
    """A skill whose Q and sampling network have been stirred, so that nothing is near zero."""
    brief = BRIEF | {"learning_starts": 40, "total_steps": 80, "temperature": 0.5}
    skill = pretrain(env_id, PretrainConfig(architecture=network, **(brief | changes)))
    rng = np.random.default_rng(0)
    stirred = {
        name: value + 0.2 * rng.normal(size=value.shape).astype(np.float32)
        for name, value in skill.parameters().items()
    }
    return Skill(skill.spec, stirred)


@pytest.fixture(scope="module")
def skill():
    return pretrained()


def states(count, size=2):
    return np.random.default_rng(1).uniform(-1, 1, (count, size))


# Step 0 is the skill.


def test_anchored_starts_as_the_skill_with_a_task_worth_nothing(skill):
    config = FinetuneConfig(schedule="anchored", **NOT_AT_ALL, **NEVER)
    start = finetune(skill, PLANE, config)
    assert start.spec.updates == 0
    obs = states(20)
    actions = skill.sample(obs, 9, seed=3)
    np.testing.assert_array_equal(start.sample(obs, 9, seed=3), actions)
    # Q = alpha log pi_0, up to the constant at which the critics are started
    prior = skill.sampler
    with torch.no_grad():
        u = torch.atanh(torch.tensor(actions, dtype=torch.float32).clamp(-1 + 1e-6, 1 - 1e-6))
        log_pi = prior.log_density(torch.tensor(obs, dtype=torch.float32), u)
        log_pi = (log_pi - torch.log1p(-(torch.tanh(u) ** 2)).sum(-1)).numpy()
    level = start.q(obs, actions) - start.spec.temperature * log_pi
    assert np.ptp(level) < 1e-3
    assert start.parameters()["critic/out.bias"].flatten()[0] == pytest.approx(
        level.mean(), abs=1e-3
    )
    # ... and therefore its soft value is that constant
    np.testing.assert_allclose(start.value(obs), level.mean(), atol=0.01)


def test_paper_starts_with_the_skills_own_q_and_actions(skill):
    start = finetune(skill, PLANE, FinetuneConfig(schedule="paper", **NOT_AT_ALL, **NEVER))
    obs = states(20)
    actions = skill.sample(obs, 9, seed=3)
    np.testing.assert_array_equal(start.sample(obs, 9, seed=3), actions)
    np.testing.assert_array_equal(start.q(obs, actions), skill.q(obs, actions))


def test_the_skill_itself_is_not_changed(skill):
    before = skill.parameters()
    brief = BRIEF | {"learning_starts": 20, "total_steps": 120, "frozen_updates": 0}
    for schedule in ("anchored", "paper"):
        tuned = finetune(skill, PLANE, FinetuneConfig(schedule=schedule, **brief, **NEVER))
        assert tuned.spec.updates > 0
        assert not np.array_equal(
            tuned.parameters()["sampler/0.weight"], before["sampler/0.weight"]
        )
    for name, value in skill.parameters().items():
        np.testing.assert_array_equal(value, before[name])


def test_the_anchor_stays_the_skill_and_the_sampler_starts_frozen(skill):
    brief = BRIEF | {"learning_starts": 20, "total_steps": 120, "frozen_updates": 1_000}
    with pytest.warns(UserWarning, match="will not change: all .* frozen_updates=1000; reduce"):
        tuned = finetune(skill, PLANE, FinetuneConfig(schedule="anchored", **brief, **NEVER))
    after, before = tuned.parameters(), skill.parameters()
    assert tuned.spec.updates > 0
    for name in before:
        if name.startswith("sampler/"):
            np.testing.assert_array_equal(after[name], before[name])
            np.testing.assert_array_equal(after[name.replace("sampler", "anchor")], before[name])
    assert not np.array_equal(after["critic/0.weight"], before["critic/0.weight"])


def test_lineage_and_name_are_recorded(skill, tmp_path):
    skill.save(tmp_path / "parent.h5")
    child = finetune(skill, PLANE, FinetuneConfig(schedule="paper", **NOT_AT_ALL))
    assert child.spec.parents == (skill.content_hash,)
    assert skill.spec.name == "small_world_plane"  # the task's, where none is given
    assert child.spec.name == "small_world_plane.small_world_plane"
    long = finetune(skill.with_spec(name="x" * 128), PLANE, FinetuneConfig(**NOT_AT_ALL))
    assert long.spec.name == "x" * 110 + ".small_world_plane"


@pytest.mark.parametrize("schedule", ["anchored", "paper"])
def test_new_blocks_enter_at_zero_and_learn(schedule):
    parent = pretrained("PointMassRun")
    known, actions = parent.spec.observation_size, parent.spec.action_size
    brief = BRIEF | {"frozen_updates": 0, "learning_starts": 36}

    def tuned(**changes):
        config = FinetuneConfig(schedule=schedule, **brief, **changes)
        return finetune(parent, "PointMassUMaze", config).parameters()

    start, end = tuned(total_steps=40, steps_per_update=100), tuned(total_steps=120)
    parts = {"sampler": slice(known, None)}
    if schedule == "anchored":  # its critics are new, and say 0
        assert (start["anchor/0.weight"][known:] == 0.0).all()
        assert (start["critic/out.weight"] == 0.0).all()
    else:
        parts["critic"] = slice(known, -actions)
    for part, new in parts.items():
        assert start[f"{part}/0.weight"][..., new, :].shape[-2] == 2
        assert (start[f"{part}/0.weight"][..., new, :] == 0.0).all()
        assert (end[f"{part}/0.weight"][..., new, :] != 0.0).any()


# The schedule.


def schedule_and_agent(skill, **changes):
    config = FinetuneConfig(**(BRIEF | {"learning_starts": 100, "total_steps": 5_000} | changes))
    task = Task(PLANE, 1)
    agent = started_agent(skill, task, config, 0, "cpu")
    task.close()
    return Schedule(config, skill, 0, "cpu"), agent


def test_temperature_falls_log_linearly_and_the_set_shrinks_linearly(skill):
    schedule, agent = schedule_and_agent(
        skill, final_temperature=0.005, anneal_steps=1_000, noise_set=21, shrink_steps=2_000
    )
    schedule(agent, 0)
    assert agent.temperature == pytest.approx(0.5)  # the skill's own
    sizes = {}
    for done in range(0, 2_001, 100):
        schedule(agent, 100 + done)
        expected = 0.5 * 0.01 ** min(1.0, done / 1_000)
        assert agent.temperature == pytest.approx(expected)
        sizes[done] = len(agent.noise_set)
        assert agent.handover == pytest.approx((sizes[done] - 1) / 20)
    assert sizes == {done: 21 - done // 100 for done in sizes}
    schedule(agent, 10**6)
    assert (len(agent.noise_set), agent.handover) == (1, 0.0)
    assert agent.temperature == pytest.approx(0.005)


def test_the_set_may_start_to_shrink_later(skill):
    schedule, agent = schedule_and_agent(skill, shrink_start=500, noise_set=8, shrink_steps=70)
    schedule(agent, 599)
    assert agent.noise_set is None
    assert agent.handover == 1.0
    schedule(agent, 600)
    assert len(agent.noise_set) == 8
    members = agent.noise_set.clone()
    schedule(agent, 640)
    torch.testing.assert_close(agent.noise_set, members[: len(agent.noise_set)])


def test_frozen_updates_freeze_the_sampler(skill):
    schedule, agent = schedule_and_agent(skill, frozen_updates=7)
    agent.updates = 6
    assert not schedule(agent, 200)
    agent.updates = 7
    assert schedule(agent, 200)


@pytest.mark.parametrize(("kind", "alpha"), [("anchored", 0.5), ("paper", 2.0)])
def test_the_soft_value_does_not_jump_when_densities_are_handed_over(kind, alpha, skill):
    """Frozen networks, fixed alpha: along the schedule each step is a small part of the way.

    Ending the densities at once would move the soft value by most of the way. The last few
    members are what they are: each weighs 1/K in the set.
    """
    schedule, agent = schedule_and_agent(
        skill,
        schedule=kind,
        temperature=alpha,
        final_temperature=alpha,
        sampler_learning_rate=5e-3,
        noise_set=64,
        shrink_start=10,
        shrink_steps=6_300,
        value_samples=2_000,
    )
    arrays = skill.critic.arrays()
    arrays["out.weight"] *= 5.0  # a task that is worth something
    agent.critic.load_arrays(arrays)
    agent.target_critic.load_arrays(arrays)
    for _ in range(400):  # and a sampling network that has learned it
        agent.update_sampler(torch.tensor(states(64), dtype=torch.float32))
    obs = torch.tensor(states(16), dtype=torch.float32)

    def value():
        agent.generator.manual_seed(0)
        return soft_value(*agent.proposals(obs), agent.temperature).mean().item()

    values = []
    for done in (0, *range(10, 6_311, 100)):  # one member less each time
        schedule(agent, 100 + done)
        values.append(value())
    assert len(agent.noise_set) == 1
    agent.noise_set, agent.handover = None, 0.0
    at_once = abs(value() - values[0])
    steps = np.abs(np.diff(values))
    assert at_once > 0.3
    assert steps[0] < at_once / 2  # from fresh noise to 64 members: the sampling error of 64
    assert steps[1:48].max() < at_once / 8  # 64 to 17 members
    assert np.abs(values[48] - values[1]) > at_once / 2  # most of the way is made by then


# The end.


def finished(skill, schedule="anchored", **changes):
    brief = BRIEF | {"learning_starts": 20, "total_steps": 200, "frozen_updates": 0}
    quick = {"anneal_steps": 100, "shrink_steps": 100, "noise_set": 6}
    return finetune(skill, PLANE, FinetuneConfig(schedule=schedule, **(brief | quick | changes)))


@pytest.mark.parametrize("schedule", ["anchored", "paper"])
def test_at_the_end_there_is_one_action_per_state(schedule, skill):
    end = finished(skill, schedule)
    assert end.spec.noise_set == 1
    obs = states(5)
    actions = end.sample(obs, 7, seed=0)
    np.testing.assert_array_equal(actions, np.repeat(actions[:, :1], 7, axis=1))
    np.testing.assert_allclose(end.predict(obs)[0], actions[:, 0], atol=1e-6)
    np.testing.assert_allclose(end.predict(obs, deterministic=True)[0], actions[:, 0], atol=1e-6)
    # its soft value is its Q of that action, which is the task's alone: the prior has faded
    np.testing.assert_allclose(end.value(obs), end.q(obs, actions[:, 0]), atol=1e-4)
    assert not end.spec.anchored
    assert not any(name.startswith("anchor/") for name in end.parameters())
    assert end.spec.temperature == pytest.approx(0.005)


def test_a_finished_skill_goes_on_with_its_own_members(skill):
    end = finished(skill)
    again = Schedule(FinetuneConfig(noise_set=4), end, seed=5, device="cpu")
    np.testing.assert_array_equal(again.noises.numpy(), end.parameters()["noise"])  # and no others
    obs = states(6)
    for way in ("anchored", "paper"):
        end = finished(skill, way)
        start = finetune(end, PLANE, FinetuneConfig(schedule="paper", **NOT_AT_ALL))
        action = end.predict(obs)[0]
        np.testing.assert_array_equal(start.predict(obs)[0], action)
        np.testing.assert_array_equal(start.q(obs, action), end.q(obs, action))


def test_half_a_noise_set_has_the_value_of_its_own_actions(skill):
    """While some of the prior is left, q and value both hold it."""
    half = finished(skill, shrink_steps=300)
    assert (half.spec.anchored, half.spec.noise_set) == (True, 3)
    obs, alpha = states(5), half.spec.temperature
    actions = half.sample(obs, 60, seed=0)
    for state, drawn, value in zip(obs, actions, half.value(obs), strict=True):
        members = np.unique(drawn, axis=0)
        assert len(members) == 3
        q = half.q(np.repeat(state[np.newaxis], 3, 0), members).astype(float)
        mean = q.max() + alpha * np.log(np.exp((q - q.max()) / alpha).mean())
        assert value == pytest.approx(mean, abs=1e-3)


def test_half_handed_over_it_goes_on_with_the_prior_that_is_left(skill):
    half = finished(skill, shrink_steps=300)
    start = finetune(half, PLANE, FinetuneConfig(schedule="paper", **NOT_AT_ALL, **NEVER))
    assert (start.spec.anchored, start.spec.noise_set) == (True, 3)
    obs = states(5)
    action = half.predict(obs)[0]
    np.testing.assert_allclose(start.q(obs, action), half.q(obs, action), atol=1e-5)
    config = FinetuneConfig(schedule="paper", **NOT_AT_ALL)
    agent = started_agent(half, Task(PLANE, 1), config, 0, "cpu")
    assert agent.anchor is not half.anchor  # which may go to another device


def test_a_set_of_its_own_begins_whole(skill):
    """Whatever an earlier recipe would have taken, had it come to that."""
    never = FinetuneConfig(schedule="anchored", noise_set=32, **NOT_AT_ALL, **NEVER)
    tuned, agent = finetune(skill, PLANE, never), SimpleNamespace(updates=0)
    smaller = never.changed(noise_set=8, shrink_start=0, learning_starts=0)
    Schedule(smaller, tuned, seed=0, device="cpu")(agent, 0)
    assert (len(agent.noise_set), agent.handover) == (8, 1.0)


def test_a_smaller_set_does_not_bring_the_prior_back(skill):
    half = finished(skill, shrink_steps=300)
    config = half.spec.config
    agent = SimpleNamespace(updates=0)
    for size in (6, 3, 2):
        tuned = config.changed(schedule="paper", noise_set=size, learning_starts=0)
        Schedule(tuned, half, seed=0, device="cpu")(agent, 0)
        assert len(agent.noise_set) == min(size, 3)
        assert agent.handover == (min(size, 3) - 1) / (6 - 1)


def test_what_does_not_say_what_it_does_alone_is_refused(skill):
    with pytest.raises(IncompatibleSkill, match=r"finite noise set.*use schedule 'paper'"):
        finetune(finished(skill), PLANE, FinetuneConfig(schedule="anchored", **NOT_AT_ALL))
    config = FinetuneConfig(schedule="anchored", **NOT_AT_ALL, **NEVER)
    anchored = finetune(skill, PLANE, config)
    with pytest.raises(IncompatibleSkill, match=r"is anchored.*use schedule 'anchored'"):
        finetune(anchored, PLANE, FinetuneConfig(schedule="paper", **NOT_AT_ALL))
    assert finetune(anchored, PLANE, config).spec.anchored


def test_a_recipe_takes_the_skills_own_units(skill):
    own = skill.spec.model_copy(update={"discount": 0.9, "reward_scale": 0.1})
    assert recipe_for(skill.spec, PLANE) == finetune_recipe(PLANE)
    with pytest.raises(SkillbankError, match="'walk' is only a name; load it first"):
        recipe_for("walk", PLANE)
    with pytest.raises(IncompatibleSkill, match=r"distill\(\) turns a composition into one"):
        recipe_for(skill & skill, PLANE)
    for env_id in (PLANE, "QuadrupedUMaze"):  # one begins at the skill's alpha, one at its own
        known, config = finetune_recipe(env_id), recipe_for(own, env_id)
        assert (config.discount, config.reward_scale) == (0.9, 0.1)
        assert config.final_temperature == pytest.approx(0.1 * known.final_temperature)
        assert (config.temperature is None) == (known.temperature is None)
    assert config.temperature == pytest.approx(0.1 * known.temperature)


def test_a_skill_of_one_action_is_fine_tuned_by_default():
    one = pretrained("SmallWorld/Line-v0")
    assert one.spec.architecture.sampler == "noise"
    config = recipe_for(one.spec, "SmallWorld/Line-v0")
    assert (config.schedule, config.objective, config.proposals) == ("paper", "stein", "uniform")
    assert recipe_for(one.spec, "SmallWorld/Line-v0", schedule="anchored").schedule == "anchored"
    brief = {"total_steps": 80, "learning_starts": 40, "num_envs": 4, "batch_size": 16}
    tuned = finetune(one, "SmallWorld/Line-v0", config.model_copy(update=brief))
    assert tuned.spec.updates > 0


def test_a_skill_that_was_never_saved_is_a_parent_too(skill):
    rescaled = skill.at_temperature(0.2)
    config = recipe_for(rescaled.spec, PLANE, schedule="paper").changed(**NOT_AT_ALL)
    child = finetune(rescaled, PLANE, config)
    hashes = [storage.content_hash(*one.stored()) for one in (rescaled, skill)]
    assert child.spec.parents == tuple(hashes)  # a bank may know the skill that was rescaled


def test_other_units_than_those_of_the_skills_own_q_are_warned_of(skill):
    own = recipe_for(skill.spec, PLANE, schedule="paper").changed(**NOT_AT_ALL)
    for unit, value in (("discount", 0.5), ("reward_scale", 3.0)):
        with pytest.warns(UserWarning, match=rf"is for {unit} .*, not {value}.*recipe_for"):
            finetune(skill, PLANE, own.changed(**{unit: value}))
    finetune(skill, PLANE, own.changed(schedule="anchored", discount=0.5))  # its Q starts at zero


def test_a_name_that_cannot_be_is_told_before_the_first_step(skill):
    steps = []
    hooks = Hooks(on_step=lambda training, step: steps.append(training.steps))
    config = FinetuneConfig(**BRIEF, learning_starts=36, total_steps=40)
    with pytest.raises(InvalidName, match="cannot be the name of a skill"):
        finetune(skill, PLANE, config, name="two words", hooks=hooks)
    brief = PretrainConfig(architecture=TINY, **BRIEF, learning_starts=36, total_steps=40)
    with pytest.raises(InvalidName, match="cannot be the name of a skill"):
        pretrain(PLANE, brief, name="two words", hooks=hooks)
    assert steps == []
    pretrain(PLANE, brief, name="one_word", hooks=hooks)
    assert steps[-1] == 40


# Anchored: the sampling network converges to pi_0 exp(Q / alpha).


class Slope(torch.nn.Module):
    """Q(s, a) = b . a."""

    def __init__(self, b):
        super().__init__()
        self.b = torch.tensor(b)

    def forward(self, obs, action):
        return (action @ self.b).unsqueeze(0)


@pytest.mark.parametrize(("objective", "particles"), [("divergence", 64), ("stein", 64)])
def test_anchored_sampler_learns_the_prior_times_the_energy(objective, particles):
    network = Architecture(sampler_hidden=(32,), critic_hidden=(8,))
    prior = FlowSampler(network, 1, 2)
    prior.initialise(torch.Generator().manual_seed(0))
    with torch.no_grad():
        prior["head.bias"][:4] += torch.tensor([0.5, -0.3, -0.5, -0.3])  # off centre, narrower
    alpha, slope = 0.2, [-0.6, 0.4]
    config = FinetuneConfig(
        objective=objective, particles=particles, sampler_learning_rate=3e-3, total_steps=10_000
    )
    agent = Agent(network, config, 1, 2, alpha, 0, anchor=prior)
    agent.sampler.load_arrays(prior.arrays())
    agent.critic = Slope(slope)
    for update in range(500):
        agent.sampler_optimiser.param_groups[0]["lr"] = 3e-3 * min(1.0, 2 * (1 - update / 500))
        agent.update_sampler(torch.zeros(4, 1))
    found = agent.act(torch.zeros(4_000, 1))
    with torch.no_grad():
        noise = torch.randn(1, 100_000, 2, generator=torch.Generator().manual_seed(1))
        action = torch.tanh(prior(torch.zeros(1, 1), noise)[0][0])
    weight = torch.softmax(action @ torch.tensor(slope) / alpha, 0)
    mean = weight @ action
    spread = (weight @ (action - mean).square()).sqrt()
    assert (action.mean(0) - mean).norm() > 0.15  # the energy moves the prior
    assert (found.mean(0) - mean).norm() < 0.04
    assert ((found.std(0) - spread).abs() / spread).max() < 0.12


# What does not go.


def test_a_skill_without_a_density_cannot_be_an_anchor():
    network = TINY.model_copy(update={"sampler": "noise"})
    noise_fed = pretrained(network=network, objective="stein", particles=4)
    with pytest.raises(IncompatibleSkill, match=r"--schedule paper\), or pretrain"):
        finetune(noise_fed, PLANE, FinetuneConfig(objective="stein", **NOT_AT_ALL))
    with pytest.raises(IncompatibleSkill, match="'stein' and proposals 'uniform'"):
        finetune(noise_fed, PLANE, FinetuneConfig(schedule="paper", **NOT_AT_ALL))
    finetune(noise_fed, PLANE, FinetuneConfig(schedule="paper", objective="stein", **NOT_AT_ALL))


def test_another_robot_is_refused_with_both_layouts(skill):
    with pytest.raises(IncompatibleSkill, match=r"observation +2 +3 +<--"):
        finetune(skill, "Pendulum-v1", FinetuneConfig(**NOT_AT_ALL))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"seed": -1}, "seed must be 0 or more"),
        ({"seed": 2**64}, "below 2"),
        ({"device": "cuda:99"}, "cpu"),
    ],
)
def test_seeds_and_devices_that_are_not_there(skill, wrong, message):
    with pytest.raises(SkillbankError, match=message):
        finetune(skill, PLANE, FinetuneConfig(**NOT_AT_ALL), **wrong)
    with pytest.raises(SkillbankError, match=message):
        pretrain(PLANE, PretrainConfig(**NOT_AT_ALL), **wrong)


def test_a_seed_may_be_numpys_and_the_other_recipe_is_refused(skill):
    own = pretrain(PLANE, PretrainConfig(architecture=TINY, **NOT_AT_ALL), seed=np.int64(3))
    assert own.spec.seed == 3
    with pytest.raises(SkillbankError, match=r"FinetuneConfig.*not PretrainConfig"):
        finetune(skill, PLANE, PretrainConfig(**NOT_AT_ALL))
    with pytest.raises(SkillbankError, match=r"PretrainConfig.*not FinetuneConfig"):
        pretrain(PLANE, FinetuneConfig(**NOT_AT_ALL))


def test_a_policy_that_stays_frozen_is_warned_of(skill):
    """Updates of one step of all copies are frozen together: 8 here, of 8 in all."""
    whole = {"learning_starts": 36, "total_steps": 52, "steps_per_update": 2, "num_envs": 16}
    config = FinetuneConfig(**BRIEF | whole | {"frozen_updates": 3})
    with pytest.warns(UserWarning, match="the policy will not change: all 8 updates"):
        finetune(skill, PLANE, config)


def test_hand_over_ends_at_the_value_of_the_set(skill):
    schedule, agent = schedule_and_agent(skill, noise_set=5, shrink_steps=40)
    schedule(agent, 10_000)
    obs = torch.tensor(states(8), dtype=torch.float32)
    agent.target_critic.load_arrays(skill.critic.arrays())
    with torch.no_grad():
        action = torch.tanh(agent.sampler(obs, agent.noise_set.expand(8, -1, -1))[0])
        expected = agent.target_critic(obs, action).amin(0).squeeze(1)
    value = soft_value(*agent.proposals(obs), agent.temperature)
    torch.testing.assert_close(value, expected, atol=1e-4, rtol=1e-4)
    assert math.isclose(agent.handover, 0.0)


def test_paper_starts_with_the_skills_own_targets(skill):
    agent = schedule_and_agent(skill, schedule="paper")[1]
    for name, value in skill.target_critic.arrays().items():
        np.testing.assert_array_equal(agent.target_critic.arrays()[name], value)
    assert not np.array_equal(value, skill.critic.arrays()[name])


@pytest.mark.parametrize("symmetry", [True, False])
def test_fine_tuning_learns_through_the_tasks_symmetries(symmetry):
    parent, seen = pretrained("PointMassRun"), set()
    hooks = Hooks(on_step=lambda run, _: seen.add(getattr(run.agent.symmetries, "count", None)))
    config = FinetuneConfig(symmetry=symmetry, **NOT_AT_ALL, **NEVER)
    finetune(parent, "PointMassHallway", config, hooks=hooks)
    assert seen == {4 if symmetry else None}  # the hallway's, not the eight of the open floor


def test_the_first_steps_are_the_skills_own(skill):
    told = []
    hooks = Hooks(on_step=lambda run, _: told.append(run.warm))
    finetune(skill, PLANE, FinetuneConfig(**NOT_AT_ALL, **NEVER), hooks=hooks)
    assert set(told) == {True}


def test_another_seed_has_other_members(skill):
    config = FinetuneConfig(noise_set=4)
    one, same, other = (Schedule(config, skill, seed, "cpu").noises for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_what_ends_in_a_finite_set_has_no_symmetries():
    parent = pretrained("PointMassRun")
    quick = {"anneal_steps": 100, "shrink_steps": 100, "noise_set": 6, "frozen_updates": 0}
    config = FinetuneConfig(**BRIEF, learning_starts=20, total_steps=200, **quick)
    end = finetune(parent, "PointMassHallway", config)
    assert end.spec.noise_set == 1
    assert end.spec.symmetries == ()
