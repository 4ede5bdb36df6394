"""What composing lacks: correction, certificate, distillation and improvement, against oracles."""

import errno
import json

import numpy as np
import pytest
import torch
from composing import ALPHA, GAMMA, exact_value, grid, peaked
from tables import random_table, with_reward

from skillbank import Bank, IncompatibleSkill, SkillbankError, compose, evaluation, exact
from skillbank.compose import DistillConfig, ImproveConfig, correction, expression
from skillbank.compose.certificate import SCOUTS, _Walk
from skillbank.compose.correction import (
    Backup,
    Correction,
    CorrectionConfig,
    Corrector,
    backup,
    correction_target,
)
from skillbank.compose.distillation import Distiller, energy_score, plain_name
from skillbank.compose.expression import Leaf, SoftOr
from skillbank.config import Architecture
from skillbank.errors import (
    Interrupted,
    InvalidArgument,
    StorageError,
    TrainingDiverged,
    UnsupportedEnvironment,
)
from skillbank.networks import Critic
from skillbank.replay import Batch, Replay, Transitions
from skillbank.skill import Skill
from skillbank.soft_value import soft_value
from skillbank.spec import MAX_PARENTS, ObservationBlock
from skillbank.task import Task
from skillbank.training import Hooks

WEIGHTS = [(1.0, 1.0), (0.3, 0.7), (0.2, 0.2), (1.0, -0.5), (0.5, 0.2, 0.3), (1.0, -0.4, 0.3)]


# The law that is learned, on tables, where it must be exact.


def values(qs, table, alpha):
    log_base = torch.from_numpy(table.log_measure).expand(len(table.reward), -1)
    count = np.log(table.reward.shape[1])  # soft_value averages over candidates
    return {key: soft_value(q, log_base + count, alpha) for key, q in qs.items()}


def iterated_correction(node, qs, table, alpha, rounds=260):
    """The learner's own target, iterated with every action a candidate: C [S, A]."""
    gamma, alive = table.discount, torch.zeros(len(table.reward))
    c = np.zeros_like(table.reward)
    promised = expression.fold(node, lambda leaf: gamma * values(qs, table, alpha)[leaf], alpha)
    base = expression.fold(node, qs.__getitem__, alpha)
    for _ in range(rounds):
        value = values({0: base - torch.from_numpy(c)}, table, alpha)[0]
        found = Backup(promised, value, value)
        at_next = correction_target(found, gamma, alive)  # [S], before the expectation
        c = table.expected(at_next.numpy())
    return c, base.numpy()


def table_leaves(count):
    return [Leaf(peaked(f"s{i}", (0.0, 0.0))) for i in range(count)]


@pytest.mark.parametrize("kind", ["deterministic", "stochastic"])
@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("seed", range(2))
def test_the_learned_target_is_exact_on_tables(seed, weights, kind):
    table, rewards = random_table(seed, kind=kind)
    alpha, rewards = 0.3, rewards[: len(weights)]
    qs = [exact.soft_q_iteration(with_reward(table, r), alpha, 1e-12).q for r in rewards]
    leaves = table_leaves(len(weights))
    node = expression.weighted_sum(list(zip(leaves, weights, strict=True)))
    tensors = dict(zip(leaves, map(torch.from_numpy, qs), strict=True))
    c, base = iterated_correction(node, tensors, table, alpha)
    composed = with_reward(table, exact.weighted_sum(rewards, weights))
    np.testing.assert_allclose(
        base - c, exact.soft_q_iteration(composed, alpha, 1e-12).q, atol=1e-8
    )
    log_policies = [exact.log_policy(q, table.log_measure, alpha) for q in qs]
    oracle = exact.divergence_correction(table, log_policies, weights, alpha, 1e-12)
    np.testing.assert_allclose(c, oracle, atol=1e-8)
    if min(weights) >= 0.0 and sum(weights) == 1.0:
        assert (c > -1e-10).all()


@pytest.mark.parametrize("seed", range(3))
def test_a_soft_or_of_shared_goals_is_corrected_exactly_at_any_discount(seed):
    rng = np.random.default_rng(seed)
    states, actions, alpha = 8, 4, 0.4
    successor = rng.integers(states, size=(states, actions))
    goals = np.arange(states) >= states - 3
    shared = rng.normal(size=(states, actions)) - 0.5
    rewards = [
        shared + np.where(goals[successor], rng.normal(size=states)[successor], 0.0)
        for _ in range(2)
    ]
    table = exact.deterministic(successor, shared, 0.8, terminal=goals)
    qs = [exact.soft_q_iteration(with_reward(table, r), alpha, 1e-12).q for r in rewards]
    leaves = table_leaves(2)
    node = SoftOr(tuple(zip(leaves, (0.3, 0.7), strict=True)))
    tensors = dict(zip(leaves, map(torch.from_numpy, qs), strict=True))
    c, base = iterated_correction(node, tensors, table, alpha)
    best = exact.soft_q_iteration(
        with_reward(table, exact.soft_or(rewards, (0.3, 0.7), alpha)), alpha, 1e-12
    ).q
    np.testing.assert_allclose(base - c, best, atol=1e-8)
    assert (base < best + 1e-9).all()  # uncorrected it is a lower bound
    assert (best - base).max() > 1e-3


@pytest.mark.parametrize("kind", ["deterministic", "stochastic"])
@pytest.mark.parametrize("weights", WEIGHTS)
def test_the_certificate_is_exact_on_tables_and_tighter_than_the_worst_case(weights, kind):
    table, rewards = random_table(0, kind=kind)
    alpha, gamma, rewards = 0.3, table.discount, rewards[: len(weights)]
    qs = [exact.soft_q_iteration(with_reward(table, r), alpha, 1e-12).q for r in rewards]
    log_policies = [exact.log_policy(q, table.log_measure, alpha) for q in qs]
    composed = with_reward(table, exact.weighted_sum(rewards, weights))
    base = exact.weighted_sum(qs, weights)
    log_pi = exact.log_policy(base, table.log_measure, alpha)
    kept = exact.soft_evaluation(composed, log_pi, alpha)  # Q of the composed policy
    lacking = alpha * exact.policy_divergence(log_policies, weights, table.log_measure)
    # shortfall(s, a) = E sum gamma^t e(s_t), along the composed policy
    mass = np.exp(log_pi + table.log_measure)
    shortfall = np.zeros_like(base)
    for _ in range(300):
        shortfall = gamma * table.expected(lacking + (mass * shortfall).sum(1))
    np.testing.assert_allclose(base - shortfall, kept, atol=1e-8)
    best = exact.soft_q_iteration(composed, alpha, 1e-12).q
    unavoidable, most = exact.correction_bounds(table, log_policies, weights, alpha, 1e-12)
    assert (best <= base - unavoidable + 1e-9).all()
    assert (best - kept <= shortfall - unavoidable + 1e-9).all()
    gap = exact.composition_gap(table, log_policies, weights, alpha)
    np.testing.assert_allclose(gap, shortfall - unavoidable, atol=1e-8)
    assert (shortfall <= most + 1e-9).all()
    assert (shortfall < most - 1e-3).any()


