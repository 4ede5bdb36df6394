"""Operators on skills, and acting on composed energies, held to closed forms and quadrature."""

import warnings
from functools import partial

import numpy as np
import pytest
import torch
from composing import ALPHA, GAMMA, exact_value, grid, peaked

from skillbank import (
    Bank,
    IncompatibleSkill,
    PretrainConfig,
    SkillbankError,
    compose,
    finetune,
)
from skillbank.compose import (
    Acting,
    Composed,
    CompositionWarning,
    Correction,
    CorrectionConfig,
    expression,
)
from skillbank.compose.expression import Best, Corrected, Leaf
from skillbank.skill import Skill
from skillbank.spec import ObservationBlock, Symmetry
from skillbank.task import Layout

OBS = np.random.default_rng(0).uniform(-1.0, 1.0, (6, 2)).astype(np.float32)
ACTION = np.random.default_rng(1).uniform(-1.0, 1.0, (6, 5, 2))


def three():
    a = peaked("a", (0.6, 0.0), steep=1.0, slope=(0.3, -0.2))
    b = peaked("b", (0.0, 0.6), steep=0.7, level=0.4, tilt=((0.1, 0.0), (0.0, -0.3)))
    c = peaked("c", (-0.5, -0.5), steep=1.5)
    return a, b, c


def any_of(*skills, **options):
    return compose.any_of(skills, shared_goals=True, **options)


# What composed energies are.


def test_the_test_skill_is_what_its_formula_says():
    a = peaked(
        "a", (0.6, 0.1), steep=2.0, level=0.4, slope=(0.3, -0.2), tilt=((0.1, 0.0), (0.0, -0.3))
    )
    centre = np.array([0.6, 0.1]) + OBS @ np.array([[0.1, 0.0], [0.0, -0.3]]).T
    expected = (0.4 + OBS @ (0.3, -0.2) - 2.0 * np.abs(ACTION - centre[:, None]).sum(-1).T).T
    np.testing.assert_allclose(a.q(OBS, ACTION), expected, atol=1e-5)


def test_sums_are_sums_of_q():
    a, b, c = three()
    qa, qb, qc = (skill.q(OBS, ACTION) for skill in (a, b, c))
    for composed, expected in [
        (a & b, (qa + qb) / 2),
        (compose.mean([a, b], weights=[1, 3]), 0.25 * qa + 0.75 * qb),
        (a - 0.5 * b, qa - 0.5 * qb),
        (compose.add({a: 1.0, b: -0.5}), qa - 0.5 * qb),
        (a + b - c, qa + qb - qc),
        (2 * (a & b) / 4, (qa + qb) / 4),
        (-a, -qa),
        (a - a, 0 * qa),
    ]:
        np.testing.assert_allclose(composed.q(OBS, ACTION), expected, atol=1e-5)
        np.testing.assert_allclose(composed.q(OBS, ACTION[:, 0]), expected[:, 0], atol=1e-5)
        np.testing.assert_allclose(composed.energy(OBS, ACTION), -expected / ALPHA, atol=1e-5)


def test_soft_or_is_the_log_of_summed_exponentials():
    a, b, _ = three()
    qa, qb = a.q(OBS, ACTION).astype(float), b.q(OBS, ACTION).astype(float)
    expected = ALPHA * np.log((np.exp(qa / ALPHA) + np.exp(qb / ALPHA)) / 2)
    np.testing.assert_allclose(any_of(a, b).q(OBS, ACTION), expected, atol=1e-5)
    expected = ALPHA * np.log(0.2 * np.exp(qa / ALPHA) + 0.8 * np.exp(qb / ALPHA))
    composed = any_of(a, b, weights=[1, 4])
    np.testing.assert_allclose(composed.q(OBS, ACTION), expected, atol=1e-5)


def test_compositions_nest():
    a, b, c = three()
    qa, qb, qc = (skill.q(OBS, ACTION).astype(float) for skill in (a, b, c))
    either = ALPHA * np.log((np.exp(qa / ALPHA) + np.exp(qb / ALPHA)) / 2)
    composed = any_of(a, b) & c
    np.testing.assert_allclose(composed.q(OBS, ACTION), (either + qc) / 2, atol=1e-5)
    both = (qa + qb) / 2
    expected = ALPHA * np.log((np.exp(both / ALPHA) + np.exp(qc / ALPHA)) / 2)
    np.testing.assert_allclose(any_of(a & b, c).q(OBS, ACTION), expected, atol=1e-5)


