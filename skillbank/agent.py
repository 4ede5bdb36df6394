"""The soft Q-learning agent: its networks, and one gradient update of them (algorithm 1).

Actions are scaled to [-1, 1]^A; ``u`` is an action before squashing, ``a = tanh(u)``.
"""

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import torch
from torch import Tensor

from skillbank.config import Architecture, Learning
from skillbank.gradients import (
    CriticPass,
    FlowPass,
    Gradients,
    NoisePass,
    exact,
    rounded,
)
from skillbank.networks import (
    Critic,
    FlowSampler,
    Network,
    Sampler,
    log_squash,
    make_sampler,
    polyak_update,
)
from skillbank.replay import Batch
from skillbank.side_by_side import InTurn, Piece
from skillbank.soft_value import effective_sample_size, soft_bellman_target, soft_value
from skillbank.spec import Symmetry
from skillbank.svgd import stein_direction
from skillbank.symmetry import Symmetries

WORTH_HALVING = 1024  # particles per update from which two threads share the sampler's gradients


@dataclass
class Figures:
    """Diagnostics of an update, computed only when they are read."""

    error: Tensor  # Q(s, a) - target [C, B]
    estimates: Tensor  # Q(s, a) [C, B]
    values: Tensor  # soft values of the next states [B]
    proposals: tuple[Tensor, Tensor, float]  # Q and log-weight of each [B, K_V], and alpha

    @property
    def critic_loss(self) -> Tensor:
        """Half the mean squared error, summed over the critics (eq. 11)."""
        return 0.5 * self.error.square().mean(1).sum()

    @property
    def q(self) -> Tensor:
        """Mean over the batch."""
        return self.estimates.mean()

    @property
    def value(self) -> Tensor:
        """Mean soft value of the next states."""
        return self.values.mean()

    @property
    def sample_size(self) -> Tensor:
        """Effective sample size of the value proposals, as a share of K_V."""
        return effective_sample_size(*self.proposals).mean()

    def summary(self) -> dict[str, float]:
        """All diagnostics as floats."""
        names = ("critic_loss", "q", "value", "sample_size")
        return {name: float(getattr(self, name)) for name in names}