def test_scaled_rewards_and_temperature_scale_q():
    table, _ = random_table(0)
    q = exact.soft_q_iteration(table, 0.3, 1e-12).q
    scaled = exact.soft_q_iteration(with_reward(table, 2.5 * table.reward), 0.75, 1e-12).q
    np.testing.assert_allclose(scaled, 2.5 * q, atol=1e-8)


# The learners, on a task in one dimension whose exact answers are a quadrature away.


def parts():
    a = peaked("a", (0.7,), steep=1.5, tilt=((0.2,),))
    b = peaked("b", (-0.3,), steep=0.8, slope=(0.4,), tilt=((-0.5,),))
    return a, b


LINE = np.linspace(-1.0, 1.0, 41)


def exact_correction(composed, weights, skills, cells=80):
    """C as a function of the next place, on LINE: c(s') = gamma [sum w V_i(s') - V(s')]."""
    points, log_width = grid(1, cells)
    obs = LINE[:, np.newaxis]
    q = composed.q(obs, np.broadcast_to(points, (41, cells, 1))).astype(float)
    together = sum(
        w * exact_value(s, obs, cells=cells) for w, s in zip(weights, skills, strict=True)
    )
    after = 0.5 * (LINE[:, None] + points[:, 0])
    c = np.zeros(41)
    for _ in range(200):
        net = (q - np.interp(after, LINE, c)) / ALPHA
        value = ALPHA * (np.log(np.exp(net).sum(1)) + log_width)
        c = GAMMA * (together - value)
    return c


@pytest.mark.parametrize("weights", [(0.5, 0.5), (1.0, -0.5)])
def test_values_behind_the_target_are_the_integrals(weights):
    a, b = parts()
    composed = compose.add([(a, weights[0]), (b, weights[1])])
    obs = torch.from_numpy(LINE[::8, None].astype(np.float32))
    acting = composed.acting.enlarged(30)
    found = backup(composed, composed.node, None, obs, acting, torch.Generator().manual_seed(0))
    together = sum(w * exact_value(s, obs) for w, s in zip(weights, (a, b), strict=True))
    np.testing.assert_allclose(found.promised, GAMMA * together, atol=0.02)
    np.testing.assert_allclose(found.base, exact_value(composed, obs), atol=0.02)
    np.testing.assert_array_equal(found.value, found.base)


def test_equal_skills_have_nothing_to_correct_whatever_the_candidates():
    a, _ = parts()
    twin = Skill(a.spec, a.parameters())
    composed = compose.mean([a, twin])
    obs = torch.from_numpy(LINE[:, None].astype(np.float32))
    found = backup(
        composed,
        composed.node,
        None,
        obs,
        compose.Acting(per_part=1, uniform=1, refined=0),
        torch.Generator().manual_seed(0),
    )
    target = correction_target(found, GAMMA, torch.zeros(41))
    np.testing.assert_allclose(target, 0.0, atol=1e-6)


def test_the_target_of_convex_weights_is_never_negative_and_zero_at_the_end():
    a, b = parts()
    composed = compose.mean([a, b], weights=[0.3, 0.7])
    obs = torch.from_numpy(LINE[:, None].astype(np.float32))
    acting = compose.Acting(per_part=1, uniform=1, refined=0)
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        found = backup(composed, composed.node, None, obs, acting, generator)
        assert (correction_target(found, GAMMA, torch.zeros(41)) > -1e-6).all()
        assert (correction_target(found, GAMMA, torch.ones(41)) == 0.0).all()


QUICK = CorrectionConfig(
    total_steps=3_200,
    learning_starts=160,
    num_envs=8,
    batch_size=64,
    hidden=(32, 32),
    learning_rate=3e-3,
    target_rate=0.2,
    explore=0.5,
    settled=0.0,
    # Few candidates estimate values low, and the discount adds that up: a third gives C + 0.05.
    proposals=CorrectionConfig().proposals.enlarged(3),
)


@pytest.fixture(scope="module")
def at(tmp_path_factory):
    return tmp_path_factory.mktemp("learned") / "c.npz"


@pytest.fixture(scope="module")
def learned(at):
    a, b = parts()
    return a, b, (a & b).corrected(config=QUICK, seed=0, hooks=Hooks(checkpoint=at))


def test_a_correction_is_learned_to_its_exact_value(learned):
    a, b, corrected = learned
    c = exact_correction(a & b, (0.5, 0.5), (a, b))
    assert c.max() > 0.5  # there is something to learn
    obs = LINE[4:-4:4, None].astype(np.float32)
    action = np.broadcast_to(np.linspace(-0.9, 0.9, 7)[:, None], (len(obs), 7, 1))
    expected = np.interp(0.5 * (obs + action[:, :, 0]), LINE, c)
    found = (a & b).q(obs, action) - corrected.q(obs, action)
    np.testing.assert_allclose(found, expected, atol=0.06)
    assert corrected.spec.name == "corrected(0.5 a + 0.5 b)"
    assert corrected.spec.reward == (a & b).spec.reward


def test_the_correction_reports_its_progress(learned, at):
    reports = learned[2].correction.reports
    assert Correction.load(at).reports == reports
    assert len(reports) > 20
    assert [r.steps for r in reports] == sorted({r.steps for r in reports})
    assert reports[-1].steps == 3_200
    assert reports[-1].loss < 0.01
    seen = []
    a, b = parts()
    config = QUICK.model_copy(update={"total_steps": 400})
    (a & b).corrected(config=config, hooks=Hooks(on_progress=seen.append))
    assert seen[-1].steps == 400
    assert seen[-1].figures["loss"] > 0.0


def test_learning_stops_when_nothing_moves_any_more():
    a, _ = parts()
    twin = Skill(a.spec, a.parameters())  # nothing to correct
    config = QUICK.model_copy(update={"settled": 0.1})
    corrected = compose.mean([a, twin]).corrected(config=config)
    assert corrected.correction.reports[-1].steps < 2_000


