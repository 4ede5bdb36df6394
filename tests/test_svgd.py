"""The Stein direction against sums written out, and sampling networks fitted to fixed energies."""

import math

import pytest
import torch
from energies import any_energy  # noqa: F401 (a fixture)

from skillbank.agent import Agent
from skillbank.config import Architecture, PretrainConfig
from skillbank.svgd import bandwidth, squared_distances, stein_direction

pytestmark = pytest.mark.usefixtures("any_energy")

KINDS = [("flow", "divergence"), ("flow", "stein"), ("noise", "stein")]


def particles(count, dimensions=3, batch=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, count, dimensions, generator=generator, dtype=torch.float64)


# The direction.


def test_direction_is_the_double_sum_with_kernel_gradients_by_autograd():
    x, y, score = particles(5), particles(6, seed=1), particles(5, seed=2)
    alpha, h = 0.7, torch.tensor([0.5, 1.0, 2.0, 4.0], dtype=torch.float64)
    found = stein_direction(x, y, score, alpha, h.view(-1, 1, 1))
    for b in range(4):
        for j in range(6):
            phi = torch.zeros(3, dtype=torch.float64)
            for i in range(5):
                xi = x[b, i].clone().requires_grad_()
                kernel = torch.exp(-(xi - y[b, j]).square().sum() / h[b])
                (slope,) = torch.autograd.grad(kernel, xi)
                phi += kernel.detach() * score[b, i] + alpha * slope
            torch.testing.assert_close(found[b, j], phi / 5, rtol=1e-10, atol=1e-12)


def test_direction_by_default_takes_the_median_bandwidth():
    x, y, score = particles(5), particles(6, seed=1), particles(5, seed=2)
    h = bandwidth(squared_distances(x, y))
    torch.testing.assert_close(
        stein_direction(x, y, score, 0.3), stein_direction(x, y, score, 0.3, h)
    )


def test_one_particle_climbs_the_plain_gradient():
    x, score = particles(1), particles(1, seed=1)
    torch.testing.assert_close(stein_direction(x, x, score, 0.7), score)


def test_repulsion_is_antisymmetric_and_points_away():
    x = particles(2)
    force = stein_direction(x, x, torch.zeros_like(x), 1.0, torch.ones(4, 1, 1))
    torch.testing.assert_close(force[:, 0], -force[:, 1])
    apart = x[:, 0] - x[:, 1]
    assert ((force[:, 0] * apart).sum(-1) > 0).all()


def test_many_particles_do_not_push_their_common_centre():
    x = particles(9)
    force = stein_direction(x, x, torch.zeros_like(x), 1.0)
    torch.testing.assert_close(force.sum(1), torch.zeros(4, 3, dtype=torch.float64))


def test_direction_does_not_depend_on_the_units_of_the_particles():
    # Halving the unit doubles x, halves the score, and leaves x's own change relative to x alone:
    # alpha grad k and k grad Q both scale as 1 / unit.
    x, y, score = particles(5), particles(6, seed=1), particles(5, seed=2)
    one = stein_direction(x, y, score, 0.3)
    torch.testing.assert_close(stein_direction(2 * x, 2 * y, score / 2, 0.3), one / 2)


def test_wide_kernel_averages_the_score_and_narrow_kernel_feels_itself_only():
    x, score = particles(5), particles(5, seed=1)
    wide = stein_direction(x, x, score, 1.0, torch.full((4, 1, 1), 1e12, dtype=torch.float64))
    torch.testing.assert_close(wide, score.mean(1, keepdim=True).expand_as(score))
    narrow = stein_direction(x, x, score, 1.0, torch.full((4, 1, 1), 1e-6, dtype=torch.float64))
    torch.testing.assert_close(narrow, score / 5)


def test_bandwidth_is_the_median_squared_distance_over_twice_the_log():
    x = torch.tensor([[[0.0], [1.0], [3.0]]])
    y = torch.tensor([[[0.0]]])
    expected = 1.0 / (2.0 * math.log(4.0))  # squared distances 0, 1, 9
    assert bandwidth(squared_distances(x, y)).item() == pytest.approx(expected)


def test_coinciding_particles_follow_the_plain_gradient():
    x = torch.randn(4, 1, 8, generator=torch.Generator().manual_seed(0)).expand(-1, 32, -1)
    score = torch.ones_like(x)
    torch.testing.assert_close(stein_direction(x, x, score, 1.0), score, rtol=1e-5, atol=1e-5)
    nearly = x + 1e-7 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        stein_direction(nearly, nearly, score, 1.0), score, rtol=0, atol=0.01
    )