def test_weight_one_gives_the_first_skill():
    a, b, _ = three()
    composed = compose.mean([a, b], weights=[1, 0])
    np.testing.assert_allclose(composed.q(OBS, ACTION), a.q(OBS, ACTION), atol=1e-6)
    assert composed.spec.name == "a"
    assert [leaf.skill for leaf in expression.leaves(composed.node)] == [a]
    np.testing.assert_allclose(any_of(a).q(OBS, ACTION), a.q(OBS, ACTION), atol=1e-6)


def test_a_chain_of_one_operator_counts_each_skill_once():
    a, b, c = three()
    expected = (a.q(OBS, ACTION) + b.q(OBS, ACTION) + c.q(OBS, ACTION)) / 3
    for composed in (a & b & c, a & (b & c), (c & a) & b):
        np.testing.assert_allclose(composed.q(OBS, ACTION), expected, atol=1e-5)
    # functions nest instead
    nested = compose.mean([compose.mean([a, b]), c])
    expected = 0.25 * a.q(OBS, ACTION) + 0.25 * b.q(OBS, ACTION) + 0.5 * c.q(OBS, ACTION)
    np.testing.assert_allclose(nested.q(OBS, ACTION), expected, atol=1e-5)
    with pytest.warns(CompositionWarning):
        chain = a | b | c
    np.testing.assert_allclose(chain.q(OBS, ACTION), any_of(a, b, c).q(OBS, ACTION), atol=1e-5)
    assert len(chain.node.terms) == 3


def test_a_composition_says_what_reward_it_is_for():
    a, b, c = three()
    c = c.at_temperature(2 * ALPHA).at_temperature(ALPHA)  # the same numbers again
    rewards = {"a": np.array([1.0, 2.0]), "b": np.array([0.0, 4.0]), "c": np.array([1.0, 1.0])}
    composed = a - 0.5 * b
    assert composed.spec.reward == "r[a] - 0.5 r[b]"
    assert composed.spec.name == "a - 0.5 b"
    np.testing.assert_allclose(composed.reward(rewards), [1.0, 0.0])
    either = any_of(a, b)
    assert either.spec.reward == "0.5 log(0.5 exp(r[a] / 0.5) + 0.5 exp(r[b] / 0.5))"
    expected = 0.5 * np.log((np.exp([2.0, 4.0]) + np.exp([0.0, 8.0])) / 2)
    np.testing.assert_allclose(either.reward(rewards), expected)
    np.testing.assert_allclose((either & c).reward(rewards), (expected + 1.0) / 2)
    scaled = a.with_spec(reward_scale=3.0)
    assert (scaled & b).spec.reward == "0.5 (3 r[a]) + 0.5 r[b]"
    np.testing.assert_allclose((scaled & b).reward(rewards), [1.5, 5.0])


def test_metadata_are_those_of_a_skill():
    a, b, _ = three()
    spec = (a & b).spec
    for field in ("temperature", "discount", "env_id", "observation_blocks", "action_dtype"):
        assert getattr(spec, field) == getattr(a.spec, field)
    assert (spec.observation_size, spec.action_size) == (2, 2)
    assert len(spec.parents) == 2
    assert len(set(spec.parents)) == 2


def test_a_composition_is_made_with_what_all_parts_agree_in():
    parts = [
        peaked("a", env_kwargs={"gravity": 5.0, "goals": ("left",)}),
        peaked("b", env_kwargs={"gravity": 5.0, "goals": ("right",)}),
        peaked("c", env_kwargs={"gravity": 5.0}),
    ]
    assert compose.mean(parts).spec.env_kwargs == {"gravity": 5.0}
    elsewhere = Layout("Other-v0", parts[0].spec.observation_blocks, -np.ones(2), np.ones(2))
    fitted = compose.mean(parts).fitted_to(elsewhere)
    assert fitted.spec.env_kwargs == {"gravity": 5.0}  # it fits as it is
    wider = (*elsewhere.observation_blocks, ObservationBlock(name="place", size=1))
    fitted = compose.mean(parts).fitted_to(elsewhere._replace(observation_blocks=wider))
    assert (fitted.spec.env_id, fitted.spec.env_kwargs) == ("Other-v0", {})


def test_a_composition_warns_of_another_model_as_a_skill_does():
    a, b = peaked("a", model_hash="0" * 64), peaked("b")
    own = Layout(a.spec.env_id, a.spec.observation_blocks, -np.ones(2), np.ones(2), "1" * 64)
    for one in (a, a & b):
        with pytest.warns(UserWarning, match="'a' was trained on another model"):
            one.fitted_to(own)