def test_a_correction_is_learned_from_stored_transitions_alone():
    a, b = parts()
    rng = np.random.default_rng(0)
    replay = Replay(4000, 1, 1, 4000)
    place, action = rng.uniform(-1, 1, (2, 4000, 1)).astype(np.float32)
    zero, end = torch.zeros(4000), torch.ones(4000)
    after = torch.from_numpy(0.5 * (place + action))
    replay.add(
        Transitions(torch.from_numpy(place), torch.from_numpy(action), zero, zero, end, after)
    )
    composed = a - 0.5 * b
    corrected = composed.corrected(transitions=replay, config=QUICK, seed=1)
    c = exact_correction(composed, (1.0, -0.5), (a, b))
    obs = LINE[4:-4:4, None].astype(np.float32)
    mid = np.zeros((len(obs), 1))
    found = composed.q(obs, mid) - corrected.q(obs, mid)
    np.testing.assert_allclose(found, np.interp(0.5 * obs[:, 0], LINE, c), atol=0.06)


def test_only_what_the_skills_observe_whole_is_seen_through_their_symmetries():
    """A velocity is turned, a place that the skill does not know is not: no such step exists."""
    roam = Bank(shipped=True).load("run_anywhere")
    assert len(roam.spec.symmetries) == 8
    in_the_maze = compose.mean([roam.fitted_to("QuadrupedUMaze")])
    assert roam.fitted_to("QuadrupedUMaze").known_blocks() == set(roam.spec.observation_blocks)
    for fitted, turns in (
        (compose.mean([roam]).fitted_to("QuadrupedRun"), True),
        (compose.mean([roam]).fitted_to("QuadrupedUMaze"), False),
        (in_the_maze, False),
    ):
        obs = torch.arange(fitted.spec.observation_size).expand(60, -1) + 1.0
        batch = Batch(obs, torch.ones(60, 8), *torch.zeros(3, 60), obs)
        seen = Corrector(fitted, CorrectionConfig(), seed=0).mirrors(batch)
        assert bool((seen.next_obs != obs).any()) == turns


def test_a_certificate_needs_episodes_that_end(monkeypatch):
    monkeypatch.setattr(evaluation, "MAX_STEPS", 30)
    a, b = (Bank(shipped=True).load(f"point_run_{way}") for way in ("east", "north"))
    with pytest.raises(UnsupportedEnvironment, match="in 30 steps: it needs max_episode_steps"):
        (a & b).certificate(episodes=1, env_kwargs={"max_episode_steps": None})


def test_transitions_that_cannot_be_learned_from_are_refused():
    a, b = parts()
    composed = a & b
    with pytest.raises(SkillbankError, match="there is no transition"):
        composed.corrected(transitions=Replay(10, 1, 1, 10))
    with pytest.raises(IncompatibleSkill, match="observations of 3 and actions of 1"):
        composed.corrected(transitions=Replay(10, 3, 1, 10))
    for place in ({"env_id": "skillbank-test/Drift-v0"}, {"env_kwargs": {"length": 3}}):
        with pytest.raises(SkillbankError, match="leave out transitions, or env_id and env_kw"):
            composed.corrected(transitions=Replay(10, 1, 1, 10), **place)
    with pytest.raises(ValueError, match="batch_size must not exceed replay_capacity"):
        DistillConfig(batch_size=64, replay_capacity=32)
    with pytest.raises(ValueError, match="replay_capacity must hold a step of every copy"):
        CorrectionConfig(replay_capacity=15)
    few = CorrectionConfig(total_steps=9, learning_starts=8, num_envs=1)
    with pytest.raises(SkillbankError, match="make no update"):
        composed.corrected(config=few)
    with pytest.raises(SkillbankError, match="needs episodes and steps"):
        composed.certificate(steps=0)


def test_a_correction_is_kept_and_belongs_to_its_composition(learned, tmp_path):
    a, b, corrected = learned
    path = tmp_path / "c.npz"
    corrected.correction.save(path)
    again = (a & b).with_correction(Correction.load(path))
    assert not any(p.requires_grad for p in again.correction.network.parameters())
    obs, action = LINE[:, None], np.zeros((41, 3, 1))
    np.testing.assert_array_equal(again.q(obs, action), corrected.q(obs, action))
    assert again.correction.reports == corrected.correction.reports
    turned = (b & a).with_correction(Correction.load(path))  # the same skills in another order
    np.testing.assert_allclose(turned.q(obs, action), corrected.q(obs, action), atol=1e-5)
    # at another temperature it belongs to the composition at that temperature
    cold = corrected.at_temperature(0.5 * ALPHA)
    cold.correction.save(path)
    halved = (a & b).at_temperature(0.5 * ALPHA).with_correction(Correction.load(path))
    np.testing.assert_allclose(halved.q(obs, action), 0.5 * again.q(obs, action), atol=1e-5)
    with pytest.raises(IncompatibleSkill, match="the correction is for"):
        (a & b).with_correction(Correction.load(path))
    for other in (compose.mean([a, b], weights=[1, 2]), b & b.at_temperature(ALPHA), a - b):
        with pytest.raises(IncompatibleSkill, match="the correction is for"):
            other.with_correction(Correction.load(path))
    image, refused = bytearray(path.read_bytes()), 0
    for place in np.random.default_rng(0).integers(len(image), size=100):
        damaged = image.copy()
        damaged[place] ^= 1 << int(place) % 8
        (tmp_path / "d.npz").write_bytes(damaged)
        try:  # a bit that means nothing, such as a date in the archive, does no harm
            damage = Correction.load(tmp_path / "d.npz")
            loaded = (a & b).at_temperature(0.5 * ALPHA).with_correction(damage)
            np.testing.assert_array_equal(loaded.q(obs, action), halved.q(obs, action))
        except SkillbankError as error:
            refused += "not a correction, or is damaged" in str(error)
    assert refused > 50
    with pytest.raises(SkillbankError, match="not a correction"):
        Correction.load(tmp_path / "none.npz")


def after(rounds, happens):
    """For ``should_stop``: returns False for some rounds, and then what ``happens`` returns."""
    calls = iter([False] * rounds)
    return lambda: next(calls, None) is None and happens()


def an_error(error):
    def happens():
        raise error

    return happens


