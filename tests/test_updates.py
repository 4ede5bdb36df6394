"""An update's gradients against the losses of the paper, written plainly and left to autograd."""

import math

import numpy as np
import pytest
import torch

from skillbank.agent import Agent, mean_of
from skillbank.config import Architecture, PretrainConfig
from skillbank.networks import FlowSampler, log_squash, unsquash
from skillbank.pretraining import pretrain
from skillbank.replay import Batch, Replay, Transitions
from skillbank.side_by_side import InTurn, side_by_side
from skillbank.spec import Symmetry
from skillbank.svgd import stein_direction
from skillbank.symmetry import Symmetries

B, S, A, ALPHA = 6, 5, 3, 0.3
TOLERANCE = {"rtol": 1e-8, "atol": 1e-10}


def make(sampler="flow", anchored=False, **changes):
    """An agent in 64 bit, every parameter away from its start, and a batch."""
    shape = Architecture(
        critic_hidden=(8, 6), sampler=sampler, sampler_hidden=(7, 6), coupling_hidden=5
    )
    anchor = FlowSampler(shape, S, A).requires_grad_(False) if anchored else None
    learning = PretrainConfig(architecture=shape, batch_size=B, **changes)
    agent = Agent(shape, learning, S, A, ALPHA, 0, anchor=anchor)
    generator = torch.Generator().manual_seed(1)
    for network in agent.networks().values():
        network.double()
        for parameter in network.parameters():
            parameter.data += 0.2 * torch.randn(parameter.shape, generator=generator)
    agent.handover = 0.6

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    rest = torch.tensor([0, 1.0, 0, 0, 1.0, 0], dtype=torch.float64)
    batch = Batch(
        normal(B, S),
        normal(B, A).tanh(),
        normal(B),
        0.9 * torch.ones_like(rest),
        rest,
        normal(B, S),
    )
    return agent, batch, normal


def assert_gradients(found, network, loss):
    names = list(network.arrays())
    expected = torch.autograd.grad(loss, [network[n] for n in names], materialize_grads=True)
    for name, value in zip(names, expected, strict=True):
        torch.testing.assert_close(found[name], value, **TOLERANCE, msg=name)


@pytest.mark.parametrize("proposals", ["sampler", "uniform"])
@pytest.mark.parametrize("anchored", [False, True])
@pytest.mark.parametrize("count", [1, 4])
def test_critics_regress_on_the_soft_bellman_target(proposals, anchored, count):
    agent, batch, normal = make(anchored=anchored, proposals=proposals, value_samples=count)
    draws = normal(B, count, A)
    if proposals == "uniform":
        draws = draws.tanh()
        u, log_w = unsquash(draws), torch.full_like(draws[:, :, 0], A * math.log(2.0))
        if anchored:
            log_w = log_w + agent.anchor.log_density(batch.next_obs, u) - log_squash(u)
    else:
        u, log_q = agent.sampler(batch.next_obs, draws)
        prior = agent.anchor.log_density(batch.next_obs, u) if anchored else log_squash(u)
        log_w = agent.handover * (prior - log_q)
    q_next = agent.target_critic(batch.next_obs, u.tanh()).amin(0)
    value = ALPHA * (torch.logsumexp(q_next / ALPHA + log_w, 1) - math.log(count))
    target = batch.reward + batch.discount * (1.0 - batch.terminated) * value
    error = agent.critic(batch.obs, batch.action) - target.detach()
    loss = 0.5 * error.square().mean(1).sum()
    figures, found = agent.critic_gradients(batch, draws)
    assert_gradients(found, agent.critic, loss)
    summary = figures.summary()
    assert summary["critic_loss"] == pytest.approx(loss.item())
    assert summary["value"] == pytest.approx(value.mean().item())


def plain_score(agent, obs, u, prior):
    u = u.detach().requires_grad_()
    energy = agent.critic(obs, u.tanh()).amin(0)
    energy = energy + prior * ALPHA * agent.log_prior(obs, u)
    return torch.autograd.grad(energy.sum(), u)[0]


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize(
    ("sampler", "anchored", "objective"),
    [
        *(("flow", anchored, o) for anchored in (0, 1) for o in ("stein", "divergence", "map")),
        ("noise", False, "stein"),
        ("noise", False, "map"),
    ],
)
def test_the_sampling_network_follows_its_objective(sampler, anchored, count, objective):
    agent, batch, normal = make(
        sampler, anchored, objective=objective, particles=count, proposals="uniform"
    )
    obs, sets = batch.obs, 2 if objective == "stein" else 1
    noise = tuple(normal(B, count, A) for _ in range(sets))
    pushed = agent.sampler(obs, noise[-1])
    u, log_q = (pushed, None) if sampler == "noise" else pushed
    if objective == "stein":
        fixed = agent.sampler(obs, noise[0])
        fixed = (fixed if sampler == "noise" else fixed[0]).detach()
        score = plain_score(agent, obs, fixed, agent.handover)
        phi = stein_direction(fixed, u.detach(), score, ALPHA * agent.handover)
        loss = -(phi * u).sum(-1).mean()
    elif objective == "divergence":
        score = plain_score(agent, obs, u, agent.handover)
        loss = (ALPHA * agent.handover * log_q - (score * u).sum(-1)).mean()
    else:
        loss = -(plain_score(agent, obs, u, 0.0) * u).sum(-1).mean()
    assert_gradients(agent.sampler_gradients(obs, *noise), agent.sampler, loss)


