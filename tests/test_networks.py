"""Densities against Jacobians and integrals, critics against a plain loop, parameters by name."""

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from skillbank.config import Architecture
from skillbank.networks import (
    Critic,
    FlowSampler,
    NoiseSampler,
    coupling_masks,
    log_normal,
    log_squash,
    make_sampler,
    polyak_update,
    unsquash,
)

STATE = 3


def architecture(**changes):
    return Architecture(sampler_hidden=(24, 16), critic_hidden=(12, 10), **changes)


def flow(action, *, stirred=True, **changes):
    """A flow in float64 whose couplings are stirred: at the start they do nothing."""
    network = FlowSampler(architecture(**changes), STATE, action)
    generator = torch.Generator().manual_seed(action)
    network.initialise(generator)
    if stirred:
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    return network.double()


def noise_fed(action):
    network = NoiseSampler(architecture(sampler="noise"), STATE, action)
    network.initialise(torch.Generator().manual_seed(action))
    return network.double()


def draws(batch, count, action, seed=0):
    generator = torch.Generator().manual_seed(seed)
    obs = torch.randn(batch, STATE, generator=generator, dtype=torch.float64)
    return obs, torch.randn(batch, count, action, generator=generator, dtype=torch.float64)


# The flow.


@pytest.mark.parametrize("action", [1, 2, 3, 8])
def test_flow_density_is_the_noises_over_the_jacobian(action):
    network, (obs, noise) = flow(action), draws(3, 4, action)
    _, log_q = network(obs, noise)
    for b, k in itertools.product(range(3), range(4)):

        def u_of(xi, b=b):
            return network(obs[b : b + 1], xi.view(1, 1, -1))[0].flatten()

        jacobian = torch.autograd.functional.jacobian(u_of, noise[b, k])
        expected = log_normal(noise[b, k]) - torch.linalg.slogdet(jacobian).logabsdet
        torch.testing.assert_close(log_q[b, k], expected)