@pytest.mark.parametrize(
    ("happens", "error", "said"),
    [
        (lambda: True, Interrupted, "interrupted; what was saved is in .*c.npz"),
        (an_error(KeyboardInterrupt()), KeyboardInterrupt, "^$"),
        (an_error(UnsupportedEnvironment("a bug")), UnsupportedEnvironment, "a bug"),
    ],
    ids=["stopped", "ctrl-c", "environment"],
)
def test_a_correction_that_does_not_end_keeps_what_it_has(tmp_path, happens, error, said):
    (a, b), path = parts(), tmp_path / "c.npz"
    hooks = Hooks(should_stop=after(60, happens), checkpoint=path)
    with pytest.raises(error, match=said):
        (a & b).corrected(config=QUICK, hooks=hooks)
    kept = (a & b).with_correction(Correction.load(path))
    assert kept.q(LINE[:, None], np.zeros((41, 1, 1))) != pytest.approx(
        (a & b).q(LINE[:, None], np.zeros((41, 1, 1)))
    )


def test_a_correction_that_did_not_begin_is_not_saved(tmp_path):
    (a, b), path = parts(), tmp_path / "c.npz"
    with pytest.raises(Interrupted, match="nothing was saved in"):
        (a & b).corrected(config=QUICK, hooks=Hooks(should_stop=lambda: True, checkpoint=path))
    assert not path.exists()


def test_a_correction_that_did_not_begin_replaces_none(tmp_path, learned):
    a, b, corrected = learned
    corrected.correction.save(tmp_path / "c.npz")
    hooks = Hooks(should_stop=lambda: True, checkpoint=tmp_path / "c.npz")
    with pytest.raises(Interrupted):
        (a & b).corrected(config=QUICK, hooks=hooks)
    assert Correction.load(tmp_path / "c.npz").digest() == corrected.correction.digest()


@pytest.mark.parametrize("finite", [False, True], ids=["parameters", "loss"])
def test_a_diverged_correction_keeps_that_of_its_last_report(tmp_path, monkeypatch, finite):
    (a, b), path, update, saved = parts(), tmp_path / "c.npz", Corrector.update, []

    def diverging(learner, batch):
        loss = update(learner, batch)
        if learner.updates < 60:
            saved.append(path.read_bytes() if path.exists() else b"")
            return loss
        if not finite:
            torch.nn.init.constant_(learner.network["out.bias"], float("nan"))
        return loss * float("nan")

    monkeypatch.setattr(Corrector, "update", diverging)
    with pytest.raises(TrainingDiverged, match="smaller learning_rate"):
        (a & b).corrected(config=QUICK, hooks=Hooks(checkpoint=path))
    assert path.read_bytes() == saved[-1]
    Correction.load(path)


def test_a_correction_that_cannot_be_saved_is_told(tmp_path, monkeypatch):
    def full_disk(*_args, **_arrays):
        raise OSError(errno.ENOSPC, "no space left")

    (a, b), warned = parts(), []
    monkeypatch.setattr("numpy.savez", full_disk)
    stop, path = after(60, an_error(KeyboardInterrupt())), tmp_path / "c.npz"
    with pytest.raises(KeyboardInterrupt) as caught:
        (a & b).corrected(config=QUICK, hooks=Hooks(None, warned.append, stop, path))
    assert all("no space left" in text for text in (*warned, *caught.value.__notes__))
    assert len(warned) > 1
    assert list(tmp_path.iterdir()) == []


def test_a_correction_replaces_no_other_file_and_needs_a_place(tmp_path):
    a, b = parts()
    np.savez(tmp_path / "run.npz", meta=np.frombuffer(b'{"started": {}}', np.uint8))
    (tmp_path / "file.txt").write_text("precious")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for place, error, said in [
        ("run.npz", SkillbankError, "not a correction.*; name another file"),
        ("file.txt", SkillbankError, "not a correction"),
        ("file.txt/c.npz", StorageError, "Name a file in a folder"),
    ]:
        hooks = Hooks(pytest.fail, should_stop=pytest.fail, checkpoint=tmp_path / place)
        with pytest.raises(error, match=said):
            (a & b).corrected(config=QUICK, hooks=hooks)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_correction_is_not_corrected_again(learned):
    _, _, corrected = learned
    with pytest.raises(IncompatibleSkill, match=r"corrected already.*more total_steps"):
        corrected.corrected()


def test_a_corrected_skill_is_rescaled_and_composed_again(learned):
    a, _, corrected = learned
    obs, action = LINE[::8, None], np.full((6, 2, 1), 0.3)
    cold = corrected.at_temperature(0.1)
    np.testing.assert_allclose(
        cold.energy(obs, action), corrected.energy(obs, action), rtol=1e-4, atol=1e-5
    )
    outer = corrected & a
    expected = (corrected.q(obs, action) + a.q(obs, action)) / 2
    np.testing.assert_allclose(outer.q(obs, action), expected, atol=1e-5)
    wide = np.concatenate([np.full((6, 1), 0.5), obs], 1)

    class More:
        env_id = "skillbank-test/DriftMore-v0"
        observation_blocks = (
            expression.ObservationBlock(name="extra", size=1),
            expression.ObservationBlock(name="observation", size=1),
        )
        observation_size = 2
        action_low, action_high = np.array([-1.0]), np.array([1.0])
        model_hash = None

    np.testing.assert_allclose(
        corrected.fitted_to(More()).q(wide, action), corrected.q(obs, action), atol=1e-5
    )
    # what was learned with more to see still sees it when composed again
    shape = Architecture(critics=2, critic_hidden=(8,))
    about = expression.outline((a & a.at_temperature(ALPHA)).node)
    learned_there = Correction(Critic(shape, 2, 1), More.observation_blocks, about)
    again = (a & a.at_temperature(ALPHA)).fitted_to(More()).with_correction(learned_there) & a
    assert again.spec.observation_blocks == More.observation_blocks
    assert again.q(wide, action).shape == (6, 2)
    turned = a & (a & a.at_temperature(ALPHA)).with_correction(learned_there)
    np.testing.assert_allclose(turned.q(wide, action), again.q(wide, action), atol=1e-6)
    with pytest.raises(ValueError, match=r"expected observations \[B, 2\]"):
        turned.q(obs, action)


def test_a_correction_belongs_to_the_corrections_below_it(learned):
    a, b, corrected = learned
    inner = corrected.correction
    outer = Correction(inner.network, inner.blocks, expression.outline((corrected & a).node))
    assert (corrected & a).with_correction(outer).correction is outer
    other = (a & b).with_correction(inner.scaled(2.0, inner.about)) & a
    with pytest.raises(IncompatibleSkill, match="the correction is for"):
        other.with_correction(outer)


