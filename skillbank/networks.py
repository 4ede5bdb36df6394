"""The two networks of a skill: soft Q-functions, and a sampling network a = tanh(f(xi; s)).

Actions are scaled to [-1, 1]^A; ``u`` is an action before squashing, ``a = tanh(u)``.
``skillbank.spec`` defines the names and shapes of all parameters.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from skillbank.config import Architecture
from skillbank.spec import Shape, critic_shapes, sampler_shapes

LOG_SCALE_CENTRE, LOG_SCALE_RANGE = -1.5, 3.5  # the flow's last scale stays in exp([-5, 2])
LOG_COUPLING_RANGE = 2.0  # each coupling scales by at most exp(2)
EDGE = 1.0 - 1e-6  # a rounding error inside the action bounds
SATURATED = math.atanh(EDGE)  # larger |u| cannot be recovered from the action


class Network(nn.Module):
    """A module with the parameters given by a table of names and shapes."""

    def __init__(self, shapes: Mapping[str, Shape]) -> None:
        super().__init__()
        self._names = tuple(shapes)
        self._table = {name: nn.Parameter(torch.zeros(shape)) for name, shape in shapes.items()}
        for name, parameter in self._table.items():
            self.register_parameter(_attribute(name), parameter)

    def __getitem__(self, name: str) -> nn.Parameter:
        """The parameter with that name in the table."""
        return self._table[name]

    def _apply(self, *args: Any, **kwargs: Any) -> Self:
        # Moving or converting a module may create new parameters; look them up again.
        super()._apply(*args, **kwargs)  # type: ignore[no-untyped-call]
        self._table = {name: self.get_parameter(_attribute(name)) for name in self._names}
        return self

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """Copies of all parameters, by name."""
        return {name: self[name].detach().cpu().numpy().copy() for name in self._names}

    @torch.no_grad()
    def load_arrays(self, arrays: Mapping[str, NDArray[np.float32]]) -> None:
        """Set all parameters; names and shapes must be those of the table."""
        assert set(arrays) == set(self._names), sorted(set(arrays) ^ set(self._names))
        for name in self._names:
            assert arrays[name].shape == self[name].shape, name
            self[name].copy_(torch.from_numpy(arrays[name]))

    @torch.no_grad()
    def initialise(self, generator: torch.Generator, names: Iterable[str] | None = None) -> None:
        """Initialise weights and biases uniformly in +-1/sqrt(inputs), as torch.nn.Linear does."""
        for name in self._names if names is None else names:
            fan_in = self[name.replace("bias", "weight")].shape[-2]
            bound = 1.0 / math.sqrt(fan_in)
            values = torch.rand(self[name].shape, generator=generator) * 2.0 - 1.0
            self[name].copy_(values * bound)


def flat_arrays(networks: "Mapping[str, Network]") -> dict[str, NDArray[np.float32]]:
    """Copies of all parameters of several networks, named ``part/name``."""
    return {
        f"{part}/{name}": value
        for part, network in networks.items()
        for name, value in network.arrays().items()
    }


def load_flat_arrays(
    networks: "Mapping[str, Network]", arrays: Mapping[str, NDArray[np.float32]]
) -> None:
    """Set all parameters of several networks; arrays of other parts are ignored."""
    for part, network in networks.items():
        prefix = f"{part}/"
        network.load_arrays(
            {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
        )


class Critic(Network):
    """C soft Q-functions of the same shape, evaluated with batched matrix products."""

    def __init__(self, architecture: Architecture, observation: int, action: int) -> None:
        super().__init__(critic_shapes(architecture, observation, action))
        self.hidden = len(architecture.critic_hidden)
        self.layer_norm = architecture.layer_norm
        self.observation = observation

    def forward(self, obs: Tensor, action: Tensor) -> Tensor:
        """Q-values: obs [B, S], action [B, A] -> [C, B]; action [B, K, A] -> [C, B, K]."""
        if action.ndim == 2:
            return self(obs, action.unsqueeze(1)).squeeze(-1)  # type: ignore[no-any-return]
        batch, count, _ = action.shape
        weight, bias = self["0.weight"], self["0.bias"]
        critics, _, units = weight.shape
        # The state's part of the first product is computed once per state, not once per action.
        of_state = torch.baddbmm(
            bias, obs.expand(critics, -1, -1), weight[:, : self.observation]
        )  # [C, B, H]
        of_action = torch.matmul(
            action.reshape(1, batch * count, action.shape[-1]), weight[:, self.observation :]
        )
        h = (of_state.unsqueeze(2) + of_action.view(critics, batch, count, units)).flatten(1, 2)
        h = self._activate(h)
        for layer in range(1, self.hidden):
            h = self._activate(torch.baddbmm(self[f"{layer}.bias"], h, self[f"{layer}.weight"]))
        q = torch.baddbmm(self["out.bias"], h, self["out.weight"])  # [C, B * K, 1]
        return q.view(critics, batch, count)

    def _activate(self, h: Tensor) -> Tensor:
        return torch.relu(F.layer_norm(h, h.shape[-1:]) if self.layer_norm else h)


class FlowSampler(Network):
    """An invertible sampling network: noise -> affine couplings -> state's affine map -> u.

    Each coupling transforms half of the components, depending on the other half and on the state,
    so the density is exact (eq. 33) and can have many modes.
    """

    def __init__(self, architecture: Architecture, observation: int, action: int) -> None:
        super().__init__(sampler_shapes(architecture, observation, action))
        self.trunk = len(architecture.sampler_hidden)
        self.action = action
        self.couplings = architecture.couplings if action > 1 else 0
        self.coupling_hidden = architecture.coupling_hidden
        # The masks as factors on the weights into a coupling, and on those out of it, for raw scale
        # (in units of tanh's range) and shift.
        self.reads: Tensor
        self.moves: Tensor
        kept = coupling_masks(architecture.couplings, action)
        moved = 1.0 - kept
        self.register_buffer("reads", kept.unsqueeze(2), False)  # [L, A, 1]
        moves = torch.cat((moved / LOG_COUPLING_RANGE, moved), 1).unsqueeze(1)  # [L, 1, 2A]
        self.register_buffer("moves", moves, False)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator, names: Iterable[str] | None = None) -> None:
        """Initialise to about u = xi in every state: identity couplings, and a scale of one."""
        super().initialise(generator, [name for name in self._names if "coupling" not in name])
        head = self["head.weight"]
        head[:, : 2 * self.action] *= 0.1
        self["head.bias"].zero_()
        self["head.bias"][self.action : 2 * self.action] = math.atanh(
            -LOG_SCALE_CENTRE / LOG_SCALE_RANGE
        )
        into = self["coupling.in"]
        into.copy_(torch.randn(into.shape, generator=generator) / math.sqrt(self.action))
        self["coupling.out"].zero_()
        self["coupling.bias"].zero_()

    def forward(self, obs: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Map noise [B, K, A] -> u [B, K, A] and log q(u | s) [B, K] (eq. 33)."""
        u, log_scales = self._pushed(obs, noise)
        return u, log_normal(noise) - sum(log_scale.sum(-1) for log_scale in log_scales)

    def push(self, obs: Tensor, noise: Tensor) -> Tensor:
        """Map noise [B, K, A] -> u [B, K, A]."""
        return self._pushed(obs, noise)[0]

    def _pushed(self, obs: Tensor, noise: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Map noise [B, K, A] -> u [B, K, A] and the logarithms of all its scales."""
        mean, last, biases = self._state(obs)
        x, log_scales = noise, []
        for coupling in self._couplings(biases):
            log_scale, shift = _moves(x, coupling)
            x = x * log_scale.exp() + shift
            log_scales.append(log_scale)
        return mean + last.exp() * x, [*log_scales, last]

    def log_density(self, obs: Tensor, u: Tensor) -> Tensor:
        """Log q(u | s) of given u [B, K, A] -> [B, K], by inverting the couplings in turn."""
        mean, last, biases = self._state(obs)
        x = (u - mean) * (-last).exp()
        log_det = last.sum(-1)
        for coupling in reversed(self._couplings(biases)):
            log_scale, shift = _moves(x, coupling)  # depends on the kept half only
            x = (x - shift) * (-log_scale).exp()
            log_det = log_det + log_scale.sum(-1)
        return log_normal(x) - log_det

    def log_action_density(self, obs: Tensor, action: Tensor, u: Tensor | None = None) -> Tensor:
        """Log-density of actions scaled to [-1, 1]^A: [B, K, A] -> [B, K].

        Args:
            obs: [B, S].
            action: [B, K, A].
            u: The actions before squashing, if known; more accurate for saturated actions.
        """
        u = unsquash(action) if u is None else u
        return self.log_density(obs, u) - log_squash(u)

    def _state(self, obs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The part that depends on the state only, computed once per state.

        That is the last map's mean and log-scale [B, 1, A], and the biases of the couplings' hidden
        units [B, 1, L H].
        """
        h = obs
        for layer in range(self.trunk):
            h = torch.relu(torch.addmm(self[f"{layer}.bias"], h, self[f"{layer}.weight"]))
        head = torch.addmm(self["head.bias"], h, self["head.weight"]).unsqueeze(1)  # [B, 1, .]
        mean, raw, bias = torch.split(
            head, [self.action, self.action, head.shape[-1] - 2 * self.action], dim=-1
        )
        return mean, LOG_SCALE_CENTRE + LOG_SCALE_RANGE * torch.tanh(raw), bias

    def masked(self) -> tuple[Tensor, Tensor, Tensor]:
        """The couplings' weights in [L, A, H] and out [L, H, 2 A], and their biases [L, 2 A].

        A coupling reads the kept half and moves the other; the masks are applied to the weights.
        """
        into = self["coupling.in"] * self.reads
        out = self["coupling.out"] * self.moves
        return into, out, self["coupling.bias"] * self.moves.squeeze(1)

    def _couplings(self, biases: Tensor) -> "list[_Coupling]":
        """The couplings from the first to the last, for the biases that ``_state`` gives."""
        if not self.couplings:
            return []
        into, out, bias = self.masked()
        own = torch.split(biases, self.coupling_hidden, -1)
        return list(map(_Coupling, into.unbind(), own, out.unbind(), bias.unbind()))


class _Coupling(NamedTuple):
    """The masked weights of a coupling: it reads the kept components and moves the others."""

    into: Tensor  # [A, H]
    hidden_bias: Tensor  # of each state [B, 1, H]
    out: Tensor  # [H, 2 A]
    bias: Tensor  # [2 A]


def _moves(x: Tensor, coupling: _Coupling) -> tuple[Tensor, Tensor]:
    """Log-scale and shift of each component (zero of the kept ones), each [B, K, A]."""
    hidden = torch.relu(x @ coupling.into + coupling.hidden_bias)
    raw, shift = (hidden @ coupling.out + coupling.bias).chunk(2, -1)
    return LOG_COUPLING_RANGE * torch.tanh(raw), shift


class NoiseSampler(Network):
    """The paper's sampling network: an MLP of state and noise."""

    def __init__(self, architecture: Architecture, observation: int, action: int) -> None:
        super().__init__(sampler_shapes(architecture, observation, action))
        self.hidden = len(architecture.sampler_hidden)
        self.observation = observation

    @torch.no_grad()
    def initialise(self, generator: torch.Generator, names: Iterable[str] | None = None) -> None:
        """Initialise u to a spread of about one, half of it from the noise (He's scale for ReLU).

        With a narrower start all particles are close together, and the Stein direction may find
        only one mode.
        """
        super().initialise(generator)  # uniform in +-1/sqrt(inputs)
        first = self["0.weight"]
        inputs = first.shape[0]
        first[: self.observation] *= math.sqrt(3.0 * inputs / self.observation)
        first[self.observation :] *= math.sqrt(3.0 * inputs / (inputs - self.observation))
        for layer in range(1, self.hidden):
            self[f"{layer}.weight"].mul_(math.sqrt(6.0))
        self["out.weight"].mul_(math.sqrt(6.0))

    def push(self, obs: Tensor, noise: Tensor) -> Tensor:
        """Map noise [B, K, A] -> u [B, K, A]."""
        return self(obs, noise)  # type: ignore[no-any-return]

    def forward(self, obs: Tensor, noise: Tensor) -> Tensor:
        """Map noise [B, K, A] -> u [B, K, A]."""
        h = self._first(obs, noise)
        for layer in range(1, self.hidden):
            h = torch.relu(h) @ self[f"{layer}.weight"] + self[f"{layer}.bias"]
        return torch.relu(h) @ self["out.weight"] + self["out.bias"]

    def with_log_density(self, obs: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return u [B, K, A] and log q(u | s) [B, K] from the Jacobian du/dxi (eq. 33, app. C.2).

        The network need not be one-to-one. If several noises map to the same action, this is the
        density of one branch only; if the Jacobian is singular, it is +inf. A flow has neither
        problem.
        """
        h = self._first(obs, noise)
        tangents = self["0.weight"][self.observation :].expand(*noise.shape, -1)  # [B, K, A, H]
        for layer in range(1, self.hidden):
            weight = self[f"{layer}.weight"]
            tangents = (tangents * (h > 0).unsqueeze(2)) @ weight
            h = torch.relu(h) @ weight + self[f"{layer}.bias"]
        tangents = (tangents * (h > 0).unsqueeze(2)) @ self["out.weight"]  # d u / d xi [B, K, A, A]
        u = torch.relu(h) @ self["out.weight"] + self["out.bias"]
        return u, log_normal(noise) - torch.linalg.slogdet(tangents).logabsdet

    def _first(self, obs: Tensor, noise: Tensor) -> Tensor:
        weight = self["0.weight"]
        of_state = torch.addmm(self["0.bias"], obs, weight[: self.observation])
        return of_state.unsqueeze(1) + noise @ weight[self.observation :]


Sampler = FlowSampler | NoiseSampler


def make_sampler(architecture: Architecture, observation: int, action: int) -> Sampler:
    """Create the sampling network of the architecture."""
    kind = FlowSampler if architecture.sampler == "flow" else NoiseSampler
    return kind(architecture, observation, action)


def coupling_masks(couplings: int, action: int) -> Tensor:
    """Masks of the components that each coupling keeps, [L, A] of 0 and 1.

    Each pair of layers splits the components by one bit of their index (first odd from even, then
    pairs from pairs, ...) and keeps one half after the other, so that all components interact
    after a few layers.
    """
    bits = max(1, (action - 1).bit_length())
    layer, index = np.arange(couplings)[:, None], np.arange(action)
    kept = ((index >> (layer // 2) % bits) & 1) == layer % 2
    return torch.from_numpy(kept.astype(np.float32))


def log_normal(noise: Tensor) -> Tensor:
    """Log N(xi; 0, I) of noise [..., A] -> [...]."""
    return -0.5 * noise.square().sum(-1) - 0.5 * noise.shape[-1] * math.log(2.0 * math.pi)


def log_squash(u: Tensor) -> Tensor:
    """Log |det d tanh(u) / du| = sum log(1 - tanh^2 u), stable for large u: [..., A] -> [...]."""
    return (2.0 * (math.log(2.0) - u - F.softplus(-2.0 * u))).sum(-1)


def unsquash(action: Tensor) -> Tensor:
    """Compute u = artanh(a), with a clipped to +-EDGE, so that |u| <= SATURATED."""
    return torch.atanh(action.clamp(-EDGE, EDGE))


@torch.no_grad()
def polyak_update(target: nn.Module, source: nn.Module, rate: float) -> None:
    """Update target to ``(1 - rate) target + rate source``; a rate of 1 copies."""
    torch._foreach_lerp_(list(target.parameters()), list(source.parameters()), rate)


def _attribute(name: str) -> str:
    return "p_" + name.replace(".", "_")
