"""The soft Q-learning agent: what is learned, and one update of it (algorithm 1).

Actions are scaled to [-1, 1]^A; ``u`` is an action before squashing, ``a = tanh(u)``.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from skillbank.config import Architecture, Learning
from skillbank.networks import (
    Critic,
    FlowSampler,
    NoiseSampler,
    Sampler,
    log_squash,
    make_sampler,
    polyak_update,
    unsquash,
)
from skillbank.replay import Batch
from skillbank.soft_value import effective_sample_size, soft_bellman_target, soft_value
from skillbank.spec import Symmetry
from skillbank.svgd import stein_direction
from skillbank.symmetry import Symmetries


class Figures(NamedTuple):
    """What an update reports, as 0-dimensional tensors (read them rarely: each read waits)."""

    critic_loss: Tensor
    q: Tensor  # mean over the batch
    value: Tensor  # mean soft value of the next states
    sample_size: Tensor  # effective share of the value proposals


class Agent:
    """Critics, their targets, a sampling network, their optimisers, and the temperature.

    Args:
        architecture: Shape of the networks.
        learning: How an update is made.
        observation: S.
        action: A.
        temperature: alpha; may be changed between updates.
        seed: Of the parameters and of all sampling.
        device: Where everything lives.
        symmetries: Of the task; transitions and states are seen through random ones.
        anchor: The skill's own sampling network, frozen: the prior of anchored fine-tuning.
            None: the uniform prior of the paper.
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
        self.handover = 1.0  # 1: densities count in full; 0: the finite set alone (see finetuning)
        self.updates = 0

    def networks(self) -> dict[str, Critic | Sampler]:
        """All networks by the name that their parameters carry in a skill file."""
        parts: dict[str, Critic | Sampler] = {
            "critic": self.critic,
            "target_critic": self.target_critic,
            "sampler": self.sampler,
        }
        return parts | ({"anchor": self.anchor} if self.anchor else {})

    def noise(self, batch: int, count: int) -> Tensor:
        """Xi ~ N(0, I), or drawn from the fixed set: [B, K, A]."""
        if self.noise_set is None:
            shape = (batch, count, self.action_size)
            return torch.randn(shape, generator=self.generator, device=self.device)
        pick = torch.randint(
            len(self.noise_set), (batch, count), generator=self.generator, device=self.device
        )
        return self.noise_set[pick]

    @torch.no_grad()
    def act(self, obs: Tensor) -> Tensor:
        """One action for each state, drawn from the sampling network: [B, S] -> [B, A].

        With fresh noise each state is seen through a random symmetry of the task.
        """
        noise = self.noise(len(obs), 1)
        if self.symmetries is None or self.noise_set is not None:
            return torch.tanh(self._push(obs, noise)).squeeze(1)
        which = self.symmetries.draw(len(obs), self.generator)
        action = torch.tanh(self._push(self.symmetries.obs(obs, which), noise))
        return self.symmetries.undo_action(action, which).squeeze(1)

    def update(self, batch: Batch, train_sampler: bool = True) -> Figures:
        """One step of the critics (eq. 11) and one of the sampling network (eq. 13, 14).

        Each transition is seen through a random symmetry of the task.
        """
        if self.symmetries is not None:
            which = self.symmetries.draw(len(batch.obs), self.generator)
            batch = batch._replace(
                obs=self.symmetries.obs(batch.obs, which),
                action=self.symmetries.action(batch.action, which),
                next_obs=self.symmetries.obs(batch.next_obs, which),
            )
        figures = self.update_critic(batch)
        if train_sampler:
            self.update_sampler(batch.obs)
        self.updates += 1
        if self.updates % self.learning.target_period == 0:
            polyak_update(self.target_critic, self.critic, self.learning.target_rate)
        return figures

    def update_critic(self, batch: Batch) -> Figures:
        """Regress Q(s, a) on r + gamma V(s') (eq. 7, 10, 11)."""
        with torch.no_grad():
            q_next, log_weight = self.proposals(batch.next_obs)  # [B, K_V] each
            value = soft_value(q_next, log_weight, self.temperature)  # eq. 10
            target = soft_bellman_target(
                batch.reward, batch.discount, batch.terminated, value
            )  # eq. 7
            sample_size = effective_sample_size(q_next, log_weight, self.temperature).mean()
        q = self.critic(batch.obs, batch.action)  # [C, B]
        loss = 0.5 * (q - target).square().mean(1).sum()  # eq. 11
        self.critic_optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self.critic_optimiser.step()
        return Figures(loss.detach(), q.detach().mean(), value.mean(), sample_size)

    @torch.no_grad()
    def proposals(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Target Q-values of K_V proposals for each state, and their log-weights: [B, K_V] each.

        The weight is the prior's density over the proposal's (eq. 10); with the uniform prior of
        the paper it is ``1 / q(a|s)``, a density over actions scaled to [-1, 1]^A.
        """
        count, batch = self.learning.value_samples, len(obs)
        uniform = self.learning.proposals == "uniform"
        if uniform or self.updates < self.learning.uniform_updates:
            shape = (batch, count, self.action_size)
            action = torch.rand(shape, generator=self.generator, device=self.device) * 2.0 - 1.0
            volume = self.action_size * math.log(2.0)  # -log q of the uniform density on the box
            log_weight = torch.full((batch, count), volume, device=self.device)
            if self.anchor is not None:  # pi_0 as a density over actions, not over u
                u = unsquash(action)
                log_weight = log_weight + self.anchor.log_density(obs, u) - log_squash(u)
            return self.target_q(obs, action), log_weight
        noise = self.noise(batch, count)
        if isinstance(self.sampler, NoiseSampler):
            u, log_q = self.sampler.with_log_density(obs, noise)
        else:
            u, log_q = self.sampler(obs, noise)
        return self.target_q(obs, torch.tanh(u)), self.handover * (self.log_prior(obs, u) - log_q)

    def target_q(self, obs: Tensor, action: Tensor) -> Tensor:
        """The smallest of the target critics: [B, K]."""
        return self.target_critic(obs, action).amin(0)  # type: ignore[no-any-return]

    def log_prior(self, obs: Tensor, u: Tensor) -> Tensor:
        """Log of the base measure's density over u [B, K]: the anchor's, or da's (tanh's slope)."""
        return log_squash(u) if self.anchor is None else self.anchor.log_density(obs, u)

    def update_sampler(self, obs: Tensor) -> None:
        """Move the sampling network towards exp(Q / alpha) (eq. 13, 14)."""
        objective = {"stein": self._stein_loss, "divergence": self._divergence_loss}
        loss = objective.get(self.learning.objective, self._map_loss)(obs)
        self.sampler_optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        self.sampler_optimiser.step()

    def score(self, obs: Tensor, u: Tensor, prior: float) -> Tensor:
        """Gradient over u of Q(s, tanh u) + prior * alpha * log prior(u): [B, K, A]."""
        u = u.detach().requires_grad_()
        energy = self.critic(obs, torch.tanh(u)).amin(0)
        if prior:
            energy = energy + prior * self.temperature * self.log_prior(obs, u)
        return torch.autograd.grad(energy.sum(), u)[0]

    def _stein_loss(self, obs: Tensor) -> Tensor:
        """Its gradient is minus the Stein direction, pulled back through f (eq. 14)."""
        count, batch = self.learning.particles, len(obs)
        with torch.no_grad():
            fixed = self._push(obs, self.noise(batch, count))  # x_i
        score = self.score(obs, fixed, self.handover)
        updated = self._push(obs, self.noise(batch, count))  # y_j
        phi = stein_direction(fixed, updated.detach(), score, self.temperature)  # eq. 13
        return -(phi * updated).sum(-1).mean()

    def _divergence_loss(self, obs: Tensor) -> Tensor:
        """KL(sampler || exp(Q / alpha)) times alpha, by the sampler's own exact density."""
        assert isinstance(self.sampler, FlowSampler)
        u, log_q = self.sampler(obs, self.noise(len(obs), self.learning.particles))
        score = self.score(obs, u, self.handover)
        loss: Tensor = self.temperature * self.handover * log_q - (score * u).sum(-1)
        return loss.mean()

    def _map_loss(self, obs: Tensor) -> Tensor:
        """The kernel off: every particle climbs Q, as in DDPG (section 4)."""
        u = self._push(obs, self.noise(len(obs), self.learning.particles))
        return -(self.score(obs, u, 0.0) * u).sum(-1).mean()

    def _push(self, obs: Tensor, noise: Tensor) -> Tensor:
        if isinstance(self.sampler, FlowSampler):
            return self.sampler(obs, noise)[0]  # type: ignore[no-any-return]
        return self.sampler(obs, noise)  # type: ignore[no-any-return]
