"""Soft values against closed forms, for every kind of proposal, with their sample size."""

import math

import pytest
import torch
from energies import any_energy  # noqa: F401 (a fixture)

from skillbank.agent import Agent
from skillbank.config import Architecture, PretrainConfig
from skillbank.networks import FlowSampler, unsquash
from skillbank.soft_value import effective_sample_size, soft_bellman_target, soft_value

pytestmark = pytest.mark.usefixtures("any_energy")

STATES = 16
UNIFORM = {"proposals": "uniform"}


class Quadratic(torch.nn.Module):
    """Q(s, a) = -b |a|^2."""

    def __init__(self, b):
        super().__init__()
        self.b = b

    def forward(self, obs, action):
        return -self.b * action.square().sum(-1).unsqueeze(0)


def closed_form(b, alpha, dimensions):
    """Alpha log of the box's INT exp(-b |a|^2 / alpha) da."""
    one = math.sqrt(math.pi * alpha / b) * math.erf(math.sqrt(b / alpha))
    return alpha * dimensions * math.log(one)


def proposing(dimensions, samples, b=3.0, alpha=1.0, anchor=None, **learning):
    architecture = Architecture(sampler_hidden=(32,), critic_hidden=(8,))
    config = PretrainConfig(
        architecture=architecture, value_samples=samples, sampler_learning_rate=3e-3, **learning
    )
    agent = Agent(architecture, config, 1, dimensions, alpha, seed=0, anchor=anchor)
    agent.critic = agent.target_critic = Quadratic(b)
    return agent


def estimate(agent, states=STATES):
    q, log_weight = agent.proposals(torch.zeros(states, 1))
    value = soft_value(q, log_weight, agent.temperature)
    return value, effective_sample_size(q, log_weight, agent.temperature)


@pytest.mark.parametrize("dimensions", [1, 2, 8])
@pytest.mark.parametrize("learning", [UNIFORM, {}], ids=["uniform", "sampler"])
@pytest.mark.parametrize("alpha", [1.0, 0.5])
def test_soft_value_of_a_quadratic_has_its_closed_form(dimensions, learning, alpha):
    """Within four times the error that the effective sample size says there should be."""
    samples = 20_000
    value, share = estimate(proposing(dimensions, samples, 1.5, alpha, **learning))
    # relative variance of a mean of K weights: (1 / ESS share - 1) / K
    error = alpha * math.sqrt((1.0 / share.mean().item() - 1.0) / (samples * STATES))
    assert error < 0.02
    assert value.mean().item() == pytest.approx(
        closed_form(1.5, alpha, dimensions), abs=4.0 * error + 1e-4
    )


@pytest.mark.parametrize("dimensions", [1, 2, 8])
def test_fitted_sampler_needs_few_proposals_where_uniform_ones_need_many(dimensions):
    """Q = -30 |a|^2: in 8 dimensions 50 uniform proposals are off by over 10."""
    agent = proposing(dimensions, 50, b=30.0)
    for _ in range(300):
        agent.update_sampler(torch.zeros(64, 1))
    exact = closed_form(30.0, 1.0, dimensions)
    value, share = estimate(agent)
    assert share.mean() > 0.7  # 0.8 in 8 dimensions, 0.96 and more in 1 and 2
    assert (value - exact).abs().max() < 0.2
    uniform, poor = estimate(proposing(dimensions, 50, b=30.0, **UNIFORM))
    assert poor.mean() < share.mean()
    if dimensions == 8:
        assert uniform.mean() < exact - 10.0


@pytest.mark.parametrize("dimensions", [1, 2, 8])
def test_the_volume_of_the_box_is_kept(dimensions):
    """Q = 0: V = alpha d log 2, exactly with uniform proposals and nearly with any others."""
    agent = proposing(dimensions, 7, b=0.0, alpha=0.3, **UNIFORM)
    exact = 0.3 * dimensions * math.log(2.0)
    torch.testing.assert_close(estimate(agent)[0], torch.full((STATES,), exact))
    by_sampler, _ = estimate(proposing(dimensions, 20_000, b=0.0, alpha=0.3))
    assert by_sampler.mean().item() == pytest.approx(exact, abs=0.01)


def test_first_updates_may_propose_uniformly():
    agent = proposing(2, 7, b=0.0, uniform_updates=3)
    assert estimate(agent)[1].min() == pytest.approx(1.0)  # equal weights
    agent.updates = 3
    assert estimate(agent)[1].min() < 1.0


# A prior: V = alpha log E_{a ~ pi_0} exp(Q / alpha).


