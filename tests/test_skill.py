"""A skill's numbers: shapes, units, densities that integrate to one, and how it acts."""

import math
import warnings
from pathlib import Path
from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest
import small_worlds
import torch
from stable_baselines3.common.evaluation import evaluate_policy

import skillbank
from skillbank import Bank, evaluation, export, figures
from skillbank.config import Architecture, FinetuneConfig, PretrainConfig
from skillbank.errors import IncompatibleSkill, SkillbankError, UnsupportedEnvironment
from skillbank.evaluation import Evaluation, evaluate
from skillbank.film import film
from skillbank.finetuning import finetune
from skillbank.pretraining import pretrain
from skillbank.skill import CANDIDATES, Skill
from skillbank.spec import ObservationBlock, Symmetry, kept_kwargs, parameter_shapes
from skillbank.task import Task

TINY = Architecture(critic_hidden=(16,), sampler_hidden=(16,), couplings=2, coupling_hidden=4)
LOPSIDED = "SmallWorld/Lopsided-v0"
BRIEF = {
    "num_envs": 4,
    "batch_size": 16,
    "replay_capacity": 500,
    "learning_starts": 40,
    "total_steps": 120,
}


def trained(env_id=LOPSIDED, **changes):
    return pretrain(env_id, PretrainConfig(architecture=TINY, **(BRIEF | changes)), seed=0)


@pytest.fixture(scope="module")
def skill():
    """Two actions of type float64 in [-0.1, 0.3] x [-2, 0.5]; its Q is made to matter."""
    return sharpened(trained(temperature=0.5))


def sharpened(skill, factor=4.0):
    parameters = skill.parameters()
    parameters["critic/out.weight"] = parameters["critic/out.weight"] * np.float32(factor)
    return Skill(skill.spec, parameters)


def anchored_to(skill, env_id=LOPSIDED):
    """A fine-tuned skill that still acts by fresh noise."""
    brief = BRIEF | {"frozen_updates": 0, "shrink_start": 10_000}
    return sharpened(finetune(skill, env_id, FinetuneConfig(schedule="anchored", **brief)))


def states(count, size=3):
    return np.random.default_rng(0).uniform(-1, 1, (count, size))


# Shapes and units.


