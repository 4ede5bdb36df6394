"""The hand-written gradients against autograd of the networks' own definition, in 64 bit."""

import pytest
import torch

from skillbank.config import Architecture
from skillbank.gradients import CriticPass, FlowPass, NoisePass
from skillbank.networks import Critic, FlowSampler, NoiseSampler

B, S, A = 5, 7, 3
TOLERANCE = {"rtol": 1e-9, "atol": 1e-11}


def randomised(network):
    """Every parameter away from its start, so that no term is zero."""
    generator = torch.Generator().manual_seed(0)
    network.initialise(generator)
    for parameter in network.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
    return network.double()


def normal(*shape, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def by_autograd(network, loss):
    names = list(network.arrays())
    found = torch.autograd.grad(loss, [network[name] for name in names], materialize_grads=True)
    return dict(zip(names, found, strict=True))


def assert_same(found, expected):
    assert set(found) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, **TOLERANCE, msg=name)


@pytest.mark.parametrize("hidden", [(6,), (6, 4), (5, 6, 4)])
@pytest.mark.parametrize("critics", [1, 2])
@pytest.mark.parametrize("layer_norm", [False, True])
def test_critic(hidden, critics, layer_norm):
    shape = Architecture(critics=critics, critic_hidden=hidden, layer_norm=layer_norm)
    critic = randomised(Critic(shape, S, A))
    obs, action, dq = normal(B, S), normal(B, A, seed=2), normal(critics, B, seed=3)
    action.requires_grad_()
    q = critic(obs, action)
    ours = CriticPass(critic, obs, action.detach())
    torch.testing.assert_close(ours.q, q, **TOLERANCE)
    assert_same(ours.of_parameters(dq), by_autograd(critic, (dq * critic(obs, action)).sum()))
    of_action = torch.autograd.grad((dq * q).sum(), action)[0]
    again = CriticPass(critic, obs, action.detach())
    torch.testing.assert_close(again.of_action(dq), of_action, **TOLERANCE)


@pytest.mark.parametrize("layer_norm", [False, True])
def test_critic_at_several_actions(layer_norm):
    critic = randomised(Critic(Architecture(critic_hidden=(6, 4), layer_norm=layer_norm), S, A))
    obs, action, dq = normal(B, S), normal(B, 4, A, seed=2), normal(2, B, 4, seed=3)
    action.requires_grad_()
    q = critic(obs, action)
    ours = CriticPass(critic, obs, action.detach())
    torch.testing.assert_close(ours.q, q, **TOLERANCE)
    of_action = torch.autograd.grad((dq * q).sum(), action)[0]
    torch.testing.assert_close(ours.of_action(dq), of_action, **TOLERANCE)
    forgetful = CriticPass(critic, obs, action.detach(), remember=False)
    torch.testing.assert_close(forgetful.q, q, **TOLERANCE)
    one = CriticPass(critic, obs, action[:, :1].detach())
    torch.testing.assert_close(one.q, q[:, :, :1], **TOLERANCE)


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize(("couplings", "size"), [(0, 3), (1, 3), (4, 3), (4, 8), (4, 1)])
@pytest.mark.parametrize("dlog_q", [0.0, 0.7])
def test_flow(count, couplings, size, dlog_q):
    shape = Architecture(sampler_hidden=(6, 4), couplings=couplings, coupling_hidden=5)
    flow = randomised(FlowSampler(shape, S, size))
    obs, noise, du = normal(B, S), normal(B, count, size, seed=2), normal(B, count, size, seed=3)
    u, log_q = flow(obs, noise)
    loss = (du * u).sum() + dlog_q * log_q.sum()
    ours = FlowPass(flow, obs, noise)
    torch.testing.assert_close(ours.u, u, **TOLERANCE)
    torch.testing.assert_close(ours.log_q, log_q, **TOLERANCE)
    assert_same(ours.of_parameters(du, dlog_q), by_autograd(flow, loss))


@pytest.mark.parametrize("hidden", [(6,), (6, 4), (5, 6, 4)])
@pytest.mark.parametrize("count", [1, 4])
def test_noise_fed_network(hidden, count):
    network = randomised(NoiseSampler(Architecture(sampler="noise", sampler_hidden=hidden), S, A))
    obs, noise, du = normal(B, S), normal(B, count, A, seed=2), normal(B, count, A, seed=3)
    u = network(obs, noise)
    ours = NoisePass(network, obs, noise)
    torch.testing.assert_close(ours.u, u, **TOLERANCE)
    assert_same(ours.of_parameters(du), by_autograd(network, (du * u).sum()))