@pytest.mark.parametrize("action", [1, 2, 3, 8])
def test_density_of_a_given_action_is_that_of_the_noise_that_made_it(action):
    network, (obs, noise) = flow(action), draws(5, 6, action)
    u, log_q = network(obs, noise)
    torch.testing.assert_close(network.log_density(obs, u), log_q, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("couplings", [0, 1, 4])
def test_flow_density_integrates_to_one(couplings):
    network, (obs, _) = flow(2, couplings=couplings), draws(2, 1, 2)
    half, cells = 14.0, 350
    line = ((torch.arange(cells, dtype=torch.float64) + 0.5) * 2 / cells - 1) * half
    u = torch.cartesian_prod(line, line).expand(2, -1, -1)
    total = network.log_density(obs, u).exp().sum(1) * (2 * half / cells) ** 2
    torch.testing.assert_close(total, torch.ones_like(total), atol=0.01, rtol=0.0)


def test_flow_starts_as_its_noise():
    network, (obs, noise) = flow(4, stirred=False), draws(50, 20, 4)
    u, log_q = network(obs, noise)
    assert (u - noise).abs().mean() < 0.1
    assert (log_q - log_normal(noise)).abs().mean() < 0.2


@pytest.mark.parametrize("action", [2, 3, 5, 8])
def test_couplings_move_half_and_keep_half_until_all_have_met(action):
    bits = max(1, (action - 1).bit_length())
    masks = coupling_masks(2 * bits, action)
    moved_by = {
        (kept, moved)
        for row in masks.bool()
        for kept, moved in itertools.product(range(action), repeat=2)
        if row[kept] and not row[moved]
    }
    for row in masks:
        assert 0 < row.sum() < action
    assert moved_by == set(itertools.permutations(range(action), 2))


def test_a_kept_component_does_not_feel_its_own_coupling():
    network = flow(4, couplings=1)
    obs, noise = draws(1, 1, 4)
    kept = network.reads[0, :, 0].bool()
    with torch.no_grad():
        mean, log_scale, _ = network._state(obs)
        expected = mean + log_scale.exp() * noise
        u, _ = network(obs, noise)
    torch.testing.assert_close(u[..., kept], expected[..., kept])
    assert (u - expected)[..., ~kept].abs().min() > 1e-6


# The noise-fed network.


@pytest.mark.parametrize("action", [1, 2, 3])
def test_noise_fed_density_is_the_noises_over_the_jacobian(action):
    network, (obs, noise) = noise_fed(action), draws(3, 4, action)
    u, log_q = network.with_log_density(obs, noise)
    torch.testing.assert_close(u, network(obs, noise))
    for b, k in itertools.product(range(3), range(4)):

        def u_of(xi, b=b):
            return network(obs[b : b + 1], xi.view(1, 1, -1)).flatten()

        jacobian = torch.autograd.functional.jacobian(u_of, noise[b, k])
        expected = log_normal(noise[b, k]) - torch.linalg.slogdet(jacobian).logabsdet
        torch.testing.assert_close(log_q[b, k], expected)


def test_noise_fed_network_starts_spread_out():
    network, (obs, noise) = noise_fed(4), draws(20, 500, 4)
    spread = network(obs, noise).std(1).mean()
    assert 0.3 < spread < 3.0


def test_noise_fed_network_is_a_plain_mlp_of_state_and_noise():
    network, (obs, noise) = noise_fed(2), draws(3, 4, 2)
    h = torch.cat((obs.unsqueeze(1).expand(-1, 4, -1), noise), -1)
    h = torch.relu(h @ network["0.weight"] + network["0.bias"])
    h = torch.relu(h @ network["1.weight"] + network["1.bias"])
    expected = h @ network["out.weight"] + network["out.bias"]
    torch.testing.assert_close(network(obs, noise), expected)


# The critic.


@pytest.mark.parametrize("layer_norm", [True, False])
@pytest.mark.parametrize("critics", [1, 2, 3])
def test_critics_equal_plain_networks_of_their_own(layer_norm, critics):
    network = Critic(architecture(layer_norm=layer_norm, critics=critics), STATE, 2)
    network.initialise(torch.Generator().manual_seed(0))
    network.double()
    obs, action = draws(5, 4, 2)
    q = network(obs, action)
    assert q.shape == (critics, 5, 4)
    for c, b, k in itertools.product(range(critics), range(5), range(4)):
        h = torch.cat((obs[b], action[b, k]))
        for layer in ("0", "1"):
            h = h @ network[f"{layer}.weight"][c] + network[f"{layer}.bias"][c, 0]
            if layer_norm:
                h = F.layer_norm(h, h.shape)
            h = torch.relu(h)
        expected = h @ network["out.weight"][c] + network["out.bias"][c, 0]
        torch.testing.assert_close(q[c, b, k], expected[0])
    one = network(obs, action[:, 2])
    assert one.shape == (critics, 5)
    torch.testing.assert_close(one, q[:, :, 2])


# Squashing.


def test_log_squash_is_the_slope_of_tanh_and_stays_finite():
    u = torch.linspace(-4, 4, 50, dtype=torch.float64).view(-1, 2)
    torch.testing.assert_close(log_squash(u), torch.log1p(-(torch.tanh(u) ** 2)).sum(-1))
    far = log_squash(torch.tensor([[40.0], [-40.0]]))
    # 1 - tanh^2 u -> 4 exp(-2 |u|)
    torch.testing.assert_close(far, torch.full((2,), math.log(4.0) - 80.0))


def test_unsquash_undoes_tanh():
    u = torch.linspace(-5, 5, 21, dtype=torch.float64)
    torch.testing.assert_close(unsquash(torch.tanh(u)), u)


# Parameters by name.


@pytest.mark.parametrize("sampler", ["flow", "noise"])
def test_arrays_round_trip_bit_for_bit(sampler):
    first = make_sampler(architecture(sampler=sampler), STATE, 2)
    first.initialise(torch.Generator().manual_seed(0))
    second = make_sampler(architecture(sampler=sampler), STATE, 2)
    arrays = first.arrays()
    second.load_arrays(arrays)
    for name, value in second.arrays().items():
        assert value.dtype == np.float32
        np.testing.assert_array_equal(value, arrays[name])
    obs, noise = (x.float() for x in draws(4, 3, 2))
    for one, other in zip(first(obs, noise), second(obs, noise), strict=True):
        assert torch.equal(one, other)
    arrays["0.bias"][:] = 7.0  # copies: the network does not see it
    assert not (first["0.bias"] == 7.0).any()


def test_foreign_arrays_are_refused():
    network = Critic(architecture(), STATE, 2)
    arrays = network.arrays()
    with pytest.raises(AssertionError, match="extra"):
        network.load_arrays(arrays | {"extra": np.zeros(1, np.float32)})
    arrays["out.bias"] = np.zeros((1, 1, 1), np.float32)
    with pytest.raises(AssertionError, match=r"out\.bias"):
        network.load_arrays(arrays)


def test_polyak_update_moves_the_target_by_its_rate():
    target, source = (Critic(architecture(), STATE, 2) for _ in range(2))
    source.initialise(torch.Generator().manual_seed(0))
    polyak_update(target, source, 0.25)
    for mine, theirs in zip(target.parameters(), source.parameters(), strict=True):
        torch.testing.assert_close(mine, 0.25 * theirs)
    polyak_update(target, source, 1.0)
    for mine, theirs in zip(target.parameters(), source.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_a_flow_means_what_the_skill_file_says():
    """Its constants are no parameters: another release must not read a file as another policy."""
    network = FlowSampler(architecture(couplings=1), STATE, 2)
    zeros = network.arrays()
    obs, noise = torch.zeros(1, STATE), torch.tensor([[[0.3, -0.7]]])

    def u_of(**biases):
        arrays = {name: value.copy() for name, value in zeros.items()}
        for name, (index, value) in biases.items():
            arrays[name.replace("_", ".")][index] = value
        network.load_arrays(arrays)
        return network(obs, noise)[0][0, 0].tolist()

    scale = slice(2, 4)  # of the head: means, then raw scales
    for raw, log_scale in ((0.0, -1.5), (50.0, 2.0), (-50.0, -5.0)):
        expected = [math.exp(log_scale) * xi for xi in (0.3, -0.7)]
        assert u_of(head_bias=(scale, raw)) == pytest.approx(expected)
    moved = [0.3, -0.7 * math.exp(2.0)]  # a coupling: its raw scales, then its shifts
    expected = [math.exp(-1.5) * x for x in moved]
    kept = int(coupling_masks(1, 2)[0].argmax())
    assert kept == 0
    assert u_of(coupling_bias=((..., slice(0, 2)), 100.0)) == pytest.approx(expected)
    assert coupling_masks(4, 4).tolist() == [[1, 0, 1, 0], [0, 1, 0, 1], [1, 1, 0, 0], [0, 0, 1, 1]]


def test_a_critic_starts_as_layers_of_torchs_own():
    network = Critic(architecture(), STATE, 2)
    network.initialise(torch.Generator().manual_seed(0))
    arrays = network.arrays()
    for name, value in arrays.items():
        inputs = arrays[name.replace("bias", "weight")].shape[-2]
        most = np.abs(value).max()
        assert most <= 1.0 / math.sqrt(inputs)
        if value.size > 20:
            assert most > 0.8 / math.sqrt(inputs), name
