"""Actions from a composed energy, without any training.

Candidates come from every part's sampling network and uniformly from the action box, then from a
Gaussian around the better ones. The density of their mixture is known, so weighting them by
``exp(Q / alpha) / density`` gives a sample of the composed policy; the effective sample size
measures its quality. (Without the Gaussian the weights are exact. The Gaussian is fitted to the
earlier candidates. That, and the logarithm of a mean of few, lowers soft values: by default about
5 % of alpha with two action dimensions, almost half of it with eight.) Pure functions of tensors;
``u`` is an action before squashing.
"""

import math
from collections.abc import Callable, Sequence
from typing import Annotated, NamedTuple, Protocol

import torch
from pydantic import Field
from torch import Tensor

from skillbank.config import Strict
from skillbank.networks import (
    SATURATED,
    FlowSampler,
    log_normal,
    log_squash,
    unsquash,
)
from skillbank.skill import Skill
from skillbank.soft_value import effective_sample_size
from skillbank.svgd import stein_direction

Energy = Callable[[Tensor, Tensor], Tensor]  # obs [B, S], scaled actions [B, K, A] -> Q [B, K]
Density = Callable[[Tensor], Tensor]  # u [B, K, A] -> log-density over u [B, K]
WIDEST = 4.0  # largest |u| that proposals are centred on: tanh(4) is 0.9993
NARROWEST = 0.05  # smallest standard deviation of a proposal, over u
NARROWING = (0.4, 0.15, 0.05)  # standard deviations, over u, of searches around the best candidate
STEIN_PARTICLES = 32  # per state
STEIN_STEP = 0.3  # share of the distance to the mode that a step covers for a Gaussian target


class Acting(Strict):
    """How candidates for one action are found."""

    per_part: Annotated[int, Field(ge=1, le=65536)] = 16  # from each skill's sampling network
    uniform: Annotated[int, Field(ge=0, le=65536)] = 8  # uniformly from the action box
    refined: Annotated[int, Field(ge=0, le=65536)] = 24  # from a Gaussian around the better ones
    stein_steps: Annotated[int, Field(ge=0, le=1000)] = 0  # Stein (SVGD) steps after resampling
    averaged: bool = True  # average Q over each skill's symmetries; networks have them only nearly

    def enlarged(self, factor: int) -> "Acting":
        """The same settings with ``factor`` times as many candidates."""
        return self.model_copy(
            update={
                "per_part": self.per_part * factor,
                "uniform": self.uniform * factor,
                "refined": self.refined * factor,
            }
        )


