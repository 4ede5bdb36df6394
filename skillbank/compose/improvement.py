"""Maximum-entropy generalised policy improvement, the published alternative to compare with.

Each stored policy is evaluated on the new reward, ``Q^i = r + gamma E [ Q^i(s', a') - alpha log
pi_i(a' | s') ]`` (soft policy evaluation, eq. 15), and the result acts on the best of them,
``pi = exp(max_i Q^i / alpha)``. It is never worse than the best of its parts. Each Q^i assumes that
policy i alone is followed from the next step on, so behaviour that needs several of them is never
planned. Unlike the other methods it needs the new reward, and a new training for each reward.

After Barreto et al. (2017), "Successor features for transfer in reinforcement learning", with
entropy as in Hunt et al. (2019), "Composing entropic policies using divergence correction".
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skillbank.compose import expression
from skillbank.compose.composed import Composed
from skillbank.compose.expression import Best, Leaf
from skillbank.compose.gathering import Gathering, checked_config, gather_task, learn
from skillbank.config import Architecture, NonNegative, Positive
from skillbank.errors import IncompatibleSkill
from skillbank.networks import Critic, polyak_update
from skillbank.replay import Batch
from skillbank.skill import Skill
from skillbank.soft_value import soft_bellman_target, soft_value
from skillbank.training import WATCHING, Hooks, check_run, checked_hooks

STRETCH = 100  # steps for which a copy follows one policy


class ImproveConfig(Gathering):
    """How stored policies are evaluated on a new reward."""

    reward_scale: Positive = 1.0  # rewards are multiplied by it
    settled: NonNegative = 0.0


class Improver:
    """Evaluates stored policies off-policy (a ``gathering.Learner``)."""

    def __init__(
        self, skills: tuple[Skill, ...], env_id: str, config: ImproveConfig, seed: int
    ) -> None:
        self.skills, self.config = skills, config
        spec = skills[0].spec
        self.alpha, self.discount = spec.temperature, spec.discount
        self.generator = torch.Generator().manual_seed(seed)
        sizes = (spec.observation_size, spec.action_size)
        shape = Architecture(critics=1, critic_hidden=config.hidden, layer_norm=True)
        self.networks = tuple(Critic(shape, *sizes) for _ in skills)
        self.targets = tuple(Critic(shape, *sizes) for _ in skills)
        for network, target in zip(self.networks, self.targets, strict=True):
            network.initialise(self.generator)
            polyak_update(target, network, 1.0)
        parameters = [p for network in self.networks for p in network.parameters()]
        self.optimiser = torch.optim.Adam(parameters, lr=config.learning_rate, fused=True)
        leaves = tuple(Leaf(skill) for skill in skills)
        blocks, scale = spec.observation_blocks, config.reward_scale
        self.node = Best(leaves, self.networks, blocks, env_id, scale)
        self.composed = Composed(self.node, acting=config.proposals)
        self.steps = 0

    def act(self, obs: Tensor) -> Tensor:
        """Each copy follows a part's policy, or the best of them, for ``STRETCH`` steps in turn."""
        policies: tuple[Skill | Composed, ...] = (*self.skills, self.composed)
        turn, self.steps = self.steps // STRETCH, self.steps + 1
        action = np.empty((len(obs), self.composed.spec.action_size))
        for index, policy in enumerate(policies):
            mine = slice((index - turn) % len(policies), None, len(policies))
            seed = int(torch.randint(2**31, (), generator=self.generator))
            if len(obs[mine]):
                action[mine] = policy.sample(obs[mine].numpy(), 1, seed)[:, 0]
        return self.composed.scaled(action)

    def update(self, batch: Batch) -> Tensor:
        """One step of soft policy evaluation for every stored policy."""
        reward = batch.reward * self.config.reward_scale
        with torch.no_grad():
            energies: list[dict[Any, Tensor]] = []
            evaluated: list[list[Tensor]] = []

            def energy(states: Tensor, action: Tensor) -> Tensor:
                energies.append(self.composed.critics(states, action))
                evaluated.append([target(states, action).amin(0) for target in self.targets])
                return torch.stack(list(energies[-1].values())).amax(0)

            cloud = self.composed.candidates(
                batch.next_obs, self.generator, self.config.proposals, energy
            )
            targets = []
            for index, leaf in enumerate(self.node.parts):
                own = torch.cat([qs[leaf] for qs in energies], 1)
                value = torch.cat([qs[index] for qs in evaluated], 1)
                # E_pi [ Q - alpha log pi ] with pi = exp((Q_i - V_i) / alpha), by weights of pi
                log_weight = own / self.alpha + cloud.log_base
                share = torch.softmax(log_weight, 1)
                soft = soft_value(own, cloud.log_base, self.alpha)
                log_pi = (own - soft.unsqueeze(1)) / self.alpha
                following = (share * (value - self.alpha * log_pi)).sum(1)
                targets.append(
                    soft_bellman_target(reward, batch.discount, batch.terminated, following)
                )
        loss = torch.zeros(())
        for network, target in zip(self.networks, targets, strict=True):
            loss = loss + 0.5 * (network(batch.obs, batch.action) - target).square().mean()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        for network, moving in zip(self.networks, self.targets, strict=True):
            polyak_update(moving, network, self.config.target_rate)
        return loss.detach()

    def probe(self, batch: Batch) -> Tensor:
        """The best of the evaluated Q at a batch [B]."""
        with torch.no_grad():
            qs = [network(batch.obs, batch.action).amin(0) for network in self.networks]
            return torch.stack(qs).amax(0)


def improve(
    skills: Iterable[Skill],
    env_id: str,
    config: ImproveConfig | None = None,
    *,
    seed: int = 0,
    hooks: Hooks | None = None,
    env_kwargs: dict[str, Any] | None = None,
) -> Composed:
    """Evaluate stored policies on a new task, and act on the maximum of their Q-values.

    Args:
        skills: The skills whose policies are evaluated.
        env_id: The task, with the new reward.
        config: How they are evaluated.
        seed: Seeds the episodes, the parameters and all sampling.
        hooks: Progress and stopping.
        env_kwargs: Keyword arguments of the environment.

    Raises:
        IncompatibleSkill: The skills cannot be composed, or do not fit the task.
        Interrupted: The hooks stopped it.
    """
    seed, hooks = check_run(seed), checked_hooks(hooks, "improve()", *WATCHING)
    config = checked_config(config, ImproveConfig, "improve()")
    parts = tuple(skills)
    if not parts:
        raise IncompatibleSkill("nothing to improve on: give at least one skill")
    if not all(isinstance(skill, Skill) for skill in parts):
        raise IncompatibleSkill("improve() takes skills; distill() makes one of a composition")
    together = Composed(expression.weighted_sum([(Leaf(skill), 1.0) for skill in parts]))
    task = gather_task(together, env_id, config.num_envs, env_kwargs)
    try:
        fitted = tuple(skill.fitted_to(task) for skill in parts)
        learner = Improver(fitted, task.env_id, config, seed)
        learn(learner, task, None, config, discount=learner.discount, seed=seed, hooks=hooks)
    finally:
        task.close()
    for network in learner.networks:
        network.requires_grad_(False)
    return Composed(learner.node)