def test_an_operand_that_is_no_skill_is_refused():
    a, _, _ = three()
    for wrong in (3, "b", None):
        with pytest.raises(TypeError):
            a & wrong
        with pytest.raises(TypeError):
            a | wrong
        with pytest.raises(TypeError):
            a + wrong
    with pytest.raises(TypeError):
        a * "2"


@pytest.mark.parametrize("weights", [[1], [1, -1], [0, 0], [np.nan, 1], [1, 2, 3]])
def test_weights_of_a_mean_must_make_one(weights):
    a, b, _ = three()
    with pytest.raises(SkillbankError, match="2 skills need 2 weights, not negative"):
        compose.mean([a, b], weights=weights)


def test_a_mapping_of_weights_is_for_sums():
    a, b, _ = three()
    for compose_them in (compose.mean, compose.any_of):
        with pytest.raises(SkillbankError, match="a mapping is for compose"):
            compose_them({a: 1.0, b: 2.0})
        with pytest.raises(SkillbankError, match=r"as in mean\(\[a, b\]\)"):
            compose_them(a, b)
    with pytest.raises(SkillbankError, match="a sum needs a weight for each skill"):
        compose.add([a, b])


def test_parents_are_also_those_of_what_was_never_saved(tmp_path):
    a, b, _ = three()
    a.save(tmp_path / "a.h5")
    b.save(tmp_path / "b.h5")
    warm = b.at_temperature(2 * ALPHA).at_temperature(ALPHA)
    assert warm.spec.parents[-1] == b.content_hash
    assert {a.content_hash, b.content_hash} <= set((a & warm).spec.parents)
    assert (a & b).spec.parents == (a.content_hash, b.content_hash)
    for _ in range(100):
        warm = warm.at_temperature(ALPHA)
    assert len(warm.spec.parents) == 64


def test_weights_of_a_soft_or_must_be_positive():
    a, b, _ = three()
    with pytest.raises(SkillbankError, match="positive"):
        compose.any_of([a, b], weights=[1, 0], shared_goals=True)
    with pytest.raises(SkillbankError, match="positive"):  # 0 once scaled
        compose.any_of([a, b], weights=[5e-324, 10], shared_goals=True)
    with pytest.raises(SkillbankError, match="nothing to compose"):
        compose.any_of([])
    with pytest.raises(SkillbankError, match="finite weights"):
        compose.add({a: np.inf})


# What does not fit.


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        ({"discount": 0.9}, ["discount", "0.8", "0.9"]),
        ({"action_high": (1.0, 2.0)}, ["action high", "(1.0, 1.0)", "(1.0, 2.0)"]),
        (
            {"observation_blocks": (ObservationBlock(name="speed", size=2),)},
            ["observation", "speed", "must observe every block"],
        ),
    ],
)
def test_misfits_are_refused_with_both_sides_shown(change, shown):
    a, b, _ = three()
    other = b.with_spec(**change)
    for make in (lambda: a & other, lambda: a - other, lambda: any_of(a, other)):
        with pytest.raises(IncompatibleSkill) as caught:
            make()
        for text in ["'a' and 'b' do not go together", *shown]:
            assert text in str(caught.value)


def test_different_temperatures_are_refused_and_rescaling_is_explicit():
    a, _, _ = three()
    cold = peaked("cold", (0.0, 0.6), alpha=0.1)
    with pytest.raises(IncompatibleSkill, match=r"at_temperature\(0.5\) of .*--rescale"):
        a & cold
    warm = cold.at_temperature(ALPHA)
    composed = a & warm
    expected = (a.q(OBS, ACTION) + 5.0 * cold.q(OBS, ACTION)) / 2
    np.testing.assert_allclose(composed.q(OBS, ACTION), expected, rtol=1e-5, atol=1e-5)
    assert composed.spec.reward == "0.5 r[a] + 0.5 (5 r[cold])"


def test_rescaling_keeps_the_policy_and_scales_every_number():
    a, b, c = three()
    for skill in (a, a & b, a - 0.5 * b, any_of(a, b) & c):
        other = skill.at_temperature(0.1)
        assert other.spec.temperature == 0.1
        np.testing.assert_allclose(
            other.energy(OBS, ACTION), skill.energy(OBS, ACTION), rtol=1e-4, atol=1e-5
        )
        np.testing.assert_allclose(
            exact_value(other, OBS), 0.2 * exact_value(skill, OBS), rtol=1e-4, atol=1e-5
        )
    np.testing.assert_array_equal(a.at_temperature(0.1).sample(OBS, 3, 0), a.sample(OBS, 3, 0))
    with pytest.raises(ValueError, match="positive"):
        a.at_temperature(0.0)