# The certificate.


def exact_shortfall(composed, weights):
    """V_0 - V^pi on a grid, by iteration along the composed policy; starts are uniform."""
    points, log_width = grid(1, 80)
    obs = LINE[:, None]
    q = composed.q(obs, np.broadcast_to(points, (41, 80, 1))).astype(float)
    value = exact_value(composed, obs, cells=80)
    mass = np.exp((q - value[:, None]) / ALPHA + log_width)
    lacking = GAMMA * (sum(w * exact_value(s, obs) for s, w in weights.items()) - value)
    after = 0.5 * (LINE[:, None] + points[:, 0])
    shortfall = np.zeros(41)
    for _ in range(100):
        term = np.interp(after, LINE, lacking) + GAMMA * np.interp(after, LINE, shortfall)
        shortfall = (mass * term).sum(1)
    return shortfall.mean()


def test_the_certificate_estimates_what_the_policy_lacks(learned):
    a, b, corrected = learned
    composed = a & b
    found = composed.certificate(episodes=48, seed=0)
    points, log_width = grid(1, 80)
    obs = LINE[:, None]
    q = composed.q(obs, np.broadcast_to(points, (41, 80, 1))).astype(float)
    value = exact_value(composed, obs, cells=80)
    after = 0.5 * (LINE[:, None] + points[:, 0])
    lacking = GAMMA * ((exact_value(a, obs) + exact_value(b, obs)) / 2 - value)
    expected = exact_shortfall(composed, {a: 0.5, b: 0.5})
    assert abs(found.shortfall.mean() - expected) < 0.1 * expected
    assert found.promised.mean() == pytest.approx(value.mean(), abs=0.1)
    c = exact_correction(composed, (0.5, 0.5), (a, b))
    best = ALPHA * (np.log(np.exp((q - np.interp(after, LINE, c)) / ALPHA).sum(1)) + log_width)
    gap = expected - (value - best).mean()
    assert gap > 0.01
    assert gap < found.loss < expected - 0.1
    low, high = found.interval
    assert low < found.loss < high
    assert found.loss == pytest.approx(found.shortfall.mean() - found.unavoidable)
    assert found.per_step == pytest.approx((1 - GAMMA) * found.loss)  # an episode has no end
    assert found.divergence == pytest.approx(lacking.mean() / GAMMA / ALPHA, rel=0.3)
    assert f"soft value is an estimated {found.loss:.3g} at most" in str(found)
    # corrected, the promise is less, and kept
    after_all = corrected.certificate(episodes=48, seed=0)
    assert after_all.promised.mean() == pytest.approx(best.mean(), abs=0.1)
    assert abs(after_all.shortfall.mean()) < 0.1 * expected
    assert after_all.loss < 0.5 * found.loss
    assert after_all.corrected
    assert not found.corrected


def test_the_certificate_ranks_pairs_that_agree_before_pairs_that_do_not():
    first = peaked("p", (-0.6,), steep=5.0, tilt=((0.0,),))
    # where the other one wants to be depends on the place, so that their divergence does
    others = [peaked("o", (-0.6,), steep=5.0, tilt=((tilt,),)) for tilt in (0.05, 0.2, 0.5)]
    found = [(first & other).certificate(episodes=32, seed=1) for other in others]
    assert found[0].loss < found[1].loss < found[2].loss
    assert found[0].overlap > found[1].overlap > found[2].overlap
    assert found[0].verdict == "well"
    assert "compose well" in str(found[0])
    assert found[2].verdict != "well"
    twin = Skill(first.spec, first.parameters())
    assert (first & twin).certificate(episodes=4).loss == pytest.approx(0.0, abs=1e-4)


def test_the_certificate_tells_how_far_it_is_and_stops_when_asked_to():
    a, b = parts()
    seen = []
    quiet = (a & b).certificate(episodes=4, steps=5)
    found = (a & b).certificate(episodes=4, steps=5, hooks=Hooks(on_progress=seen.append))
    assert found.loss == quiet.loss  # looking on changes nothing
    copies = 4 + 2 * SCOUTS
    assert [p.steps for p in seen] == [copies * n for n in range(1, 6)]
    assert {p.total_steps for p in seen} == {copies * 5}
    assert seen[-1].figures["shortfall"] != seen[0].figures["shortfall"]
    whole = []
    (a & b).certificate(episodes=1, hooks=Hooks(on_progress=whole.append))
    assert whole[-1].steps == whole[-1].total_steps  # the task says how long an episode is
    stop = after(1, lambda: True)
    with pytest.raises(Interrupted, match="the certificate is not finished"):
        (a & b).certificate(episodes=1, hooks=Hooks(should_stop=stop))


def test_the_certificate_holds_for_any_weights_and_operations():
    a, b = parts()
    expected = exact_shortfall(a - 0.5 * b, {a: 1.0, b: -0.5})
    found = (a - 0.5 * b).certificate(episodes=48, seed=0)
    assert abs(found.shortfall.mean() - expected) < 0.1 * abs(expected)
    other = (a - 0.5 * b).certificate(episodes=48, seed=1)
    assert other.unavoidable != found.unavoidable
    either = compose.any_of([a, b], shared_goals=True).certificate(episodes=4, steps=5)
    assert np.isnan(either.divergence)
    assert either.shortfall.mean() < 0.0  # a soft-OR keeps more than its Q promises
    assert "overlap" not in str(either)


# Distillation.


def test_distillation_makes_one_ordinary_skill(learned, tmp_path):
    a, _, corrected = learned
    config = DistillConfig(
        total_steps=4_800,
        num_envs=8,
        batch_size=32,
        learning_rate=5e-3,
        learning_starts=64,
        architecture={"critic_hidden": (32, 32), "sampler_hidden": (32,), "couplings": 0},
    )
    skill = corrected.distill(config=config, name="both", seed=0)
    assert isinstance(skill, Skill)
    assert skill.spec.name == "both"
    assert set(skill.spec.parents) == set(corrected.spec.parents)
    assert skill.spec.reward == "0.5 r[a] + 0.5 r[b]"
    assert skill.spec.reward in skill.spec.description
    obs = LINE[6:-6:4, None]
    action = np.broadcast_to(np.linspace(-0.8, 0.8, 9)[:, None], (len(obs), 9, 1))
    wanted, found = corrected.q(obs, action), skill.q(obs, action)
    assert np.abs(found - wanted).mean() < 0.1
    ours, theirs = (each.sample(obs, 4000, seed=0).mean(1) for each in (skill, corrected))
    np.testing.assert_allclose(ours, theirs, atol=0.15)
    skill.save(tmp_path / "both.h5")
    np.testing.assert_array_equal(
        Skill.load(tmp_path / "both.h5").q(obs, action), skill.q(obs, action)
    )
    assert (skill & a).spec.name == "0.5 both + 0.5 a"