class Chance(NamedTuple):
    """Random numbers for B states; ``alike`` gives every state the same, whatever its batch."""

    generator: torch.Generator
    alike: bool = False

    def normal(self, *shape: int) -> Tensor:
        """N(0, 1) [B, ...]."""
        return torch.randn(self._drawn(shape), generator=self.generator).expand(shape)

    def uniform(self, *shape: int) -> Tensor:
        """Uniform on [0, 1) [B, ...]."""
        return torch.rand(self._drawn(shape), generator=self.generator).expand(shape)

    def below(self, high: int, *shape: int) -> Tensor:
        """Integers from 0 to high - 1 [B, ...]."""
        return torch.randint(high, self._drawn(shape), generator=self.generator).expand(shape)

    def _drawn(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (1, *shape[1:]) if self.alike else shape


class Proposal(Protocol):
    """A distribution of actions at each state, with a density."""

    def draw(self, obs: Tensor, n: int, chance: Chance) -> tuple[Tensor, Density]:
        """``n`` actions u [B, n, A] and their log-density."""


class FlowProposal:
    """An invertible sampling network, whose density is exact."""

    def __init__(self, sampler: FlowSampler) -> None:
        self.sampler = sampler

    def draw(self, obs: Tensor, n: int, chance: Chance) -> tuple[Tensor, Density]:
        """``n`` actions u [B, n, A] and their log-density."""
        noise = chance.normal(len(obs), n, self.sampler.action)
        return self.sampler(obs, noise)[0], lambda u: self.sampler.log_density(obs, u)


class KernelProposal:
    """A kernel density around sampled actions, for samplers whose own density is unknown.

    Used for noise-fed sampling networks and for skills with a finite noise set. Each of ``n``
    actions gets a Gaussian kernel of Silverman's width, at least ``NARROWEST``.
    """

    def __init__(self, skill: Skill) -> None:
        self.sampler, self.noise_set = skill.sampler, skill.noise_set
        self.action = skill.spec.action_size

    def draw(self, obs: Tensor, n: int, chance: Chance) -> tuple[Tensor, Density]:
        """``n`` actions u [B, n, A] and their log-density."""
        shape = (len(obs), n, self.action)
        if self.noise_set is None:
            noise = chance.normal(*shape)
        else:
            noise = self.noise_set[chance.below(len(self.noise_set), *shape[:2])]
        centre = self.sampler.push(obs, noise).clamp(-WIDEST, WIDEST)
        shrink = (4.0 / ((self.action + 2.0) * n)) ** (1.0 / (self.action + 4.0))
        spread = centre.std(1, keepdim=True, correction=0)
        width = (shrink * spread).clamp_min(NARROWEST)  # [B, 1, A]
        u = centre + width * chance.normal(*shape)

        def log_density(u: Tensor) -> Tensor:
            away = (u.unsqueeze(2) - centre.unsqueeze(1)) / width.unsqueeze(1)  # [B, K, n, A]
            logs = log_normal(away) - width.log().sum(-1, keepdim=True)
            return torch.logsumexp(logs, -1) - math.log(n)

        return u, log_density


class BoxProposal:
    """Uniform over the box [-1, 1]^A."""

    def __init__(self, action: int) -> None:
        self.action = action

    def draw(self, obs: Tensor, n: int, chance: Chance) -> tuple[Tensor, Density]:
        """``n`` actions u [B, n, A] and their log-density."""
        action = chance.uniform(len(obs), n, self.action) * 2.0 - 1.0
        return unsquash(action), lambda u: log_squash(u) - self.action * math.log(2.0)


class GaussianProposal:
    """A Gaussian around the better candidates of a weighted cloud, broad enough to cover them."""

    def __init__(self, u: Tensor, log_weight: Tensor) -> None:
        # Tempered weights: for a Gaussian target the proposal has twice its variance.
        share = torch.softmax(0.5 * log_weight, 1).unsqueeze(-1)
        u = u.clamp(-WIDEST, WIDEST)
        self.mean = (share * u).sum(1, keepdim=True)  # [B, 1, A]
        variance = (share * (u - self.mean).square()).sum(1, keepdim=True)
        self.deviation = variance.sqrt().clamp_min(NARROWEST)

    def draw(self, obs: Tensor, n: int, chance: Chance) -> tuple[Tensor, Density]:
        """``n`` actions u [B, n, A] and their log-density."""
        shape = (len(obs), n, self.mean.shape[-1])
        mean, deviation = self.mean, self.deviation
        u = mean + deviation * chance.normal(*shape)

        def log_density(u: Tensor) -> Tensor:
            return log_normal((u - mean) / deviation) - deviation.log().sum(-1)

        return u, log_density


def proposal_of(skill: Skill) -> Proposal:
    """The proposal that draws a skill's candidates."""
    if isinstance(skill.sampler, FlowSampler) and skill.noise_set is None:
        return FlowProposal(skill.sampler)
    return KernelProposal(skill)


class Cloud(NamedTuple):
    """Weighted candidates for every state."""

    u: Tensor  # [B, N, A], before squashing
    q: Tensor  # [B, N]
    log_base: Tensor  # [B, N], log of 1 / density, over actions in the box

    def log_weight(self, temperature: float) -> Tensor:
        """Log-weights of the composed policy [B, N], up to a constant."""
        return self.q / temperature + self.log_base

    def taken(self, pick: Tensor) -> tuple[Tensor, Tensor]:
        """The candidates at indices [B, n]: u [B, n, A] and Q [B, n]."""
        return _taken(self.u, self.q, pick)

    def sample_size(self, temperature: float) -> Tensor:
        """Effective number of candidates [B], between 1 and N."""
        return effective_sample_size(self.q, self.log_base, temperature) * self.q.shape[1]


@torch.no_grad()
def candidates(
    obs: Tensor,
    proposals: Sequence[Proposal],
    energy: Energy,
    temperature: float,
    acting: Acting,
    chance: Chance,
) -> Cloud:
    """Candidates for every state [B, S], with the density of their mixture."""
    counts: list[int] = [acting.per_part] * len(proposals)
    sources = list(proposals)
    densities: list[Density] = []
    parts: list[Tensor] = []

    def add(source: Proposal, count: int) -> None:
        u, density = source.draw(obs, count, chance)
        parts.append(u.clamp(-SATURATED, SATURATED))  # the energy only sees tanh(u)
        densities.append(density)

    for source, count in zip(sources, counts, strict=True):
        add(source, count)
    size = parts[0].shape[-1]
    if acting.uniform:
        add(BoxProposal(size), acting.uniform)
        counts.append(acting.uniform)
    u = torch.cat(parts, 1)
    q = energy(obs, torch.tanh(u))
    logs = torch.stack([density(u) for density in densities])  # [sources, B, N]
    if not acting.refined:
        return Cloud(u, q, log_squash(u) - _mixture(logs, counts))
    first = q / temperature + log_squash(u) - _mixture(logs, counts)
    around = GaussianProposal(u, first)
    more, density = around.draw(obs, acting.refined, chance)
    counts.append(acting.refined)
    logs_more = torch.stack([of(more) for of in (*densities, density)])
    logs = torch.cat((torch.cat((logs, density(u).unsqueeze(0))), logs_more), 2)
    u, q = torch.cat((u, more), 1), torch.cat((q, energy(obs, torch.tanh(more))), 1)
    return Cloud(u, q, log_squash(u) - _mixture(logs, counts))


def _mixture(logs: Tensor, counts: Sequence[int]) -> Tensor:
    """Log-density of the mixture of all sources: [sources, B, N] -> [B, N]."""
    total = sum(counts)
    share = torch.tensor([math.log(count / total) for count in counts])
    return torch.logsumexp(logs + share.view(-1, 1, 1), 0)


def _taken(u: Tensor, q: Tensor, pick: Tensor) -> tuple[Tensor, Tensor]:
    return u.gather(1, pick.unsqueeze(-1).expand(-1, -1, u.shape[-1])), q.gather(1, pick)


def chosen(
    obs: Tensor,
    cloud: Cloud,
    n: int,
    energy: Energy,
    temperature: float,
    acting: Acting,
    chance: Chance,
    best: bool,
) -> tuple[Tensor, Tensor]:
    """``n`` actions for each state: u [B, n, A] and Q [B, n].

    They are drawn from the candidates by their weights, or are the ``best`` of the candidates and
    of a further search around these, best first. Stein steps, if any, come before either.
    """
    u, q = cloud.u, cloud.q
    if acting.stein_steps:
        count = max(n, STEIN_PARTICLES)
        if best:
            pick = q.topk(min(count, q.shape[1]), 1).indices
        else:
            pick = resampled(cloud, count, temperature, chance.generator)
        after = _moved(obs, cloud, energy, temperature, acting, pick)
        if not best:
            return after[0][:, :n], after[1][:, :n]
        u, q = torch.cat((u, after[0]), 1), torch.cat((q, after[1]), 1)
    if not best:
        return cloud.taken(resampled(cloud, n, temperature, chance.generator))
    u, q = _climbed(obs, u, q, energy, acting, chance)
    return _taken(u, q, q.topk(n, 1).indices)


def resampled(cloud: Cloud, n: int, temperature: float, generator: torch.Generator) -> Tensor:
    """Indices of ``n`` candidates for each state, drawn by their weights: [B, n]."""
    share = torch.softmax(cloud.log_weight(temperature), 1)
    return torch.multinomial(share, n, replacement=True, generator=generator)


@torch.no_grad()
def _climbed(
    obs: Tensor, u: Tensor, q: Tensor, energy: Energy, acting: Acting, chance: Chance
) -> tuple[Tensor, Tensor]:
    """Extend candidates u [B, N, A] with Q [B, N] by ever narrower searches around the best.

    The best of a random sample is some way from the maximum, and further in more dimensions.
    """
    for width in NARROWING if acting.refined else ():
        best = u.gather(1, q.argmax(1).view(-1, 1, 1).expand(-1, -1, u.shape[-1]))
        step = width * chance.normal(len(obs), acting.refined, u.shape[-1])
        more = best.clamp(-WIDEST, WIDEST) + step
        u, q = torch.cat((u, more), 1), torch.cat((q, energy(obs, torch.tanh(more))), 1)
    return u, q


def _moved(
    obs: Tensor, cloud: Cloud, energy: Energy, temperature: float, acting: Acting, pick: Tensor
) -> tuple[Tensor, Tensor]:
    """Resampled candidates after Stein steps on the composed energy: u [B, n, A] and Q [B, n].

    The step scales with the particles' variance, so that for a Gaussian target it covers a fixed
    share of the distance to the mode.
    """
    u = cloud.taken(pick)[0].clamp(-WIDEST, WIDEST)
    for _ in range(acting.stein_steps):
        with torch.enable_grad():
            v = u.detach().requires_grad_()
            target = energy(obs, torch.tanh(v)) + temperature * log_squash(v)
            score = torch.autograd.grad(target.sum(), v)[0]
        variance = u.var(1, keepdim=True, correction=0).clamp(NARROWEST**2, 1.0)
        phi = stein_direction(u, u, score, temperature) / temperature
        step = (STEIN_STEP * variance * phi).clamp(-0.5, 0.5)
        u = (u + step).clamp(-WIDEST, WIDEST).detach()
    with torch.no_grad():
        return u, energy(obs, torch.tanh(u))