def test_a_skill_that_occurs_twice_stays_one_when_rescaled():
    a, b = peaked("a", (0.3, 0.0)), peaked("b", (-0.3, 0.0))
    twice = compose.any_of([a & b, b], shared_goals=True).at_temperature(0.1)
    assert len(twice.parts) == 2
    scale = 0.1 / ALPHA
    rewards = {"a": [1.0], "b": [3.0]}
    told = 0.1 * np.log(0.5 * np.exp(2.0 * scale / 0.1) + 0.5 * np.exp(3.0 * scale / 0.1))
    np.testing.assert_allclose(twice.reward(rewards), [told])
    chain = (any_of(a, b) & b).at_temperature(0.1)
    assert len(chain.parts) == len((chain & peaked("c").at_temperature(0.1)).parts) - 1 == 2


def test_a_distilled_skill_is_for_another_reward_than_its_tasks():
    goal = {"env_id": "skillbank/PointMassReach-v0"}
    a, b = peaked("a", (0.3, 0.0), **goal), peaked("b", (-0.3, 0.0), **goal)
    distilled = a.with_spec(name="c", reward="2 r[a]")
    assert (a | b).node.shared
    with pytest.warns(compose.CompositionWarning, match="absorbing goals"):
        assert not (distilled | b).node.shared