def anchor(dimensions=2):
    network = FlowSampler(Architecture(sampler_hidden=(32,), critic_hidden=(8,)), 1, dimensions)
    network.initialise(torch.Generator().manual_seed(5))
    with torch.no_grad():
        network["head.bias"][0] += 0.4  # to one side, and narrower
        network["head.bias"][dimensions] -= 0.3
    return network


@pytest.mark.parametrize("learning", [UNIFORM, {}], ids=["uniform", "sampler"])
def test_value_over_a_prior_is_its_expectation(learning):
    prior, alpha = anchor(), 0.7
    noise = torch.randn(1, 400_000, 2, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        action = torch.tanh(prior(torch.zeros(1, 1), noise)[0])
    expected = alpha * torch.logsumexp(-1.5 / alpha * action.square().sum(-1), 1)
    expected = expected.item() - alpha * math.log(400_000)
    value, _ = estimate(proposing(2, 20_000, b=1.5, alpha=alpha, anchor=prior, **learning))
    assert value.mean().item() == pytest.approx(expected, abs=0.01)


def test_nothing_to_gain_is_worth_nothing_over_the_prior_itself():
    prior = anchor()
    agent = proposing(2, 5, b=0.0, anchor=prior)
    agent.sampler.load_arrays(prior.arrays())
    value, share = estimate(agent)
    torch.testing.assert_close(value, torch.zeros(STATES), atol=1e-5, rtol=0.0)
    torch.testing.assert_close(share, torch.ones(STATES), atol=1e-5, rtol=0.0)


# A finite noise set.


def test_handed_over_value_is_that_of_the_noise_set():
    agent = proposing(2, 4_000, b=3.0, alpha=0.5)
    agent.noise_set, agent.handover = torch.randn(3, 2), 0.0
    with torch.no_grad():
        u, _ = agent.sampler(torch.zeros(1, 1), agent.noise_set[None])
    q = -3.0 * torch.tanh(u).square().sum(-1)
    expected = 0.5 * (torch.logsumexp(q / 0.5, 1) - math.log(3.0))
    value, _ = estimate(agent)
    assert value.mean().item() == pytest.approx(expected.item(), abs=0.01)


# The functions themselves.


def test_low_temperature_takes_the_best_and_high_temperature_the_mean():
    q = torch.tensor([[0.0, 1.0, 4.0]], dtype=torch.float64)
    none = torch.zeros_like(q)
    assert soft_value(q, none, 1e-3).item() == pytest.approx(4.0, abs=0.01)
    assert soft_value(q, none, 1e5).item() == pytest.approx(5.0 / 3.0, abs=1e-3)


def test_huge_values_do_not_overflow():
    q = torch.tensor([[1e4, 1e4 - 1.0]])
    value = soft_value(q, torch.zeros_like(q), 0.001)
    assert value.item() == pytest.approx(1e4, abs=0.01)


def test_effective_share_is_one_for_equal_weights_and_one_of_k_for_a_single_one():
    equal, single = torch.full((1, 8), -3.0), torch.tensor([[0.0] + [-1e3] * 7])
    assert effective_sample_size(equal, equal, 0.1).item() == pytest.approx(1.0)
    assert effective_sample_size(single, torch.zeros(1, 8), 0.1).item() == pytest.approx(1 / 8)


def test_weights_are_those_of_log_weights():
    generator = torch.Generator().manual_seed(0)
    q, log_weight = torch.randn(2, 3, 6, generator=generator, dtype=torch.float64)
    w = torch.exp(q / 0.4 + log_weight)
    torch.testing.assert_close(soft_value(q, log_weight, 0.4), 0.4 * w.mean(1).log())
    torch.testing.assert_close(
        effective_sample_size(q, log_weight, 0.4), w.sum(1) ** 2 / (6 * (w**2).sum(1))
    )


def test_target_bootstraps_unless_the_episode_ended_for_good():
    reward, discount = torch.tensor([1.0, 1.0]), torch.tensor([0.9, 0.81])
    terminated, value = torch.tensor([1.0, 0.0]), torch.tensor([10.0, 10.0])
    target = soft_bellman_target(reward, discount, terminated, value)
    torch.testing.assert_close(target, torch.tensor([1.0, 1.0 + 8.1]))


def test_a_column_in_place_of_a_row_is_refused():
    row, column = torch.zeros(4), torch.zeros(4, 1)
    with pytest.raises(AssertionError):
        soft_bellman_target(row, row, row, column)
    with pytest.raises(AssertionError):
        soft_value(torch.zeros(4, 1), row, 1.0)


def test_unsquash_survives_the_walls():
    assert torch.isfinite(unsquash(torch.tensor([-1.0, 1.0]))).all()