def test_the_energy_score_is_least_for_samples_of_the_same_distribution():
    generator = torch.Generator().manual_seed(0)
    ends = torch.tensor([[[0.0], [1.0]]])
    weight = torch.tensor([[0.5, 0.5]])
    assert energy_score(ends, ends, weight).item() == pytest.approx(0.0)  # 1 / 2 - 1 / 2
    assert energy_score(ends, ends + 3.0, weight).item() == pytest.approx(2.5)
    # of points that are 1 with probability p, against those with 1 / 4: 1/4 + p/2 - p (1 - p)
    weight = torch.tensor([[0.75, 0.25]]).expand(4000, 2)
    for p in (0.0, 0.25, 0.5):
        x = (torch.rand(4000, 3, 1, generator=generator) < p).float()
        told = energy_score(x, ends.expand(4000, 2, 1), weight).mean().item()
        assert told == pytest.approx(0.25 + 0.5 * p - p * (1 - p), abs=0.02)
    x = torch.randn(3, 5, 2, generator=generator, requires_grad=True)
    weight = torch.full((3, 4), 0.25)
    energy_score(x, torch.randn(3, 4, 2, generator=generator), weight).sum().backward()
    assert torch.isfinite(x.grad).all()  # also where a sample meets itself


@pytest.mark.parametrize("size", [1, 2])
def test_distillation_keeps_both_of_two_modes(size):
    task = {
        "env_id": "skillbank/PointMassRun-v0",
        "observation_blocks": (ObservationBlock(name="velocity", size=2),),
    }
    changes = {"slope": (0.0,)} if size == 1 else task
    peaks = np.array([[-0.35, 0.2], [0.35, 0.2]])[:, :size]
    either = compose.any_of(
        [
            peaked(name, tuple(at), steep=15.0, **changes)
            for name, at in zip("ab", peaks, strict=True)
        ],
        shared_goals=True,
    )
    config = DistillConfig(
        total_steps=12_800 if size == 1 else 6_400,
        num_envs=8,
        batch_size=32,
        learning_rate=5e-3,
        learning_starts=64,
        architecture={"critic_hidden": (32, 32), "sampler_hidden": (32,), "sampler": "flow"},
    )
    skill = either.distill(config=config, seed=1)  # whose networks start near one of them
    obs = np.zeros((1, 2))[:, : skill.spec.observation_size]
    drawn = skill.sample(obs, 1000, seed=0)[0]
    near = [np.mean(np.linalg.norm(drawn - at, axis=1) < 0.15 * size) for at in peaks]
    assert min(near) > 0.3
    assert sum(near) > 0.85


BRIEF = DistillConfig(
    total_steps=80,
    num_envs=8,
    batch_size=16,
    learning_starts=64,
    architecture={"critic_hidden": (8,), "sampler_hidden": (8,)},
)


def test_what_cannot_be_distilled_is_refused_before_anything_is_learned():
    a, b = parts()
    with pytest.raises(ValueError, match="name"):
        (a & b).distill(config=BRIEF, name="north east", hooks=Hooks(on_progress=pytest.fail))
    grown = b
    for _ in range(100):  # each has all the others for parents
        grown = grown.at_temperature(ALPHA)
    assert len((a & grown).distill(config=BRIEF).spec.parents) == MAX_PARENTS


@pytest.mark.parametrize(
    "given",
    [
        {"checkpoint": "c.npz"},
        {"resume": True},
        {"segment_steps": 10},
        {"on_step": print},
        {"on_warning": print},
        {"memory": {"mine": LINE}},
    ],
    ids=lambda given: next(iter(given)),
)
def test_hooks_that_would_be_ignored_are_refused(given):
    a, b = parts()
    hooks, (name,) = Hooks(**given), given
    calls = [
        lambda: (a & b).certificate(hooks=hooks),
        lambda: (a & b).distill(config=BRIEF, hooks=hooks),
        lambda: compose.improve([a, b], a.spec.env_id, hooks=hooks),
    ]
    if name not in ("checkpoint", "on_warning"):  # a correction can be saved
        calls.append(lambda: (a & b).corrected(config=QUICK, hooks=hooks))
    for call in calls:
        with pytest.raises(InvalidArgument, match=rf"\(\) would ignore the hooks' {name}; it uses"):
            call()


def test_a_seed_is_any_whole_number_that_is_not_negative():
    a, b = parts()
    found = [(a & b).certificate(episodes=2, steps=3, seed=seed).loss for seed in (1, np.int64(1))]
    assert found[0] == found[1]
    for call in (
        lambda: (a & b).certificate(seed=-1),
        lambda: (a & b).corrected(config=QUICK, seed=-1),
        lambda: (a & b).distill(config=BRIEF, seed=-1),
        lambda: compose.improve([a, b], a.spec.env_id, seed=-1),
    ):
        with pytest.raises(InvalidArgument, match="seed must be 0 or more"):
            call()


def test_a_stopped_distillation_says_that_nothing_was_saved():
    a, b = parts()
    with pytest.raises(Interrupted, match="interrupted; nothing was saved"):
        (a & b).distill(config=BRIEF, hooks=Hooks(should_stop=lambda: True))


def test_a_distilled_skill_turns_only_what_its_parts_know():
    two = Task("PointMassRun", 1).symmetries[:2]
    east = compose.mean([Bank(shipped=True).load("point_run_east").with_spec(symmetries=two)])
    assert east.distill("PointMassRun", BRIEF).spec.symmetries == two
    assert east.distill("PointMassUMaze", BRIEF).spec.symmetries == ()


def test_a_distilled_skill_has_the_scale_of_its_parts():
    a, b = (skill.with_spec(reward_scale=0.5) for skill in parts())
    assert (a & b).distill(config=BRIEF).spec.reward_scale == 0.5
    assert (a - b).distill(config=BRIEF).spec.reward_scale == 1.0  # it is in the reward


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("0.5 a + 0.5 b", "0.5-a-plus-0.5-b"),
        ("corrected(a - 0.5 b)", "corrected-a-minus-0.5-b"),
        ("(x | y)", "x-or-y"),
        ("-1 a + b", "minus-1-a-plus-b"),
        ("???", "composed"),
    ],
)
def test_a_distilled_skill_has_a_name_that_a_skill_can_have(text, name):
    assert plain_name(text) == name