def test_shapes_and_types(skill):
    obs, actions = states(4), skill.sample(states(4), 5, seed=0)
    assert actions.shape == (4, 5, 2)
    assert actions.dtype == np.float64
    q = skill.q(obs, actions)
    assert (q.shape, q.dtype) == ((4, 5), np.float32)
    np.testing.assert_allclose(skill.q(obs, actions[:, 3]), q[:, 3], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(skill.energy(obs, actions), -q / 0.5, rtol=1e-6)
    assert skill.value(obs).shape == (4,)
    action, memory = skill.predict(obs)
    assert action.shape == (4, 2)
    assert memory is None
    assert skill.predict(obs[0])[0].shape == (2,)
    assert skill.parameters().keys() == parameter_shapes(skill.spec).keys()


def test_lists_and_integers_are_taken_as_observations(skill):
    assert skill.value([[0, 1, 0]]).shape == (1,)
    assert skill.predict([0, 1, 0])[0].shape == (2,)


def test_actions_are_in_the_environments_units_and_within_its_bounds(skill):
    low, high = small_worlds.Lopsided.LOW, small_worlds.Lopsided.HIGH
    actions = skill.sample(states(200), 50, seed=0).reshape(-1, 2)
    assert (actions >= low).all()
    assert (actions <= high).all()
    assert (np.ptp(actions, axis=0) > 0.8 * (high - low)).all()  # they use them, too


def test_q_is_a_function_of_the_environments_units(skill):
    """The middle of the bounds is the network's zero."""
    obs = states(3)
    middle = (small_worlds.Lopsided.LOW + small_worlds.Lopsided.HIGH) / 2
    q = skill.q(obs, np.tile(middle, (3, 1)))
    with torch.no_grad():
        inside = skill.critic(torch.tensor(obs, dtype=torch.float32), torch.zeros(3, 2)).amin(0)
    np.testing.assert_allclose(q, inside.numpy(), atol=1e-6)


@pytest.mark.parametrize(
    ("obs", "action", "message"),
    [
        (np.zeros(3), np.zeros((1, 2)), r"expected observations \[B, 3\]"),
        (np.zeros((4, 5)), np.zeros((4, 2)), r"expected observations \[B, 3\], got \(4, 5\)"),
        (np.zeros((4, 3)), np.zeros((4, 3)), r"expected actions \[\.\.\., 2\]"),
        (np.zeros((4, 3)), np.zeros((5, 2)), "do not go together"),
        (np.zeros((4, 3)), np.zeros(2), "do not go together"),
        (np.zeros((4, 3)), np.full((4, 2), np.inf), "actions must be finite, got inf"),
        (np.zeros((4, 3)), [[0.0], [0.0, 1.0]], "actions must be numbers of one shape"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(skill, obs, action, message):
    with pytest.raises(ValueError, match=message):
        skill.q(obs, action)


def test_what_a_reset_returns_is_not_an_observation(skill):
    obs = states(1)[0]
    skill.predict(tuple(obs.tolist()))
    with pytest.raises(ValueError, match=r"obs, info = env.reset\(\)"):
        skill.predict((obs, {}))


def test_one_observation_is_told_from_a_batch(skill):
    with pytest.raises(ValueError, match=r"got one observation .*obs\[None\]"):
        skill.q(np.zeros(skill.spec.observation_size), np.zeros((1, skill.spec.action_size)))


def test_what_is_no_array_is_told(skill):
    with pytest.raises(ValueError, match=r"expected observations \[B, 3\] of numbers, got dict"):
        skill.q({"velocity": 1.0}, np.zeros((1, 2)))
    with pytest.raises(TypeError):
        skill.sample(states(1), 2, seed=1.5)


def test_a_skill_has_no_truth_value(skill):
    with pytest.raises(TypeError, match="compose with &"):
        _ = skill and skill


@pytest.mark.parametrize("kind", [ValueError, skillbank.SkillbankError])
def test_a_bad_argument_is_a_value_error_and_one_of_ours(skill, kind):
    with pytest.raises(kind, match="n must be at least 1"):
        skill.sample(states(1), 0)
    with pytest.raises(kind, match="episodes must be >= 1"):
        skillbank.evaluate(skill, episodes=0)
    with pytest.raises(kind, match="positive number"):
        skill.at_temperature(0.0)
    with pytest.raises(kind, match="finite weights"):
        skillbank.compose.add({skill: math.inf})
    with pytest.raises(kind, match="cannot be the name"):
        skillbank.Bank().save(skill, "a/b")


# Densities: exp((q - value) / temperature) integrates to one over the box scaled to [-1, 1]^A.


def quadrature(skill, obs, cells):
    """Alpha log INT exp(q / alpha) da by midpoints."""
    low, high = np.array(skill.spec.action_low), np.array(skill.spec.action_high)
    middle = (np.arange(cells) + 0.5) * 2 / cells - 1
    grid = np.stack([x.ravel() for x in np.meshgrid(*[middle] * len(low))], 1)
    own = low + (grid + 1) / 2 * (high - low)
    alpha = skill.spec.temperature
    q = skill.q(obs, np.broadcast_to(own, (len(obs), *own.shape))).astype(np.float64)
    top = q.max(1)
    mass = np.exp((q - top[:, None]) / alpha).sum(1) * (2 / cells) ** len(low)
    return top + alpha * np.log(mass)


def assert_normalised(skill, obs, cells):
    alpha, expected = skill.spec.temperature, quadrature(skill, obs, cells)
    value = skill.value(obs)
    # 256 proposals, at some states a tenth of them effective: 0.2 alpha
    assert np.abs(value - expected).max() < 0.6 * alpha
    assert abs((value - expected).mean()) < 0.03 * alpha
    integral = np.exp((expected - value) / alpha)  # of exp((q - value) / alpha)
    assert integral.mean() == pytest.approx(1.0, abs=0.04)


def test_policy_integrates_to_one(skill):
    obs = states(100)
    assert np.ptp(skill.q(obs, skill.sample(obs, 50, seed=1))) > 0.5  # there is something to weigh
    assert_normalised(skill, obs, 60)


def test_policy_of_one_action_integrates_to_one():
    assert_normalised(sharpened(trained("Pendulum-v1", temperature=0.5)), states(100), 400)


def test_policy_of_an_anchored_skill_integrates_to_one(skill):
    anchored = anchored_to(skill)
    assert anchored.spec.anchored
    assert_normalised(anchored, states(100), 120)


# Acting.


def test_a_seed_decides_what_is_sampled(skill):
    obs = states(4)
    np.testing.assert_array_equal(skill.sample(obs, 3, seed=7), skill.sample(obs, 3, seed=7))
    assert not np.array_equal(skill.sample(obs, 3, seed=7), skill.sample(obs, 3, seed=8))
    assert not np.array_equal(skill.sample(obs, 3), skill.sample(obs, 3))  # its stream goes on
    assert not np.array_equal(skill.predict(obs)[0], skill.predict(obs)[0])


def test_deterministic_actions_are_repeatable_and_better_than_most(skill):
    obs = states(50)
    best = skill.predict(obs, deterministic=True)[0]
    np.testing.assert_array_equal(best, skill.predict(obs, deterministic=True)[0])
    # alone or in company: the same up to the rounding of batched products
    np.testing.assert_allclose(best[3], skill.predict(obs[3], deterministic=True)[0], atol=1e-4)
    others = skill.q(obs, skill.sample(obs, 200, seed=0))
    assert (skill.q(obs, best)[:, None] > others).mean() > 0.85


def test_the_best_of_saturated_actions_is_found_under_an_anchor(skill):
    """Actions that all round to the bound still differ in the density of the anchor."""
    anchored = anchored_to(skill)
    parameters = anchored.parameters()
    for part in ("sampler", "anchor"):
        parameters[f"{part}/head.bias"][0] = 9.0  # the mean of u: tanh(9) is within 3e-8 of 1
    for name in ("out.weight", "out.bias"):
        parameters[f"critic/{name}"][:] = 0.0  # the prior alone decides
    saturated, obs = Skill(anchored.spec, parameters), states(20)
    noise = torch.randn(CANDIDATES, 2, generator=torch.Generator().manual_seed(0))
    noise[0] = 0.0
    seen = torch.tensor(obs, dtype=torch.float32)
    with torch.no_grad():
        u = saturated.sampler(seen, noise.expand(20, -1, -1))[0]
        # The density of actions, in double precision: tanh' = 1 / cosh^2.
        log_squash = -2.0 * torch.log(torch.cosh(u.double())).sum(-1)
        best = (saturated.anchor.log_density(seen, u) - log_squash).argmax(1)
    expected = saturated.unscaled(torch.tanh(u[torch.arange(20), best]))
    action = saturated.predict(obs, deterministic=True)[0]
    np.testing.assert_allclose(action, expected, atol=1e-6)


def test_each_symmetry_is_drawn_and_undone():
    """A skill that moves to the right, with a mirror: half of its actions go left."""
    task = trained("SmallWorld/Plane-v0")
    parameters = task.parameters()
    parameters["sampler/head.bias"][0] += 3.0  # u_x about 3, whatever the state
    mirror = Symmetry(
        name="mirror", obs_index=(0, 1), obs_sign=(-1, 1), action_index=(0, 1), action_sign=(-1, 1)
    )
    same = Symmetry(
        name="identity", obs_index=(0, 1), obs_sign=(1, 1), action_index=(0, 1), action_sign=(1, 1)
    )
    spec = task.spec.model_copy(update={"symmetries": (same, mirror)})
    actions = Skill(spec, parameters).sample(states(20, 2), 50, seed=0)
    assert 0.4 < (actions[..., 0] < 0).mean() < 0.6
    one_sided = Skill(task.spec, parameters).sample(states(20, 2), 50, seed=0)
    assert (one_sided[..., 0] > 0).mean() > 0.95


@pytest.mark.parametrize("env_id", ["Pendulum-v1", LOPSIDED])
def test_stable_baselines3_can_evaluate_a_skill(env_id):
    env = gymnasium.make(env_id)
    for deterministic in (True, False):
        mean, _ = evaluate_policy(trained(env_id), env, 2, deterministic=deterministic, warn=False)
        assert np.isfinite(mean)
    env.close()


@pytest.mark.parametrize("env_id", ["Pendulum-v1", LOPSIDED, "PointMassHallway"])
def test_evaluation_measures_whole_episodes(env_id):
    skill = trained(env_id)
    found = evaluate(skill, env_id, episodes=3, seed=5)
    assert found.returns.shape == found.lengths.shape == (3,)
    assert found.lengths.min() == found.lengths.max() > 1  # none of these ends early
    low, high = found.interval
    assert low <= found.mean_return <= high
    record = found.record()
    assert (record.episodes, record.seed) == (3, 5)
    assert not any(name.startswith("reward/") for name in record.metrics)
    if env_id == "PointMassHallway":
        assert len(found.traces) == 3
        assert found.traces[0].shape == (found.lengths[0] + 1, 2)
        assert found.sectors.sum() == pytest.approx(1.0)
        travelled = np.linalg.norm(found.traces[1][-1] - found.traces[1][0])
        assert found.metrics["net_distance"][1] == pytest.approx(travelled)
    with pytest.raises(SkillbankError, match="episodes must be >= 1"):
        evaluate(skill, env_id, episodes=0)
    with pytest.raises(SkillbankError, match="below"):
        evaluate(skill, env_id, seed=2**64)
    again = evaluate(skill, env_id, episodes=np.int64(3), seed=np.int64(5))
    np.testing.assert_array_equal(again.returns, found.returns)


def test_an_evaluation_is_its_seeds_whatever_the_skill_did_before(skill):
    first, other = (evaluate(skill, LOPSIDED, episodes=3, seed=seed).returns for seed in (1, 2))
    np.testing.assert_array_equal(evaluate(skill, LOPSIDED, episodes=3, seed=1).returns, first)
    assert not np.isin(first, other).any()  # also where all episodes start alike
    both = skill & sharpened(skill)
    first, other = (evaluate(both, LOPSIDED, episodes=2, seed=seed).returns for seed in (1, 2))
    np.testing.assert_array_equal(evaluate(both, LOPSIDED, episodes=2, seed=1).returns, first)
    assert not np.isin(first, other).any()


@pytest.mark.parametrize("compose", [False, True])
def test_an_evaluation_leaves_the_random_actions_of_a_skill_alone(skill, compose):
    policy = skill & sharpened(skill) if compose else skill
    obs = np.zeros((2, policy.spec.observation_size))
    undisturbed = policy.reseeded(7)
    expected = [undisturbed.predict(obs)[0] for _ in range(2)]
    disturbed = policy.reseeded(7)
    first = disturbed.predict(obs)[0]
    evaluate(disturbed, LOPSIDED, episodes=2, seed=1)
    np.testing.assert_array_equal([first, disturbed.predict(obs)[0]], expected)
    assert (expected[0] != expected[1]).all()


def test_keywords_for_the_environment_are_given_as_to_a_training():
    errand = {"length": 3, "weather": True}
    for how in ({"env_kwargs": errand}, errand, {"env_kwargs": {"length": 9}, **errand}):
        found = evaluate(Still(), "SmallWorld/Errand-v0", episodes=20, seed=1, **how)
        assert set(found.lengths) == {3, 4, 5, 6}  # Errand's length, and up to three more


@pytest.fixture
def closed(monkeypatch):
    """The environments that were closed."""
    found = []

    def close(self):
        found.append(self)

    monkeypatch.setattr(small_worlds.Lopsided, "close", close)
    return found


def test_an_evaluation_reports_how_far_it_is(skill, monkeypatch):
    monkeypatch.setattr(evaluation, "MAX_COPIES", 4)
    seen = []
    found = evaluate(skill, LOPSIDED, episodes=6, report=lambda *told: seen.append(told))
    ended, steps = zip(*seen, strict=True)
    assert list(ended) == sorted(ended)
    assert ended[-1] == 6
    both = [found.lengths[:4].max(), found.lengths[4:].max()]  # the copies that ran at once
    assert list(steps) == [step + 1 for length in both for step in range(length)]


@pytest.mark.parametrize(
    ("action", "told"),
    [
        (np.zeros((2, 3)), r"have shape \(2, 3\); Pendulum-v1 needs \(2, 1\)"),
        (np.zeros(2), r"have shape \(2,\); Pendulum-v1 needs \(2, 1\)"),
        (np.full((2, 1), np.nan), "action of the policy for Pendulum-v1 is not finite"),
    ],
)
def test_actions_that_the_task_would_misread_are_refused(action, told):
    policy = SimpleNamespace(predict=lambda *_args, **_named: (action, None))
    with pytest.raises(IncompatibleSkill, match=told):
        evaluate(policy, "Pendulum-v1", episodes=2)


def test_an_environment_is_closed_where_a_policy_breaks(closed):
    with pytest.raises(ZeroDivisionError):
        evaluate(Still(breaks=True), LOPSIDED, episodes=2)
    assert len(closed) == 2


def test_an_environment_is_closed_where_nothing_begins(skill, closed):
    other = skill.with_spec(action_high=(0.3, 0.6))
    with pytest.raises(IncompatibleSkill):
        finetune(other, LOPSIDED, FinetuneConfig(frozen_updates=0, **BRIEF))
    assert len(closed) == BRIEF["num_envs"]
    with pytest.raises(SkillbankError, match="cannot be allocated"):
        trained(replay_capacity=10**17)
    assert len(closed) == 2 * BRIEF["num_envs"]


class Still:
    """Does nothing, or breaks."""

    def __init__(self, breaks=False):
        self.breaks = breaks

    def predict(self, observation, *, deterministic=False):
        if self.breaks:
            raise ZeroDivisionError
        return np.zeros((len(observation), 2)), None


def test_a_task_without_a_nominal_start_says_so(skill):
    with pytest.raises(UnsupportedEnvironment, match="has no nominal start"):
        evaluate(skill, LOPSIDED, episodes=2, nominal_start=True)
    with pytest.raises(UnsupportedEnvironment, match="has no nominal start"):
        evaluate(skill, LOPSIDED, episodes=1, nominal_start=True)


def test_sectors_have_the_axes_in_their_middle():
    ways = np.deg2rad([-10.0, 10.0, 20.0, 44.0, 91.0, -170.0, 190.0, 179.0])
    found = Evaluation("Plain-v0", 0, np.zeros(8), np.ones(8, np.int64), {"direction": ways})
    np.testing.assert_array_equal(8 * found.sectors, [3, 1, 1, 0, 3, 0, 0, 0])


def test_what_has_no_mean_is_not_kept():
    metrics = {"goal": np.array([-1.0, 3.0]), "direction": np.zeros(2), "success": np.ones(2)}
    found = Evaluation("SmallWorld/Errand-v0", 0, np.zeros(2), np.ones(2, np.int64), metrics)
    assert found.record().metrics == {"success": 1.0}


def test_evaluation_counts_each_episode_once():
    """A constant policy on the asymmetric task earns 20 times the same reward."""
    constant = SimpleNamespace(
        predict=lambda obs, deterministic=False: (np.tile([0.3, -2.0], (len(obs), 1)), None)
    )
    found = evaluate(constant, LOPSIDED, episodes=2)
    np.testing.assert_allclose(found.returns, 20 * 2.3, rtol=1e-6)
    np.testing.assert_array_equal(found.lengths, 20)


# Keeping and fitting.


@pytest.mark.parametrize("episodes", [1, 7])
def test_metrics_are_of_the_end_also_where_they_are_told_there_alone(episodes):
    policy = SimpleNamespace(predict=lambda obs, deterministic: (np.zeros((len(obs), 2)), None))
    found = evaluate(policy, "SmallWorld/Errand-v0", episodes=episodes, seed=3, length=3)
    np.testing.assert_array_equal(found.metrics["t"], found.lengths)
    np.testing.assert_array_equal(found.metrics["is_success"], 1.0)
    odd = found.lengths % 2 == 1
    np.testing.assert_array_equal(found.metrics["second"], np.where(odd, 2.0, np.inf))
    assert np.isnan(found.metrics["never"]).all()
    assert "late" not in found.metrics  # what only a reset tells is not of an end
    assert found.traces == ()  # its place is no array of numbers
    kept = found.record().metrics
    assert kept["t"] == found.lengths.mean()
    assert set(kept) == {"t", "is_success"} | ({"second"} if odd.any() else set())
    with pytest.raises(SkillbankError, match="Errand-v0 reports no positions"):
        _ = found.sectors


def walked(tell, episodes=6):
    policy = SimpleNamespace(predict=lambda obs, deterministic: (np.zeros((len(obs), 2)), None))
    return evaluate(policy, "SmallWorld/Walk-v0", episodes=episodes, tell=tell)


def test_numbers_are_told_in_any_type_and_what_is_none_harms_nothing():
    def tell(t, over):
        place = np.array([t, 0]) if t == 0 else np.array([0.9 * t, 0.0])
        told = {"success": np.bool_(t == 4), "bonus": 0 if t % 2 else 0.75, "far": np.array(t)}
        odd = {"near": 1 if t < 2 else None, "contacts": np.ones(t), "word": "on", "at": np.ones(3)}
        return told | odd | {"position": place}

    found = walked(tell)
    assert 0 < (found.lengths == 4).sum() < 6
    np.testing.assert_array_equal(found.metrics["success"], found.lengths == 4)
    np.testing.assert_array_equal(found.metrics["bonus"], np.where(found.lengths == 4, 0.75, 0.0))
    np.testing.assert_array_equal(found.metrics["far"], found.lengths)
    np.testing.assert_array_equal(found.metrics["near"], 1.0)
    assert set(found.metrics) == {"success", "bonus", "far", "near", "net_distance", "direction"}
    for trace in found.traces:
        np.testing.assert_allclose(trace[:, 0], 0.9 * np.arange(len(trace)))


def test_an_end_that_tells_nothing_is_not_told_of_the_next_start():
    found = walked(lambda t, over: {} if over else {"position": np.array([t, 0.0]), "t": t})
    np.testing.assert_array_equal(found.metrics["t"], found.lengths - 1)
    np.testing.assert_array_equal(found.metrics["net_distance"], found.lengths - 1)
    assert walked(lambda t, over: {} if t else {"start": 1.0}).metrics == {}


def test_what_a_file_cannot_call_a_metric_is_not_kept():
    odd = {3: 1.0, "": 1.0, "a\nb": 1.0, "x" * 400: 1.0, "good": 2.0}
    assert walked(lambda t, over: odd).record().metrics == {"good": 2.0}
    many = {f"m{i}": 1.0 for i in range(3000)}
    assert len(walked(lambda t, over: many, episodes=1).record().metrics) == 500
    with pytest.raises(UnsupportedEnvironment, match=r"position has shape \(3,\), and \(2,\)"):
        walked(lambda t, over: {"position": np.zeros(3 if t else 2)})


def test_a_metric_may_be_missing_in_some_of_the_copies_that_run_at_once(monkeypatch):
    policy = SimpleNamespace(predict=lambda obs, deterministic: (np.zeros((len(obs), 2)), None))
    whole = evaluate(policy, "SmallWorld/Errand-v0", episodes=7, seed=3, length=1)
    assert 1 < np.isfinite(whole.metrics["second"]).sum() < 7  # told in the second step alone
    monkeypatch.setattr(evaluation, "MAX_COPIES", 1)
    single = evaluate(policy, "SmallWorld/Errand-v0", episodes=7, seed=3, length=1)
    assert set(single.metrics) == set(whole.metrics)
    for name, values in whole.metrics.items():
        np.testing.assert_array_equal(single.metrics[name], values)


def test_an_episode_without_end_is_told(skill, monkeypatch):
    monkeypatch.setattr(evaluation, "MAX_STEPS", 50)
    with pytest.raises(UnsupportedEnvironment, match=r"in 50 steps: it needs max_episode_steps"):
        evaluate(skill, episodes=2, max_episode_steps=-1)


def test_a_task_of_ones_own_may_gain_blocks():
    config = PretrainConfig(architecture=TINY, **BRIEF)
    made = {"length": 3}
    errand = pretrain("SmallWorld/Errand-v0", config, env_kwargs=made)
    tuning = FinetuneConfig(frozen_updates=1, **BRIEF)
    seen = finetune(errand, "SmallWorld/Errand-v0", tuning, env_kwargs=made | {"weather": True})
    assert [block.name for block in seen.spec.observation_blocks] == ["clock", "weather"]
    assert evaluate(seen, episodes=2).lengths.max() <= 6


def test_a_tilde_is_the_home_folder(skill, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    skill.save("~/skill.h5")
    assert (tmp_path / "skill.h5").exists()
    assert Skill.load("~/skill.h5").content_hash == skill.content_hash
    stored = Bank(tmp_path / "bank").read(Path("~/skill.h5"))
    export.to_safetensors(stored, "~/skill.safetensors")
    found = export.from_safetensors("~/skill.safetensors")
    assert found.parameters.keys() == stored.parameters.keys()
    assert (tmp_path / "skill.safetensors").exists()


def test_pictures_and_films_take_a_path_as_text(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    skill = trained("MultiGoal")
    figures.learning_curve(skill.spec.learning_curve, "~/curve.png", title="curve")
    figures.traces([("", evaluate(skill, episodes=2))], None, "~/traces.png")
    film(skill, None, "~/film.gif")
    assert {"curve.png", "traces.png", "film.gif"} <= {path.name for path in tmp_path.iterdir()}


def test_saved_and_loaded_it_is_the_same_bit_for_bit(skill, tmp_path):
    skill.save(tmp_path / "skill.h5")
    loaded = Skill.load(tmp_path / "skill.h5")
    assert loaded.spec == skill.spec
    assert loaded.content_hash == skill.content_hash
    for name, value in skill.parameters().items():
        np.testing.assert_array_equal(loaded.parameters()[name], value)
    obs = states(4)
    np.testing.assert_array_equal(loaded.sample(obs, 3, seed=1), skill.sample(obs, 3, seed=1))


def with_blocks(*blocks, low=None, high=None):
    """As much of a task as fitting looks at."""
    named = tuple(ObservationBlock(name=name, size=size) for name, size in blocks)
    return SimpleNamespace(
        env_id="Somewhere-v0",
        model_hash=None,
        observation_blocks=named,
        observation_size=sum(block.size for block in named),
        action_low=small_worlds.Lopsided.LOW if low is None else low,
        action_high=small_worlds.Lopsided.HIGH if high is None else high,
    )


@pytest.mark.parametrize("kind", ["flow", "noise", "anchored"])
def test_new_blocks_change_nothing_at_first(kind, skill):
    if kind == "anchored":
        before = anchored_to(skill)
    elif kind == "noise":
        network = TINY.model_copy(update={"sampler": "noise"})
        brief = BRIEF | {"objective": "stein", "particles": 4}
        before = pretrain(LOPSIDED, PretrainConfig(architecture=network, **brief))
    else:
        before = skill
    # the known block lies in the middle now
    after = before.fitted_to(with_blocks(("wall", 4), ("observation", 3), ("goal", 2)))
    narrow = states(6)
    wide = np.random.default_rng(1).normal(size=(6, 9)) * 5.0
    wide[:, 4:7] = narrow
    actions = before.sample(narrow, 5, seed=0)
    np.testing.assert_allclose(after.sample(wide, 5, seed=0), actions, atol=1e-6)
    np.testing.assert_allclose(after.q(wide, actions), before.q(narrow, actions), atol=1e-5)
    np.testing.assert_allclose(after.value(wide), before.value(narrow), atol=1e-5)
    weight = after.parameters()["critic/0.weight"]
    assert (weight[:, [0, 1, 2, 3, 7, 8]] == 0.0).all()
    assert after.parameters().keys() == parameter_shapes(after.spec).keys()


def test_a_skill_made_of_another_goes_on_with_its_random_actions():
    run, obs = trained("PointMassRun"), np.zeros((1, 2))
    ways = (
        (run, lambda skill: skill.with_spec(name="other")),
        (run, lambda skill: skill.at_temperature(2.0)),
        (run & run, lambda both: both.acting_with(uniform=4)),
        (run & run, lambda both: both.at_temperature(2.0)),
    )
    for skill, way in ways:
        first, again, other = (way(skill.reseeded(seed)).predict(obs)[0] for seed in (1, 1, 2))
        np.testing.assert_array_equal(first, again)
        assert (first != other).any()
    run.predict(obs)  # a skill that has drawn already goes on from there
    wide, later = run.fitted_to("PointMassHallway"), run.predict(obs)[0]
    np.testing.assert_array_equal(wide.predict(np.zeros((1, 4)))[0], later)


def test_the_same_blocks_are_the_same_skill(skill):
    task = Task(LOPSIDED, 1)
    assert skill.fitted_to(task) is skill
    task.close()


def test_a_skill_is_fitted_to_a_task_by_its_id_or_to_an_environment():
    skill = trained("PointMassRun")
    both = skill & skill.with_spec(name="twin")
    task = Task("PointMassHallway", 1)
    single = gymnasium.make("skillbank/PointMassHallway-v0")
    many = gymnasium.make_vec("skillbank/PointMassHallway-v0", num_envs=3)
    obs, action = single.reset(seed=1)[0][None], np.full((1, 2), 0.3)
    for one in (skill, both):
        expected = one.fitted_to(task).q(obs, action)
        for place in ("PointMassHallway", "skillbank/PointMassHallway-v0", single, many):
            fitted = one.fitted_to(place)
            assert fitted.spec.observation_blocks == task.observation_blocks
            np.testing.assert_array_equal(fitted.q(obs, action), expected)
        with pytest.raises(ValueError, match=r"observes velocity 2\b.*skill\.fitted_to\(\"Point"):
            one.q(obs, action)
        assert one.fitted_to(single).observation_space.shape == single.observation_space.shape
        assert one.action_space == single.action_space
    for made in (task, single, many):
        made.close()


def test_a_skill_is_fitted_to_an_environment_in_other_processes():
    id_, how = "skillbank/PointMassHallway-v0", {"num_envs": 2, "vectorization_mode": "async"}
    many = gymnasium.make_vec(id_, **how)
    normalised = gymnasium.wrappers.NormalizeObservation
    running = gymnasium.make_vec(id_, wrappers=[normalised], **how)
    try:
        fitted = trained("PointMassRun").fitted_to(many)
        assert [b.name for b in fitted.spec.observation_blocks] == ["velocity", "position"]
        with pytest.raises(UnsupportedEnvironment, match="running statistics are not in a skill"):
            trained("PointMassRun").fitted_to(running)
    finally:
        many.close()
        running.close()


def test_running_statistics_are_refused_where_a_skill_is_fitted():
    inside = gymnasium.wrappers.NormalizeObservation(gymnasium.make("skillbank/PointMassRun-v0"))
    with pytest.raises(UnsupportedEnvironment, match="running statistics are not in a skill"):
        trained("PointMassRun").fitted_to(inside)


def test_a_wrapper_that_changes_what_is_observed_is_seen():
    """The blocks that the task inside declares are then not those of the observation."""
    env = gymnasium.make("skillbank/PointMassHallway-v0")
    wrapped = gymnasium.wrappers.TimeAwareObservation(env)
    with pytest.raises(IncompatibleSkill, match=r"observation +- +5"):
        trained("PointMassRun").fitted_to(wrapped)
    env.close()


def test_another_model_of_its_own_task_is_told():
    task, other = Task("PointMassRun", 1), Task("PointMassUMaze", 1)
    skill = trained("PointMassRun")
    assert skill.spec.model_hash == task.model_hash
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        skill.fitted_to(task)
        skill.fitted_to(other)  # another task has another model
    with pytest.warns(UserWarning, match=r"another model of .*PointMassRun.* \(sha256 abababab"):
        skill.with_spec(model_hash="ab" * 32).fitted_to(task)
    task.close()
    other.close()


def test_symmetries_leave_new_blocks_alone():
    before = trained("PointMassRun")
    task = Task("PointMassUMaze", 1)
    after = before.fitted_to(task)
    task.close()
    assert len(after.spec.symmetries) == len(before.spec.symmetries) > 1
    wide = np.random.default_rng(1).normal(size=(6, after.spec.observation_size))
    size = before.spec.observation_size
    np.testing.assert_allclose(
        after.sample(wide, 9, seed=0), before.sample(wide[:, :size], 9, seed=0), atol=1e-6
    )


def test_a_misfit_shows_both_layouts_side_by_side(skill):
    with pytest.raises(IncompatibleSkill) as error:
        skill.fitted_to(with_blocks(("observation", 5), ("goal", 2)))
    lines = str(error.value).splitlines()
    assert "does not fit Somewhere-v0" in lines[0]
    assert lines[1].split() == ["block", "skill", "task"]
    assert lines[2].split() == ["observation", "3", "5", "<--"]
    assert lines[3].split() == ["goal", "-", "2"]
    with pytest.raises(IncompatibleSkill, match=r"observation +3 +- +<--"):
        skill.fitted_to(with_blocks(("goal", 2)))


def test_other_actions_are_a_misfit_too(skill):
    block = ("observation", 3)
    with pytest.raises(IncompatibleSkill, match=r"action bounds: skill \(-0\.1, -2\.0\)"):
        skill.fitted_to(with_blocks(block, high=np.array([0.4, 0.5])))
    with pytest.raises(IncompatibleSkill, match=r"actions +2 +3 +<--"):
        skill.fitted_to(with_blocks(block, low=-np.ones(3), high=np.ones(3)))


def test_a_changed_spec_is_another_skill(skill):
    renamed = skill.with_spec(name="other")
    assert renamed.spec.name == "other"
    assert renamed.content_hash is None
    np.testing.assert_array_equal(renamed.value(states(2)), skill.value(states(2)))


# A user's mistakes in a call.


def test_an_environment_is_asked_for_by_its_id(skill):
    env = gymnasium.make("skillbank/PointMassRun-v0")
    bare = env.unwrapped
    bare.spec = None
    calls = (pretrain, lambda env: finetune(skill, env), lambda env: evaluate(skill, env))
    for call in calls:
        with pytest.raises(UnsupportedEnvironment, match=r"id: 'SmallWorld/Lopsided-v0'"):
            call(gymnasium.make(LOPSIDED))
        with pytest.raises(UnsupportedEnvironment, match=r"give its Gymnasium id, as in"):
            call(bare)
    env.close()


def test_a_name_is_not_yet_a_skill():
    for call in (evaluate, finetune):
        with pytest.raises(SkillbankError, match=r'first: skillbank\.Bank\(\)\.load\("hallway"\)'):
            call("hallway", LOPSIDED)
        with pytest.raises(SkillbankError, match=r'skillbank\.Skill\.load\("a/hallway\.h5"\)'):
            call("a/hallway.h5", LOPSIDED)
        with pytest.raises(SkillbankError, match=r"3 is not a policy"):
            call(3, LOPSIDED)


def test_a_skill_is_measured_on_its_own_task_unless_told_otherwise(skill):
    found, told = evaluate(skill, episodes=2), evaluate(skill, LOPSIDED, episodes=2)
    assert found.env_id == LOPSIDED
    np.testing.assert_array_equal(found.returns, told.returns)
    policy = SimpleNamespace(predict=skill.predict)
    with pytest.raises(SkillbankError, match="no task of its own: give a Gymnasium id"):
        evaluate(policy)


def test_a_skill_remembers_how_its_environment_was_made(tmp_path):
    config = PretrainConfig(architecture=TINY, **BRIEF)
    made = {"goals": ["right", "up"], "max_episode_steps": 7}
    pretrain("PointMassReach", config, env_kwargs=made).save(tmp_path / "reach.h5")
    skill = Skill.load(tmp_path / "reach.h5")
    assert skill.spec.env_kwargs == {"goals": ("right", "up"), "max_episode_steps": 7}
    assert skill.spec.task == "skillbank/PointMassReach-v0, goals=right+up, max_episode_steps=7"
    own, told = evaluate(skill, episodes=5), evaluate(skill, "PointMassReach", episodes=5, **made)
    np.testing.assert_array_equal(own.returns, told.returns)
    assert own.lengths.max() == 7
    assert evaluate(skill, episodes=5, max_episode_steps=3).lengths.max() == 3
    assert evaluate(skill, "PointMassReach", episodes=5).lengths.max() > 7
    tuning = FinetuneConfig(frozen_updates=1, **BRIEF)
    tuned = finetune(skill, "PointMassReach", tuning, env_kwargs={"goals": ("down",)})
    assert tuned.spec.env_kwargs == {"goals": ("down",)}


def test_what_a_file_cannot_keep_of_an_environment_is_told():
    own = {"speed": 2.0, "flat": True, "seed": None, "width": 3}
    with pytest.warns(UserWarning, match=r"cannot keep map='levels/1.xml', only numbers within"):
        kept = kept_kwargs("mine/Hall-v0", own | {"map": "levels/1.xml", "render_mode": "human"})
    assert kept == own
    assert kept_kwargs("skillbank/QuadrupedRun-v0", own | {"num_threads": 2}) == {
        name: own[name] for name in ("speed", "flat", "seed")
    }
    numbers = {"count": np.int64(3), "flag": np.True_, "share": np.float32(0.5), "at": np.arange(2)}
    kept = kept_kwargs("mine/Hall-v0", numbers | {"pair": [np.int64(1), 2.5]})
    assert kept == {"count": 3, "flag": True, "share": 0.5, "at": (0, 1), "pair": (1, 2.5)}
    assert [type(value) for value in kept.values()] == [int, bool, float, tuple, tuple]
    many = {f"k{i}": i for i in range(65)}
    with pytest.warns(UserWarning, match="cannot keep k64=64"):
        assert len(kept_kwargs("mine/Hall-v0", many)) == 64


def test_it_says_in_a_line_what_it_is(skill, tmp_path):
    kept = skill.with_spec(name="lop", steps=325_008)
    assert repr(kept) == "<Skill lop: SmallWorld/Lopsided, 325,008 steps, not saved>"
    kept.save(tmp_path / "lop.h5")
    assert repr(kept).endswith(f"steps, {kept.content_hash[:8]}>")
    told = repr(evaluate(trained("PointMassRun"), episodes=1))
    assert "returns" in told
    assert "traces" not in told


def test_directions_turn_left_from_east():
    for way, angle in (((1, 0), 0.0), ((0, 1), np.pi / 2), ((-1, -1), -3 * np.pi / 4)):
        policy = SimpleNamespace(
            predict=lambda obs, deterministic, w=way: (
                np.tile(np.array(w, float), (len(obs), 1)),
                None,
            )
        )
        found = evaluate(policy, "PointMassRun", episodes=2, nominal_start=True)
        np.testing.assert_allclose(found.metrics["direction"], angle, atol=1e-6)


def test_a_return_is_of_one_episode_also_where_others_last_longer():
    policy = SimpleNamespace(predict=lambda obs, deterministic: (np.zeros((len(obs), 2)), None))
    found = evaluate(policy, "SmallWorld/Errand-v0", episodes=7, seed=3, length=3)
    assert len(set(found.lengths)) > 1
    np.testing.assert_array_equal(found.returns, found.lengths)  # 1 for each step


@pytest.mark.parametrize("deterministic", [True, False])
def test_a_policy_is_asked_as_it_is_to_be_measured(deterministic):
    asked = set()

    def predict(obs, deterministic):
        asked.add(deterministic)
        return np.zeros((len(obs), 2)), None

    policy = SimpleNamespace(predict=predict)
    evaluate(policy, "MultiGoal", episodes=2, deterministic=deterministic)
    assert asked == {deterministic}


@pytest.mark.parametrize("seen", ["evaluated", "filmed"])
def test_a_recurrent_policy_keeps_its_memory(seen, tmp_path):
    told = []

    def predict(obs, state=None, episode_start=None, deterministic=False):
        told.append((state, None if episode_start is None else episode_start.tolist()))
        return np.zeros((len(obs), 2)), (0 if state is None else state) + 1

    policy = SimpleNamespace(predict=predict)
    if seen == "evaluated":
        evaluate(policy, "MultiGoal", episodes=1)
    else:
        film(policy, "MultiGoal", tmp_path / "a.gif")
    assert told == [(None, None), *((count, [False]) for count in range(1, 20))]


def test_films_are_made_of_any_policy_and_by_any_whole_number(tmp_path):
    policy = SimpleNamespace(predict=lambda obs, deterministic: (np.zeros((len(obs), 2)), None))
    one = film(policy, "MultiGoal", tmp_path / "a.gif", episodes=np.int64(1), seed=np.int64(0))
    assert film(policy, "MultiGoal", tmp_path / "b.gif", episodes=2) == 2 * one == 40
    with pytest.raises(TypeError):
        film(policy, "MultiGoal", tmp_path / "c.gif", episodes=1.5)
    with pytest.raises(SkillbankError, match=r'load it first: skillbank.Bank\(\).load\("walk"\)'):
        film("walk", "MultiGoal", tmp_path / "d.gif")


def test_each_part_of_an_evaluation_draws_by_seeds_of_its_own(monkeypatch):
    monkeypatch.setattr(evaluation, "MAX_COPIES", 2)
    seeds = []

    class Seeded:
        def fitted_to(self, task):
            return self

        def reseeded(self, seed):
            seeds.append(seed)
            return self

        def predict(self, observation, *, deterministic=False):
            return np.zeros((len(observation), 2)), None

    evaluate(Seeded(), "MultiGoal", episodes=5, seed=7)
    assert seeds == [7, 9, 11]