@pytest.mark.parametrize("objective", ["stein", "divergence"])
def test_shared_by_two_threads_the_gradients_are_the_same(objective):
    agent, batch, normal = make(objective=objective, particles=200)
    noise = tuple(normal(B, 200, A) for _ in agent.particle_noise(B))
    shares = list(agent.shares(batch.obs, *noise))
    assert [len(states) for states, *_ in shares] == [B // 2, B // 2]
    found = mean_of([agent.sampler_gradients(*share) for share in shares])
    for name, whole in agent.sampler_gradients(batch.obs, *noise).items():
        torch.testing.assert_close(found[name], whole, **TOLERANCE, msg=name)


def test_mixed_precision_is_nearly_single():
    found = []
    for precision in ("single", "mixed"):
        agent, batch, normal = make(precision=precision)
        draws = normal(B, agent.learning.value_samples, A)
        figures, of_critic = agent.critic_gradients(batch, draws)
        found.append((figures.estimates, of_critic["1.weight"]))
    for single, mixed in zip(*found, strict=True):
        difference = (single - mixed).norm() / single.norm()
        assert 1e-5 < difference < 0.02, difference  # 8 bits are 0.4 %


def test_threads_change_nothing():
    config = PretrainConfig(
        architecture=Architecture(critic_hidden=(16,), sampler_hidden=(16,)),
        total_steps=640,
        learning_starts=320,
        batch_size=16,
    )
    threads, found = torch.get_num_threads(), []
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            found.append(pretrain("PointMassRun", config, seed=3).stored()[1])
            assert torch.get_num_threads() == number
    finally:
        torch.set_num_threads(threads)
    for name, value in found[0].items():
        np.testing.assert_array_equal(value, found[1][name])


def test_an_error_beside_is_raised_where_its_result_is_due():
    job = InTurn().submit(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        job.result()


def test_torch_gets_its_threads_back():
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        with side_by_side() as pool:
            assert torch.get_num_threads() == 1
            assert pool.submit(torch.get_num_threads).result() == 1
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("objective", ["stein", "divergence", "map"])
@pytest.mark.parametrize("anchored", [False, True])
@pytest.mark.parametrize("precision", ["single", "mixed"])
def test_an_update_stays_on_its_device(objective, anchored, precision):
    """On the meta device, which computes nothing and refuses most tensors from elsewhere."""
    shape = Architecture(critic_hidden=(8, 6), sampler_hidden=(7, 6), coupling_hidden=5)
    identity = Symmetry(
        name="identity",
        obs_index=tuple(range(S)),
        obs_sign=(1,) * S,
        action_index=tuple(range(A)),
        action_sign=(1,) * A,
    )
    learning = PretrainConfig(
        architecture=shape,
        batch_size=B,
        objective=objective,
        precision=precision,
        proposals="uniform" if objective == "map" else "sampler",
    )
    anchor = FlowSampler(shape, S, A).requires_grad_(False) if anchored else None
    agent = Agent(shape, learning, S, A, ALPHA, 0, anchor=anchor)
    agent.device, agent.symmetries = "meta", Symmetries([identity], "meta")
    for network in agent.networks().values():
        network.to("meta")
    replay = Replay(100, S, A, 10, "meta")
    step = (torch.zeros(10, size) for size in (S, A))
    replay.add(Transitions(*step, *(torch.zeros(10) for _ in range(3)), torch.zeros(10, S)))
    batch = replay.sample(B, agent.generator, 0.9, n_step=3)
    batch = agent.symmetries.transitions(batch, agent.generator)
    figures, of_critic = agent.critic_gradients(batch, agent.value_draws(B))
    of_sampler = agent.sampler_gradients(batch.obs, *agent.particle_noise(B))
    assert figures.critic_loss.is_meta
    for network, found in ((agent.critic, of_critic), (agent.sampler, of_sampler)):
        assert len(found) == len(list(network.parameters()))
        for name, gradient in found.items():
            assert gradient.is_meta
            assert gradient.shape == network[name].shape
    assert agent.act(batch.obs).shape == (B, A)


def test_an_odd_number_of_states_is_not_halved():
    agent, _, _ = make(particles=2_000)
    sizes = [[len(s) for (s,) in agent.shares(torch.zeros(n, S))] for n in (B, B - 1)]
    assert sizes == [[B // 2, B // 2], [B - 1]]