# Sampling networks, trained by the agent's own update on a fixed Q-function.


class FixedEnergy(torch.nn.Module):
    """A critic that says the same at every state."""

    def __init__(self, q):
        super().__init__()
        self.q = q

    def forward(self, obs, action):
        return self.q(action).unsqueeze(0)


def fitted(q, kind, objective, *, updates, rate, hot=1.0, particles=64, count=4000):
    """Actions [count, 2] of a network trained on exp(Q); ``hot``: where the temperature starts.

    The temperature falls to 1 in the first 60 %, as Q grows from nothing while a skill is learned;
    then the learning rate falls to 0, so that what is measured is not the last steps' noise.
    """
    architecture = Architecture(sampler=kind, sampler_hidden=(64, 64))
    learning = PretrainConfig(
        architecture=architecture,
        objective=objective,
        particles=particles,
        proposals="uniform",
        sampler_learning_rate=rate,
    )
    agent = Agent(architecture, learning, 1, 2, 1.0, 0)
    agent.critic = FixedEnergy(q)
    for step in range(updates):
        done = step / updates
        agent.temperature = hot ** max(0.0, 1.0 - done / 0.6)
        agent.sampler_optimiser.param_groups[0]["lr"] = rate * min(1.0, (1.0 - done) / 0.4)
        agent.update_sampler(torch.zeros(4, 1))
    return agent.act(torch.zeros(count, 1))


MODES = torch.tensor([[-0.6, -0.4], [0.6, -0.4], [0.0, 0.6]])
SPREAD = 0.2  # of each mode; between two modes the density is below a tenth of theirs


def three_modes(action):
    squared = (action.unsqueeze(-2) - MODES).square().sum(-1)
    return torch.logsumexp(-squared / (2 * SPREAD**2), -1)


@pytest.mark.parametrize(("kind", "objective"), KINDS)
def test_trained_sampler_finds_every_mode(kind, objective):
    action = fitted(three_modes, kind, objective, updates=800, rate=2e-3, hot=10.0)
    nearest = (action.unsqueeze(1) - MODES).norm(dim=-1)
    within = nearest.min(1).values < 2.0 * SPREAD  # 86 % of a mode that is sampled rightly
    shares = [(within & (nearest.argmin(1) == m)).float().mean().item() for m in range(3)]
    assert min(shares) > 0.15, shares
    assert sum(shares) > 0.65, shares


@pytest.mark.parametrize(("kind", "objective"), KINDS)
def test_flat_energy_fills_the_box_evenly(kind, objective):
    """Uniform on [-1, 1] has variance 1/3; the released code's mixture of spaces had 1/5.

    The Stein direction is the slowest to fill the corners with a flow: 6 % are missing.
    """
    action = fitted(lambda a: 0.0 * a.sum(-1), kind, objective, updates=1000, rate=2e-3)
    variance = action.var(0)
    off = (variance / (1 / 3) - 1).abs().mean()
    assert off < (0.1 if (kind, objective) == ("flow", "stein") else 0.05), variance
    assert action.mean(0).abs().max() < 0.06


@pytest.mark.parametrize(("kind", "objective"), KINDS)
def test_gaussian_energy_gives_its_mean_and_covariance(kind, objective):
    """The Stein direction of few particles gives too small a variance: 5 % of 128 with a flow."""
    mean = torch.tensor([0.3, -0.2])
    covariance = torch.tensor([[0.02, 0.009], [0.009, 0.01]])
    precision = torch.linalg.inv(covariance)

    def q(action):
        away = action - mean
        return -0.5 * ((away @ precision) * away).sum(-1)

    updates = 2400 if kind == "noise" else 1000  # which is slower to become as narrow
    action = fitted(
        q, kind, objective, updates=updates, rate=2e-3, hot=10.0, particles=128, count=40_000
    )
    assert (action.mean(0) - mean).norm() < 0.1 * mean.norm()
    error = torch.cov(action.T) - covariance
    assert error.norm() < 0.1 * covariance.norm(), torch.cov(action.T)


def test_kernel_off_collapses_to_one_action():
    action = fitted(three_modes, "flow", "map", updates=500, rate=2e-3)
    assert action.std(0).max() < 0.1


def test_the_median_of_an_even_number_is_the_lower_one_as_on_other_devices():
    squared = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    assert bandwidth(squared).item() == pytest.approx(2.0 / (2.0 * math.log(3.0)))