def test_soft_or_outside_its_conditions_warns_and_says_what_holds():
    a, b, _ = three()
    for compose_them in (lambda: compose.any_of([a, b]), lambda: a | b):
        with pytest.warns(
            CompositionWarning, match="prefers what either skill values most"
        ) as told:
            compose_them()
        assert told[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compose.any_of([a, b], shared_goals=True)
        reach = [s.with_spec(env_id="skillbank/PointMassReach-v0") for s in (a, b)]
        assert (reach[0] | reach[1]).spec.name == "a | b"
        assert ((reach[0] & reach[1]) | reach[1]).spec.name == "(0.5 a + 0.5 b) | b"
    # a cost of time is no longer the same in both where one is scaled
    half = reach[1].with_spec(reward_scale=0.5)
    for one, other in ((reach[0], half), (2 * reach[0], reach[1]), (reach[0] - reach[1], reach[0])):
        with pytest.warns(CompositionWarning):
            one | other


def test_a_configuration_of_another_kind_is_refused():
    a, b, _ = three()
    config = PretrainConfig()
    for learn in (
        (a & b).corrected,
        (a & b).distill,
        partial(compose.improve, [a, b], "MultiGoal"),
    ):
        with pytest.raises(SkillbankError, match=r"takes a \w+Config, not PretrainConfig"):
            learn(config=config)


def test_what_nothing_is_known_about_is_refused():
    with pytest.warns(CompositionWarning):
        either = peaked("a") | peaked("b", (0.5, 0.0))
    for composed in (either, compose.add([(either, 2.0), (peaked("c"), 1.0)])):
        for learn in (composed.certificate, composed.corrected):
            with pytest.raises(IncompatibleSkill, match=r"nothing is known.*shared_goals=True"):
                learn()
    told = compose.any_of([peaked("a"), peaked("b")], shared_goals=True)
    expression.check_bounded(told.at_temperature(2.0).node)


def test_a_bank_keeps_no_composition(tmp_path):
    composed = peaked("a") & peaked("b")
    for use in (
        lambda: Bank(tmp_path).save(composed, "ab"),
        lambda: composed.save(tmp_path / "ab.h5"),
        lambda: finetune(composed, "PointMassRun"),
    ):
        with pytest.raises(SkillbankError, match=r"distill\(\) turns a composition into"):
            use()


def test_skills_can_be_summed_as_numbers_are():
    a, b, c = three()
    np.testing.assert_array_equal(sum([a, b, c]).q(OBS, ACTION), (a + b + c).q(OBS, ACTION))


def test_parts_of_one_name_have_no_reward_by_name():
    composed = peaked("a") & peaked("a", (0.5, 0.0))
    with pytest.raises(IncompatibleSkill, match="two have one name"):
        composed.reward({"a": 1.0})


def test_a_skill_of_fewer_blocks_joins_one_of_more():
    a = peaked("a", (0.3, 0.0), slope=(0.2, 0.5))
    blocks = (ObservationBlock(name="extra", size=1), ObservationBlock(name="observation", size=2))
    b = peaked("b", (0.0, 0.5), slope=(1.0, 0.1, -0.3), observation_blocks=blocks)
    composed = a & b
    assert composed.spec.observation_blocks == blocks
    wide = np.concatenate([np.full((6, 1), 0.7, np.float32), OBS], 1)
    expected = (a.q(OBS, ACTION) + b.q(wide, ACTION)) / 2
    np.testing.assert_allclose(composed.q(wide, ACTION), expected, atol=1e-5)
    other = (ObservationBlock(name="other", size=1), ObservationBlock(name="observation", size=2))
    c = peaked("c", slope=(0.0, 0.0, 0.0), observation_blocks=other)
    with pytest.raises(IncompatibleSkill, match="'b' and 'c' do not go together"):
        compose.mean([a, b, c])


# Values and actions.


def compositions():
    a, b, c = three()
    noise = peaked("n", (0.4, 0.2), sampler="noise", slope=(0.1, 0.1))
    finite = Skill(
        a.spec.model_copy(update={"noise_set": 3}),
        a.parameters() | {"noise": np.float32([[0, 0], [0.3, 0], [0, -0.3]])},
    )
    with pytest.warns(CompositionWarning, match="'a' acts by 3 fixed noises") as told:
        of_finite = finite & b
    assert told[0].filename == __file__
    return {
        "one": compose.mean([a]),
        "mean": a & b,
        "but not": a - 0.5 * b,
        "sum": a + b,
        "or": any_of(a, c),
        "nested": any_of(a, b) & c,
        "noise-fed": noise & b,
        "finite": of_finite,
    }


@pytest.mark.parametrize("which", list(compositions()))
def test_value_is_the_integral(which):
    composed = compositions()[which]
    found = np.mean([composed.value(OBS, seed=seed) for seed in range(4)], 0)
    np.testing.assert_allclose(found, exact_value(composed, OBS), atol=0.04)


def anchored(name, centre=0.0, steep=0.0):
    """A skill whose prior is its own sampling network."""
    plain = peaked(name, (0.0, 0.0), steep=steep)
    arrays = plain.parameters()
    arrays["sampler/head.bias"][:2] = centre
    prior = {k.replace("sampler", "anchor"): v for k, v in arrays.items() if "sampler" in k}
    return Skill(plain.spec.model_copy(update={"anchored": True}), arrays | prior)


@pytest.mark.parametrize("centre", [0.0, 4.0, 8.0, 10.0])
def test_a_skill_that_is_its_prior_is_worth_nothing_also_where_that_saturates(centre):
    """``alpha log E_prior exp(0) = 0``, wherever tanh is flat."""
    skill = anchored("s", centre)
    np.testing.assert_allclose(
        compose.mean([skill]).value(np.repeat(OBS, 20, 0)).mean(), 0, atol=0.06
    )


def test_a_prior_may_be_added_but_not_subtracted():
    """``-alpha log pi_0`` has no upper bound, and its sums no soft value."""
    plain, one, other = peaked("p", (0.5, 0.0)), anchored("one"), anchored("other", centre=0.5)
    same = anchored("same", steep=1.0)  # with the prior of ``one``
    for fine in (plain - 0.5 * plain, plain + 0.5 * one, one - same, one - 0.5 * same):
        assert np.isfinite(fine.value(OBS)).all()
    either = compose.any_of([one, plain], shared_goals=True)
    unbounded = (
        lambda: plain - 0.5 * one,
        lambda: one - other,
        lambda: one - 1.5 * same,
        lambda: plain - 0.5 * (plain & one),
        lambda: plain - either,
        lambda: compose.any_of([plain - one, plain], shared_goals=True),
    )
    for made in unbounded:
        with pytest.raises(IncompatibleSkill, match="cannot be subtracted"):
            made()
    assert np.isfinite((plain + either).value(OBS)).all()


@pytest.mark.parametrize("which", list(compositions()))
def test_samples_follow_the_composed_energy(which):
    composed = compositions()[which]
    one = OBS[:1]
    points, _ = grid(2)
    q = composed.q(one, points[np.newaxis])[0].astype(float)
    share = np.exp((q - q.max()) / ALPHA)
    share /= share.sum()
    drawn = np.concatenate([composed.sample(one, 400, seed=s)[0] for s in range(10)])
    mean, second = share @ points, share @ points**2
    spread = np.sqrt(second - mean**2)
    # 4000 draws, of which resampling leaves some hundreds of different ones
    np.testing.assert_allclose(drawn.mean(0), mean, atol=0.06)
    np.testing.assert_allclose(drawn.std(0), spread, atol=0.05)


def test_effective_sample_size_is_reported_and_tells_good_from_bad():
    a, b, _ = three()
    good = (a & b).draw(OBS, 1, seed=0)
    assert good.candidates == 64
    assert good.sample_size.shape == (6,)
    assert (good.sample_size > 20).all()
    sharp = peaked("sharp", (0.9, 0.9), steep=200.0) & peaked("other", (0.9, 0.9), steep=200.0)
    bad = sharp.acting_with(refined=0, per_part=8).draw(OBS, 1, seed=0)
    assert (bad.sample_size < good.sample_size / 3).all()
    composed = a & b
    composed.predict(OBS)
    assert 20 < composed.sample_size < 64


def test_acting_deterministically_takes_the_best_and_repeats():
    a, b, _ = three()
    composed = a & b
    points, _ = grid(2, 81)
    q = composed.q(OBS, np.broadcast_to(points, (6, *points.shape)))
    action, state = composed.predict(OBS, deterministic=True)
    assert state is None
    assert action.shape == (6, 2)
    assert action.dtype == np.float64
    assert (composed.q(OBS, action) > q.max(1) - 0.03).all()  # of the best on a grid of 6,561
    np.testing.assert_array_equal(action, composed.predict(OBS, deterministic=True)[0])
    for other in (composed, composed.acting_with(stein_steps=3)):
        whole, _ = other.predict(OBS, deterministic=True)
        alone = [other.predict(obs, deterministic=True)[0] for obs in OBS]
        np.testing.assert_allclose(alone, whole, atol=1e-4)  # whoever else is in the batch
    ten = composed.draw(OBS, 10, seed=0, deterministic=True).q
    assert (np.diff(ten, axis=1) <= 0).all()


def test_predict_keeps_the_convention_and_the_units():
    a, b, _ = three()
    low, high = (-2.0, 0.0), (4.0, 1.0)
    own = [s.with_spec(action_low=low, action_high=high, action_dtype="float32") for s in (a, b)]
    composed = own[0] & own[1]
    action, _ = composed.predict(OBS[0])
    assert action.shape == (2,)
    assert action.dtype == np.float32
    many = composed.sample(OBS, 200, seed=0)
    assert (many >= low).all()
    assert (many <= high).all()
    scaled = (many - low) / (np.array(high) - low) * 2 - 1
    np.testing.assert_allclose(scaled, (a & b).sample(OBS, 200, seed=0), atol=1e-6)
    np.testing.assert_array_equal(many, composed.sample(OBS, 200, seed=0))
    assert (composed.sample(OBS, 3) != composed.sample(OBS, 3)).any()


def test_wrong_shapes_are_refused():
    composed = three()[0] & three()[1]
    with pytest.raises(ValueError, match=r"expected observations \[B, 2\]"):
        composed.q(np.zeros((1, 3)), np.zeros((1, 2)))
    with pytest.raises(ValueError, match=r"expected actions \[..., 2\]"):
        composed.q(OBS, np.zeros((6, 3)))
    with pytest.raises(ValueError, match="do not go together"):
        composed.q(OBS, ACTION[:3])
    with pytest.raises(ValueError, match="n must be at least 1"):
        composed.sample(OBS, 0)
    for one in (composed, three()[0]):
        with pytest.raises(ValueError, match="observation 1 is nan at index 0"):
            one.predict([[0.0, 0.0], [np.nan, 0.0]])


def test_no_states_have_no_actions():
    a, b, _ = three()
    for one in (a, a & b, any_of(a, b)):
        assert one.predict(np.zeros((0, 2)))[0].shape == (0, 2)
        assert one.predict(np.zeros((0, 2)), deterministic=True)[0].shape == (0, 2)
        assert one.value(np.zeros((0, 2))).shape == (0,)


def test_stein_steps_bring_poor_candidates_towards_the_target():
    a = peaked("a", (0.6, 0.6), steep=10.0)
    b = peaked("b", (-0.6, 0.6), steep=10.0)
    composed = compose.add([(a, 1.0), (b, 0.2)]).acting_with(per_part=1, uniform=8, refined=0)
    before = composed.draw(OBS, 200, seed=0).q.mean()
    moved = composed.acting_with(stein_steps=20).draw(OBS, 200, seed=0)
    best = composed.acting_with(per_part=400, refined=400).draw(OBS, 200, seed=0).q.mean()
    assert before < moved.q.mean() - 0.3 * (best - before)
    assert np.ptp(moved.action[:, :, 0], axis=1).mean() > 0.01  # repelled from each other
    sure = composed.acting_with(stein_steps=20).draw(OBS, 1, seed=0, deterministic=True)
    assert (sure.q >= composed.draw(OBS, 1, seed=0, deterministic=True).q).all()


@pytest.mark.parametrize(
    ("acting", "error"),
    [(Acting(refined=0), 0.01), (Acting(), 0.04), (CorrectionConfig().proposals, 0.1)],
    ids=["unrefined", "acting", "learning"],
)
def test_few_candidates_estimate_the_integral_nearly_without_bias(acting, error):
    a, b, _ = three()
    composed = a & b
    points, log_area = grid(2, 201)
    q = composed.q(OBS[:1], points[None]).astype(float)[0]
    exact_integral = np.exp(q / ALPHA + log_area).sum()
    obs = torch.from_numpy(np.repeat(OBS[:1], 20_000, 0))
    cloud = composed.candidates(obs, torch.Generator().manual_seed(0), acting)
    found = cloud.log_weight(ALPHA).exp().mean(1)  # [20 000]
    assert float(found.mean()) / exact_integral == pytest.approx(1.0, abs=error)


def test_candidates_weigh_by_the_density_of_their_mixture():
    # the mean of 1 / density is the volume of the box, whatever the proposals are
    for name, composed in compositions().items():
        acting = Acting(per_part=300, uniform=100, refined=300)
        obs = torch.from_numpy(OBS)
        cloud = composed.candidates(obs, torch.Generator().manual_seed(0), acting)
        volume = cloud.log_base.exp().mean(1)
        np.testing.assert_allclose(volume, 4.0, rtol=0.15, err_msg=name)


# The same skill in other clothes.


def headed(angle_slope=0.3):
    blocks = (ObservationBlock(name="speed", size=1), ObservationBlock(name="heading", size=2))
    tilt = ((0.0, 0.4, 0.1), (0.2, -0.3, 0.5))
    return peaked(
        "h", (0.1, -0.2), tilt=tilt, slope=(0.5, angle_slope, -0.7), observation_blocks=blocks
    )


def seen(yaw, speed=0.3):
    return np.stack([np.full_like(yaw, speed), np.cos(yaw), np.sin(yaw)], 1).astype(np.float32)


def test_a_turned_skill_does_elsewhere_what_it_did_here():
    skill, yaw = headed(), np.linspace(-3.0, 3.0, 6)
    for angle in (np.pi / 2, 0.7, -2.0):
        turned = skill.turned(angle)
        np.testing.assert_allclose(
            turned.q(seen(yaw), ACTION), skill.q(seen(yaw - angle), ACTION), atol=1e-5
        )
        np.testing.assert_allclose(
            turned.sample(seen(yaw), 4, seed=1),
            skill.sample(seen(yaw - angle), 4, seed=1),
            atol=1e-5,
        )
    back = skill.turned(1.1).turned(-1.1)
    np.testing.assert_allclose(back.q(seen(yaw), ACTION), skill.q(seen(yaw), ACTION), atol=1e-5)
    assert (np.abs(skill.turned(1.0).q(seen(yaw), ACTION) - skill.q(seen(yaw), ACTION)) > 0.1).any()
    composed = skill & skill.turned(np.pi / 2)
    expected = (skill.q(seen(yaw), ACTION) + skill.q(seen(yaw - np.pi / 2), ACTION)) / 2
    np.testing.assert_allclose(composed.q(seen(yaw), ACTION), expected, atol=1e-5)


def test_a_turned_skill_is_an_ordinary_skill(tmp_path):
    skill = headed()
    skill.save(tmp_path / "h.h5")
    turned = skill.turned(np.pi / 2)
    assert turned.spec.name == "h.turned_90"
    assert turned.spec.parents == (skill.content_hash,)
    assert turned.spec.reward == f"{skill.spec.task}, turned by 90 degrees"  # no longer the task's
    assert turned.turned(0.0).spec.reward == f"{turned.spec.reward}, turned by 0 degrees"
    turned.save(tmp_path / "t.h5")
    again = Skill.load(tmp_path / "t.h5")
    yaw = np.linspace(-3.0, 3.0, 6)
    np.testing.assert_array_equal(again.q(seen(yaw), ACTION), turned.q(seen(yaw), ACTION))


@pytest.mark.parametrize("angle", [np.pi, -1e9])
def test_a_turned_skill_of_a_long_name_can_be_saved(tmp_path, angle):
    turned = headed().with_spec(name="h" * 128).turned(angle)
    turned.save(tmp_path / "t.h5")
    name = Skill.load(tmp_path / "t.h5").spec.name
    assert len(name) == 128
    assert name.startswith("hhh")
    assert ".turned_" in name


MIRROR = Symmetry(
    name="mirror",
    obs_index=(0, 1, 2),
    obs_sign=(1, 1, -1),
    action_index=(1, 0),
    action_sign=(1, 1),
)
QUARTER = Symmetry(
    name="quarter",
    obs_index=(0, 2, 1),
    obs_sign=(1, 1, -1),
    action_index=(0, 1),
    action_sign=(1, 1),
)


def test_symmetries_turn_with_the_skill_or_are_dropped():
    skill = headed().with_spec(symmetries=(MIRROR, QUARTER))
    right, odd = skill.turned(np.pi / 2).spec, skill.turned(0.4).spec
    assert [s.name for s in right.symmetries] == ["mirror", "quarter"]
    assert right.symmetries[0].obs_sign == (1, -1, 1)  # about the other axis
    assert right.symmetries[1].obs_index == (0, 2, 1)  # rotations commute
    assert [s.name for s in odd.symmetries] == ["quarter"]


def test_a_composition_has_the_symmetries_that_all_its_skills_have():
    skill = headed().with_spec(symmetries=(MIRROR, QUARTER))
    assert [s.name for s in (skill & skill.turned(0.4)).spec.symmetries] == ["quarter"]
    assert [s.name for s in compose.mean([skill]).spec.symmetries] == ["mirror", "quarter"]
    assert (skill & headed()).spec.symmetries == ()


def test_what_is_learned_from_more_than_the_skills_observe_may_break_their_symmetries():
    place = ObservationBlock(name="place", size=2)
    skill = headed().with_spec(symmetries=(MIRROR, QUARTER))
    blocks = skill.spec.observation_blocks
    network = peaked().critic

    def corrected(*more):
        return Composed(Corrected(Leaf(skill), Correction(network, blocks + more, {})))

    assert corrected().spec.symmetries == (MIRROR, QUARTER)
    assert corrected(place).spec.symmetries == ()
    best = Best((Leaf(skill),), (network,), blocks, "any")
    assert Composed(best).spec.symmetries == ()
    assert Composed(Corrected(best, Correction(network, blocks, {}))).spec.symmetries == ()


def test_the_task_of_a_composition_is_that_of_the_skill_that_observes_most():
    wide = (ObservationBlock(name="observation", size=2), ObservationBlock(name="place", size=1))
    a, b = peaked("a", env_id="A-v0"), peaked("b", env_id="B-v0", observation_blocks=wide)
    assert (a & b).spec.env_id == (b & a).spec.env_id == "B-v0"
    node = Corrected((a & b).node, Correction(a.critic, wide, {}))
    assert compose.mean([a, Composed(node)]).spec.env_id == "B-v0"


def test_a_skill_is_composed_by_its_average_over_its_symmetries():
    one = Bank().load("run_anywhere")
    composed = one & one.at_temperature(one.spec.temperature).with_spec(name="other")
    rng = np.random.default_rng(0)
    obs, action = rng.normal(size=(5, 29)), rng.uniform(-1.0, 1.0, (5, 7, 8))
    seen = [
        (obs[:, s.obs_index] * s.obs_sign, action[..., s.action_index] * s.action_sign)
        for s in one.spec.symmetries
    ]
    each = np.stack([one.q(*pair) for pair in seen])  # [8, 5, 7]
    assert each.std(0).max() > 0.01  # the network itself is only nearly symmetric
    np.testing.assert_allclose(composed.q(obs, action), each.mean(0), rtol=1e-5)
    for pair in seen:
        np.testing.assert_allclose(composed.q(*pair), composed.q(obs, action), rtol=1e-5)
    plain = composed.acting_with(averaged=False)
    np.testing.assert_allclose(plain.q(obs, action), one.q(obs, action), rtol=1e-5)
    # one symmetry at a time, for who looks often: the same for both skills, which stay equal
    looks, generator = [], torch.Generator().manual_seed(0)
    for _ in range(40):
        plain.critics.look(generator)
        looks.append(plain.q(obs, action))
    assert all(np.isclose(each, q, rtol=1e-5).all((1, 2)).any() for q in looks)
    assert len({q.tobytes() for q in looks}) > 4


def test_a_skill_without_a_heading_cannot_be_turned():
    with pytest.raises(IncompatibleSkill, match="it observes observation 2"):
        three()[0].turned(1.0)


def test_a_skill_that_knows_its_place_cannot_be_turned():
    blocks = (ObservationBlock(name="position", size=1), ObservationBlock(name="heading", size=2))
    skill = headed()
    placed = type(skill)(
        skill.spec.model_copy(update={"observation_blocks": blocks}), skill.parameters()
    )
    with pytest.raises(IncompatibleSkill, match="observes its position"):
        placed.turned(1.0)
    for angle in (np.nan, np.inf):
        with pytest.raises(ValueError, match="finite number of radians"):
            skill.turned(angle)


def test_discount_and_temperature_of_the_test_skills_are_as_told():
    assert (three()[0].spec.discount, three()[0].spec.temperature) == (GAMMA, ALPHA)