class Agent:
    """Critics, their targets, a sampling network, their optimisers, and the temperature.

    Args:
        architecture: Shape of the networks.
        learning: Hyperparameters of an update.
        observation: S, the size of an observation.
        action: A, the size of an action.
        temperature: alpha; may be changed between updates.
        seed: Seed for the initial parameters and all sampling.
        device: Device of the networks, the noise and the updates.
        symmetries: Symmetries of the task; a random one is applied to each transition and state.
        anchor: The skill's frozen sampling network, the prior of anchored fine-tuning. None: the
            uniform prior of the paper.
    """

    def __init__(
        self,
        architecture: Architecture,
        learning: Learning,
        observation: int,
        action: int,
        temperature: float,
        seed: int,
        device: str = "cpu",
        symmetries: Sequence[Symmetry] = (),
        anchor: FlowSampler | None = None,
    ) -> None:
        self.architecture, self.learning = architecture, learning
        self.temperature, self.device = temperature, device
        self.action_size = action
        self.product = rounded if learning.precision == "mixed" else exact
        self.symmetries = Symmetries(symmetries, device) if symmetries else None
        start = torch.Generator().manual_seed(seed)
        self.critic = Critic(architecture, observation, action)
        self.critic.initialise(start)
        self.target_critic = Critic(architecture, observation, action)
        self.sampler = make_sampler(architecture, observation, action)
        self.sampler.initialise(start)
        self.anchor = anchor
        for network in self.networks().values():
            network.to(device)
        polyak_update(self.target_critic, self.critic, 1.0)
        self.critic_optimiser = torch.optim.Adam(
            self.critic.parameters(), lr=learning.critic_learning_rate, fused=True
        )
        self.sampler_optimiser = torch.optim.Adam(
            self.sampler.parameters(), lr=learning.sampler_learning_rate, fused=True
        )
        self.generator = torch.Generator(device).manual_seed(seed)
        self.noise_set: Tensor | None = None  # the fixed noises {xi_i} [K_xi, A] of fine-tuning
        self.handover = 1.0  # weight of the density terms; 0: finite noise set (see finetuning)
        self.updates = 0
        self.beside: Executor = InTurn()  # computes the sampling network's gradients

    def networks(self) -> dict[str, Critic | Sampler]:
        """All networks by their name in a skill file."""
        parts: dict[str, Critic | Sampler] = {
            "critic": self.critic,
            "target_critic": self.target_critic,
            "sampler": self.sampler,
        }
        return parts | ({"anchor": self.anchor} if self.anchor else {})

    def noise(self, batch: int, count: int) -> Tensor:
        """Noise xi ~ N(0, I), or members drawn from the fixed noise set: [B, K, A]."""
        if self.noise_set is None:
            shape = (batch, count, self.action_size)
            return torch.randn(shape, generator=self.generator, device=self.device)
        pick = torch.randint(
            len(self.noise_set), (batch, count), generator=self.generator, device=self.device
        )
        return self.noise_set[pick]

    @torch.no_grad()
    def act(self, obs: Tensor) -> Tensor:
        """Sample one action per state from the sampling network: [B, S] -> [B, A].

        With fresh noise, a random symmetry of the task is applied to each state, and undone on
        the action.
        """
        noise = self.noise(len(obs), 1)
        if self.symmetries is None or self.noise_set is not None:
            return torch.tanh(self._push(obs, noise).u).squeeze(1)
        which = self.symmetries.draw(len(obs), self.generator)
        action = torch.tanh(self._push(self.symmetries.obs(obs, which), noise).u)
        return self.symmetries.undo_action(action, which).squeeze(1)

    @torch.no_grad()
    def update(self, batch: Batch, train_sampler: bool = True) -> Figures:
        """Take one step of the critics (eq. 11) and one of the sampling network (eq. 13, 14).

        A random symmetry of the task is applied to each transition. Both gradients are computed
        before either step, so that they can be computed in parallel.
        """
        if self.symmetries is not None:
            batch = self.symmetries.transitions(batch, self.generator)
        draws, noise = self.value_draws(len(batch.obs)), self.particle_noise(len(batch.obs))
        shares = self.shares(batch.obs, *noise) if train_sampler else []
        of_sampler = [Piece(self.beside, self.sampler_gradients, *share) for share in shares]
        figures, of_critic = self.critic_gradients(batch, draws)
        if of_sampler:
            gradients = mean_of([piece.result() for piece in reversed(of_sampler)])
            descend(self.sampler, self.sampler_optimiser, gradients)
        descend(self.critic, self.critic_optimiser, of_critic)
        self.updates += 1
        if self.updates % self.learning.target_period == 0:
            polyak_update(self.target_critic, self.critic, self.learning.target_rate)
        return figures

    @torch.no_grad()
    def update_critic(self, batch: Batch) -> Figures:
        """Take one step of the critics only."""
        figures, gradients = self.critic_gradients(batch, self.value_draws(len(batch.obs)))
        descend(self.critic, self.critic_optimiser, gradients)
        return figures

    @torch.no_grad()
    def update_sampler(self, obs: Tensor) -> None:
        """Take one step of the sampling network only."""
        gradients = self.sampler_gradients(obs, *self.particle_noise(len(obs)))
        descend(self.sampler, self.sampler_optimiser, gradients)

    # The critics.

    def critic_gradients(self, batch: Batch, draws: Tensor) -> tuple[Figures, Gradients]:
        """Gradients of the loss of Q(s, a) against r + gamma V(s') (eq. 7, 10, 11).

        ``draws`` [B, K_V, A] are those of ``value_draws``.
        """
        q_next, log_weight = self.proposals(batch.next_obs, draws)  # [B, K_V] each
        value = soft_value(q_next, log_weight, self.temperature)  # eq. 10
        target = soft_bellman_target(batch.reward, batch.discount, batch.terminated, value)  # eq. 7
        critics = CriticPass(self.critic, batch.obs, batch.action, product=self.product)
        error = critics.q - target  # [C, B]; eq. 11: half its square, summed over the critics
        figures = Figures(error, critics.q, value, (q_next, log_weight, self.temperature))
        return figures, critics.of_parameters(error / len(target))

    @property
    def uniform(self) -> bool:
        """Whether the soft value's proposals are currently uniform on the action box."""
        started = self.updates >= self.learning.uniform_updates
        return self.learning.proposals == "uniform" or not started

    def value_draws(self, batch: int) -> Tensor:
        """Random draws for the proposals [B, K_V, A]: uniform actions, or noise for the sampler."""
        count = self.learning.value_samples
        if not self.uniform:
            return self.noise(batch, count)
        shape = (batch, count, self.action_size)
        return torch.rand(shape, generator=self.generator, device=self.device) * 2.0 - 1.0

    def proposals(self, obs: Tensor, draws: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Target Q-values of K_V proposals for each state, and their log-weights: [B, K_V] each.

        The weight is the prior's density over the proposal's (eq. 10); with the uniform prior of
        the paper it is ``1 / q(a|s)``, a density over actions scaled to [-1, 1]^A.
        """
        draws = self.value_draws(len(obs)) if draws is None else draws
        if self.uniform:
            volume = self.action_size * math.log(2.0)  # -log q of the uniform density on the box
            log_weight = draws.new_full(draws.shape[:2], volume)
            if self.anchor is not None:  # log pi_0 as a density over actions, not over u
                log_weight += self.anchor.log_action_density(obs, draws)
            return self.target_q(obs, draws), log_weight
        made = self._push(obs, draws)
        q = self.target_q(obs, torch.tanh(made.u))
        if not self.handover:  # a finite set has no density (see finetuning)
            return q, torch.zeros_like(q)
        return q, self.handover * (self.log_prior(obs, made.u) - made.log_q)

    def target_q(self, obs: Tensor, action: Tensor) -> Tensor:
        """Minimum over the target critics: [B, K]."""
        made = CriticPass(self.target_critic, obs, action, remember=False, product=self.product)
        return made.q.amin(0)

    def log_prior(self, obs: Tensor, u: Tensor) -> Tensor:
        """Log-density of the prior over u [B, K]: the anchor's, or da/du for the uniform prior."""
        return log_squash(u) if self.anchor is None else self.anchor.log_density(obs, u)

    # The sampling network.

    def particle_noise(self, batch: int) -> tuple[Tensor, ...]:
        """Noise for the sampling network's step: two sets of particles for Stein, else one."""
        sets = 2 if self.learning.objective == "stein" else 1
        return tuple(self.noise(batch, self.learning.particles) for _ in range(sets))

    def shares(self, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """Split tensors [B, ...] into halves where the batch is large enough for two threads."""
        batch, particles = len(tensors[0]), self.learning.particles
        halves = batch % 2 == 0 and batch * particles >= WORTH_HALVING and tensors[0].is_cpu
        return zip(*(tensor.chunk(2 if halves else 1) for tensor in tensors), strict=True)

    @torch.no_grad()
    def sampler_gradients(self, obs: Tensor, *noise: Tensor) -> Gradients:
        """Gradients that move the sampling network towards exp(Q / alpha) (eq. 13, 14)."""
        if self.learning.objective == "stein":
            return self._stein(obs, *noise)
        return self._descent(obs, *noise)

    def _stein(self, obs: Tensor, fixed_noise: Tensor, noise: Tensor) -> Gradients:
        """Minus the Stein direction, backpropagated through f (eq. 14)."""
        fixed = self._push(obs, fixed_noise).u  # x_i
        updated = self._push(obs, noise)  # y_j
        score = self.score(obs, fixed, self.handover)
        entropy = self.temperature * self.handover
        phi = stein_direction(fixed, updated.u, score, entropy)  # eq. 13
        return updated.of_parameters(phi / -(noise.shape[0] * noise.shape[1]))

    def _descent(self, obs: Tensor, noise: Tensor) -> Gradients:
        """Gradients of alpha KL(sampler || exp(Q / alpha)) (eq. 12), with the exact density.

        For objective ``map`` without the entropy: as in DDPG, every particle follows the gradient
        of Q alone (section 4).
        """
        share = 0.0 if self.learning.objective == "map" else self.handover
        made, count = self._push(obs, noise), noise.shape[0] * noise.shape[1]
        du = self.score(obs, made.u, share) / -count
        if isinstance(made, NoisePass):
            return made.of_parameters(du)
        return made.of_parameters(du, self.temperature * share / count)

    def score(self, obs: Tensor, u: Tensor, prior: float) -> Tensor:
        """Gradient over u of min Q(s, tanh u) + prior * alpha * log prior(u): [B, K, A]."""
        action = torch.tanh(u)
        critics = CriticPass(self.critic, obs, action, product=self.product)
        smallest = critics.q.argmin(0, keepdim=True)
        dq = torch.zeros_like(critics.q).scatter_(0, smallest, 1.0)
        score = critics.of_action(dq) * (1.0 - action.square())
        if not prior:
            return score
        if self.anchor is None:  # the gradient of log_squash(u) is -2 a
            return score - (2.0 * prior * self.temperature) * action
        with torch.enable_grad():
            u = u.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self.anchor.log_density(obs, u).sum(), u)
        return score + (prior * self.temperature) * slope

    def _push(self, obs: Tensor, noise: Tensor) -> FlowPass | NoisePass:
        if isinstance(self.sampler, FlowSampler):
            return FlowPass(self.sampler, obs, noise, self.product)
        return NoisePass(self.sampler, obs, noise, self.product)


def mean_of(shares: list[Gradients]) -> Gradients:
    """Mean of the gradients from equally large shares of the batch."""
    first, *others = shares
    if not others:
        return first
    return {name: torch.stack([share[name] for share in shares]).mean(0) for name in first}


def descend(network: Network, optimiser: torch.optim.Optimizer, gradients: Gradients) -> None:
    """Take one optimiser step with the given gradients of all parameters."""
    for name, gradient in gradients.items():
        network[name].grad = gradient
    optimiser.step()