# Generalised policy improvement.


@pytest.mark.parametrize("seed", range(4))
def test_the_best_of_evaluated_policies_is_never_below_its_parts_on_tables(seed):
    table, rewards = random_table(seed)
    alpha = 0.3
    qs = [exact.soft_q_iteration(with_reward(table, r), alpha, 1e-12).q for r in rewards[:2]]
    new = with_reward(table, rewards[2])
    evaluated = [
        exact.soft_evaluation(new, exact.log_policy(q, table.log_measure, alpha), alpha) for q in qs
    ]
    policy = exact.log_policy(np.maximum(*evaluated), table.log_measure, alpha)
    improved = exact.soft_evaluation(new, policy, alpha)
    assert (improved >= np.maximum(*evaluated) - 1e-9).all()


def test_the_same_seed_evaluates_alike():
    config = ImproveConfig(total_steps=320, learning_starts=160, num_envs=8, batch_size=16)
    rest = np.zeros((41, 1))
    one, other = (
        compose.improve(parts(), "skillbank-test/Drift-v0", config, seed=0).q(LINE[:, None], rest)
        for _ in range(2)
    )
    np.testing.assert_array_equal(one, other)


def test_only_skills_are_improved_on():
    a, b = parts()
    with pytest.raises(IncompatibleSkill, match=r"improve\(\) takes skills; distill\(\)"):
        compose.improve([a, a & b], "skillbank-test/Drift-v0")


def test_the_best_of_policies_knows_the_scale_of_its_reward():
    config = ImproveConfig(
        total_steps=320, learning_starts=160, num_envs=8, batch_size=16, reward_scale=0.5
    )
    best = compose.improve(parts(), "skillbank-test/Drift-v0", config, seed=0)
    assert best.spec.reward == "0.5 r[skillbank-test/Drift-v0]"
    assert best.reward({"skillbank-test/Drift-v0": [4.0], "a": [0.0], "b": [0.0]}) == 2.0


def test_stored_policies_are_evaluated_on_a_new_reward():
    a, b = parts()
    config = ImproveConfig(
        total_steps=4_800,
        learning_starts=160,
        num_envs=8,
        batch_size=64,
        hidden=(32, 32),
        learning_rate=3e-3,
        target_rate=0.2,
    )
    best = compose.improve([a, b], "skillbank-test/Drift-v0", config, seed=0)
    assert best.spec.reward == "r[skillbank-test/Drift-v0]"
    # exact values of each policy for the reward s', on the grid
    points, log_width = grid(1, 80)
    obs = LINE[:, None]
    after = 0.5 * (LINE[:, None] + points[:, 0])
    expected = []
    for skill in (a, b):
        q = skill.q(obs, np.broadcast_to(points, (41, 80, 1))).astype(float)
        log_pi = q / ALPHA - exact_value(skill, obs, cells=80)[:, None] / ALPHA
        mass = np.exp(log_pi + log_width)
        value = np.zeros(41)
        for _ in range(100):
            of_policy = after + GAMMA * np.interp(after, LINE, value)
            value = (mass * (of_policy - ALPHA * log_pi)).sum(1)
        expected.append(of_policy)
    inner = slice(6, -6, 4)
    cut = np.broadcast_to(points, (41, 80, 1))[inner, 10:-10:10]
    found = best.q(obs[inner], cut)
    np.testing.assert_allclose(found, np.maximum(*expected)[inner, 10:-10:10], atol=0.15)
    with pytest.raises(IncompatibleSkill, match="no certificate"):
        best.certificate(episodes=2)
    with pytest.raises(IncompatibleSkill, match="nothing to correct"):
        best.corrected()


def test_after_an_end_for_good_a_certificate_expects_nothing_more():
    a, b = parts()
    composed, last = a & b, 8
    walk = _Walk(composed, composed.node, None, 3, seed=0)
    copies = 3 + 2 * SCOUTS
    obs = torch.linspace(-1.0, 1.0, copies).unsqueeze(1)
    walk.start(obs)
    over, on = np.ones(copies, bool), np.zeros(copies, bool)
    for step in range(1, last + 1):
        end = step == last
        told = torch.full((copies,), float(end)), over if end else on
        walk.note(obs, walk.act(obs), obs, *told)
    found = walk.finished()
    terms = np.stack(walk.terms)[:, :3]  # [steps, episodes]
    assert (terms[:-1] > 0.0).all()  # of convex weights
    assert (terms[-1] == 0.0).all()
    discounts = GAMMA ** np.arange(last)
    np.testing.assert_allclose(found.shortfall, discounts @ terms)
    assert found.horizon == pytest.approx(discounts.sum())
    assert found.unavoidable == 0.0  # there is none from the last state on


def test_a_correction_starts_at_a_level_only_where_episodes_go_on():
    a, b = parts()
    for end, level in ((0.0, 0.3 / (1.0 - GAMMA)), (1.0, 0.0)):
        learner = Corrector(a & b, QUICK, seed=0)
        ends = torch.tensor([0.0, end])
        batch = Batch(*torch.zeros(2, 2, 1), *torch.zeros(2, 2), ends, torch.zeros(2, 1))
        assert learner._level(torch.full((2,), 0.3), batch) == pytest.approx(level)
        for network in (learner.network, learner.target):
            np.testing.assert_allclose(network.arrays()["out.bias"], level, rtol=1e-6)


def test_only_convex_weights_have_a_correction_that_is_never_negative():
    a, b = parts()
    weights = ((0.3, 0.7), (1.0, 1.0), (1.5, -0.5))  # the last sum to 1, and are no shares
    made = [compose.add([(a, one), (b, other)]) for one, other in weights]
    assert [Corrector(each, QUICK, seed=0).floor for each in made] == [0.0, None, None]


def test_a_distilled_skill_may_go_on_by_its_own_targets():
    a, b = parts()
    config = DistillConfig(total_steps=640, learning_starts=512)
    arrays = (a & b).distill(config=config).parameters()
    for name, value in arrays.items():
        if name.startswith("critic/"):
            np.testing.assert_array_equal(arrays[f"target_{name}"], value)


def test_rescaling_and_turning_keep_what_fine_tuning_needs():
    skill = peaked("a", (0.3, 0.1), level=2.0)
    arrays, twice = skill.parameters(), skill.at_temperature(2.0 * ALPHA).parameters()
    for part in ("critic", "target_critic"):
        for name in ("out.weight", "out.bias"):
            np.testing.assert_allclose(twice[f"{part}/{name}"], 2.0 * arrays[f"{part}/{name}"])


def test_improved_policies_end_where_their_episodes_do():
    from skillbank.compose.improvement import ImproveConfig, Improver

    config = ImproveConfig(total_steps=320, learning_starts=160, num_envs=8, batch_size=16)
    losses = []
    for after in (-0.9, 0.9):
        learner = Improver(parts(), "skillbank-test/Drift-v0", config, seed=0)
        rest = torch.zeros(4, 1)
        batch = Batch(
            rest, rest, torch.ones(4), torch.full((4,), GAMMA), torch.ones(4), rest + after
        )
        losses.append(float(learner.update(batch)))
    assert losses[0] == losses[1]  # what comes after an end is worth nothing


def test_skills_of_other_networks_are_not_taken_for_one_another():
    a = peaked("a", (0.5, -0.3))
    shape = a.spec.architecture.model_copy(update={"layer_norm": True})
    from skillbank.skill import Skill

    normed = Skill(a.spec.model_copy(update={"architecture": shape, "name": "n"}), a.parameters())
    rng = np.random.default_rng(0)
    obs, action = rng.uniform(-1, 1, (5, 2)), rng.uniform(-1, 1, (5, 2))
    assert np.abs(a.q(obs, action) - normed.q(obs, action)).max() > 0.1
    mean = (a.q(obs, action) + normed.q(obs, action)) / 2
    np.testing.assert_allclose((a & normed).q(obs, action), mean, atol=1e-5)


def test_candidates_of_a_finite_set_lie_around_its_members():
    from skillbank.compose.acting import NARROWEST, Chance, proposal_of
    from skillbank.skill import Skill

    plain = peaked("a", (0.3, -0.2))
    member = np.array([[1.5, -1.0]], np.float32)
    finite = Skill(
        plain.spec.model_copy(update={"noise_set": 1}), plain.parameters() | {"noise": member}
    )
    obs = torch.zeros(3, 2)
    u, _ = proposal_of(finite).draw(obs, 500, Chance(torch.Generator().manual_seed(0)))
    expected = plain.sampler(obs, torch.from_numpy(member).expand(3, 1, 2))[0]
    torch.testing.assert_close(u.mean(1, keepdim=True), expected, atol=0.02, rtol=0.0)
    assert u.std(1).max() < 1.5 * NARROWEST


def test_a_share_of_the_exploring_actions_is_from_the_candidates_at_large():
    from skillbank.compose.gathering import exploring_action

    sharp = peaked("a", (0.0,), steep=200.0) & peaked("b", (0.0,), steep=200.0)
    obs, spread = torch.zeros(600, 2), []
    for explore in (0.0, 0.25, 1.0):
        drawn = exploring_action(sharp, obs, explore, torch.Generator().manual_seed(0))
        spread.append(float((drawn.abs() > 0.1).float().mean()))
    assert spread[0] < 0.05
    assert spread[0] < spread[1] < 0.5 * spread[2]


def test_a_distiller_sees_states_through_the_symmetries_of_all_parts():
    from skillbank import Bank

    roam = Bank(shipped=True).load("run_anywhere")
    learner = Distiller(compose.mean([roam]).fitted_to("QuadrupedRun"), DistillConfig(), seed=0)
    obs = torch.arange(learner.composed.spec.observation_size).expand(60, -1) + 1.0
    seen = learner.mirrors(Batch(obs, torch.ones(60, 8), *torch.zeros(3, 60), obs))
    assert (seen.obs != obs).any()


@pytest.fixture
def saved(tmp_path):
    """The path of a correction, and the arrays in it."""
    a, b = parts()
    path = tmp_path / "c.npz"
    Corrector(a & b, CorrectionConfig(), seed=0).correction.save(path)
    with np.load(path) as file:
        return path, dict(file)


def test_a_correction_with_another_number_in_it_is_refused(saved):
    """Whole as an archive, which tells of flipped bits by itself."""
    path, arrays = saved
    Correction.load(path)
    for name in ("0.weight", "meta"):
        changed = arrays[name].copy()
        changed.flat[-1] += 1
        np.savez(path, **arrays | {name: changed})
        with pytest.raises(SkillbankError, match="do not match its hash"):
            Correction.load(path)


def hostile(arrays, **changes):
    """The arrays of a correction with changes in its document, and a hash that matches them."""
    meta = json.loads(arrays["meta"].tobytes()) | changes
    document = json.dumps(meta).encode()
    parameters = {k: v for k, v in arrays.items() if k not in ("meta", "digest")}
    digest = np.frombuffer(correction._digest(document, parameters), np.uint8)
    return parameters | {"meta": np.frombuffer(document, np.uint8), "digest": digest}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"reports": [{}]}, "reports"),
        ({"reports": [[1, 2]]}, "reports"),
        ({"factor": "1"}, "factor"),
        ({"factor": float("nan")}, "factor"),
        ({"about": [[[[]]]]}, "about"),
        ({"hidden": [1 << 20] * 8}, "other names or shapes"),  # would take terabytes
        ({"hidden": []}, "hidden"),
        ({"action": 0}, "action"),
        ({"blocks": [["position", -1]]}, "blocks"),
        ({"blocks": [["../position", 1]]}, "blocks"),
        ({"more": 1}, "more"),
        ({f"x{i}": 0 for i in range(100_000)}, "a document of"),
    ],
)
def test_a_correction_that_lies_in_its_document_is_refused(changes, told, saved):
    path, arrays = saved
    np.savez(path, **hostile(arrays))
    Correction.load(path)  # as long as it does not lie
    np.savez(path, **hostile(arrays, **changes))
    with pytest.raises(SkillbankError, match=rf"(?s)not a correction, or is damaged.*{told}"):
        Correction.load(path)


def test_a_correction_with_a_parameter_that_is_not_finite_is_refused(saved):
    path, arrays = saved
    arrays["out.bias"] = arrays["out.bias"] * np.nan
    np.savez(path, **hostile(arrays))
    with pytest.raises(SkillbankError, match="a parameter is not finite"):
        Correction.load(path)


def test_a_correction_for_other_actions_does_not_fit():
    a, b = parts()
    other = correction.Correction(
        correction._network((8,), 1, 2), (), expression.outline((a & b).node)
    )
    with pytest.raises(IncompatibleSkill, match="actions of 2 numbers"):
        (a & b).with_correction(other)
