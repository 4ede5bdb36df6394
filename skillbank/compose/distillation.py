"""Distilling a composition into one ordinary skill with its own critics and sampling network.

The critics regress on the composed Q, at states that the composed policy visits and at the
candidates of each of them; the sampling network is first fitted to these, to cover all modes, and
then learns from the critics by its usual objective (eq. 13 and 14, or the divergence). No reward is
needed. The result can be saved, fine-tuned and composed again like any other skill.
"""

import math
import re
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from skillbank.agent import Agent
from skillbank.compose import expression
from skillbank.compose.acting import Acting
from skillbank.compose.composed import Composed, known
from skillbank.compose.gathering import (
    Gathering,
    Mirrors,
    checked_config,
    exploring_action,
    gather_task,
    learn,
)
from skillbank.config import Architecture, Count, NonNegative, PretrainConfig, noise_fed
from skillbank.networks import FlowSampler, flat_arrays, polyak_update
from skillbank.replay import Batch
from skillbank.skill import Skill
from skillbank.soft_value import soft_value
from skillbank.spec import MAX_NAME, MAX_TEXT, SkillSpec, kept_kwargs
from skillbank.training import WATCHING, Hooks, check_run, checked_hooks
from skillbank.versions import versions

BETWEEN = 10.0  # weight of errors in Q's differences between actions, which determine the policy
COVERING = 0.5  # share of the updates in which the sampling network learns to cover all modes


class DistillConfig(Gathering):
    """How a composition is distilled into one skill."""

    architecture: Architecture = Architecture()
    actions: Annotated[int, Field(ge=1, le=4096)] = 8  # per state, half by likelihood, half uniform
    particles: Annotated[int, Field(ge=1, le=4096)] = 1  # in the sampling network's update
    # Candidates that the actions are drawn from.
    proposals: Acting = Acting(per_part=6, uniform=6, refined=6, averaged=False)
    learning_starts: Count = 512
    batch_size: Count = 128
    settled: NonNegative = 0.0  # above 0, it may stop before all modes are covered


class Distiller:
    """Distils a composition (a ``gathering.Learner``)."""

    def __init__(self, composed: Composed, config: DistillConfig, seed: int) -> None:
        self.composed = composed.acting_with(averaged=config.proposals.averaged)
        self.config, spec = config, composed.spec
        network = config.architecture
        noise = network.sampler == "noise" or spec.action_size == 1  # a flow needs two
        if noise:
            network = network.model_copy(update={"sampler": "noise"})
        learning = PretrainConfig(
            architecture=network,
            objective="stein" if noise else "divergence",
            temperature=spec.temperature,
            discount=spec.discount,
            num_envs=config.num_envs,
            steps_per_update=config.steps_per_update,
            batch_size=config.batch_size,
            replay_capacity=config.replay_capacity,
            critic_learning_rate=config.learning_rate,
            sampler_learning_rate=config.learning_rate,
            particles=config.particles,
            total_steps=config.total_steps,
            learning_starts=config.learning_starts,
            symmetry=False,
        )
        self.learning = noise_fed(learning) if noise else learning
        sizes = (spec.observation_size, spec.action_size)
        self.agent = Agent(network, self.learning, *sizes, spec.temperature, seed)
        self.generator = self.agent.generator
        self.mirrors = Mirrors(spec.symmetries, self.generator)
        self.planned = total = max(1, config.total_steps // config.steps_per_update)
        optimisers = (self.agent.critic_optimiser, self.agent.sampler_optimiser)
        # A regression on a fixed target converges best with a vanishing learning rate.
        self.schedules = [
            torch.optim.lr_scheduler.LambdaLR(
                optimiser,
                lambda n: max(0.02, 0.5 * (1.0 + math.cos(math.pi * min(1.0, n / total)))),
            )
            for optimiser in optimisers
        ]

    def act(self, obs: Tensor) -> Tensor:
        """Actions of the composed policy, a share of them drawn from all candidates."""
        return exploring_action(self.composed, obs, self.config.explore, self.generator)

    def update(self, batch: Batch) -> Tensor:
        """One step of the critics towards the composed Q, and one of the sampling network."""
        agent, config, alpha = self.agent, self.config, self.composed.spec.temperature
        self.composed.critics.look(self.generator)
        batch = self.mirrors(batch)
        with torch.no_grad():
            cloud = self.composed.candidates(batch.obs, self.generator, config.proposals)
            likely = torch.softmax(cloud.log_weight(alpha), 1)
            count = cloud.q.shape[1]
            anywhere = torch.full_like(likely, 1.0 / count)
            pick = torch.multinomial(
                0.5 * (likely + anywhere), config.actions, True, generator=self.generator
            )
            u, target = cloud.taken(pick)
            action = torch.tanh(u)
            if agent.updates == 0:
                value = soft_value(cloud.q, cloud.log_base, alpha).mean()
                torch.nn.init.constant_(agent.critic["out.bias"], float(value))
        error = agent.critic(batch.obs, action) - target  # [C, B, K]
        level = error.mean(2, keepdim=True)
        loss = 0.5 * (level.square() + BETWEEN * (error - level).square()).mean((1, 2)).sum()
        agent.critic_optimiser.zero_grad(set_to_none=True)
        loss.backward()
        agent.critic_optimiser.step()
        self._update_sampler(batch.obs, cloud.u, likely)
        agent.updates += 1
        for schedule in self.schedules:
            schedule.step()
        last: Tensor = loss.detach()
        return last

    def _update_sampler(self, obs: Tensor, u: Tensor, likely: Tensor) -> None:
        """One step of the sampling network at states [B, S] with candidates u [B, N, A].

        Its usual objectives lose modes that it does not sample from the start. It is therefore
        first fitted to the candidates, each weighted by its probability ``likely`` [B, N]: a flow
        by maximum likelihood, a noise-fed network, which has no density, by the energy score.
        """
        agent = self.agent
        if agent.updates >= COVERING * self.planned:
            agent.update_sampler(obs)
            return
        if isinstance(agent.sampler, FlowSampler):
            loss = -(likely * agent.sampler.log_density(obs, u)).sum(1).mean()
        else:
            made = agent.sampler.push(obs, agent.noise(len(obs), self.learning.particles))
            loss = energy_score(torch.tanh(made), torch.tanh(u), likely).mean()
        agent.sampler_optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        agent.sampler_optimiser.step()

    def probe(self, batch: Batch) -> Tensor:
        """Q of a batch [B]."""
        with torch.no_grad():
            found: Tensor = self.agent.critic(batch.obs, batch.action).amin(0)
            return found


def energy_score(x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    """``E |X - Y| - E |X - X'| / 2`` [B] of samples x [B, K, A] and y [B, N, A], K > 1.

    With y weighted by ``weight`` [B, N]. Over distributions of X it is least, without bias by the
    number of samples, where X is distributed as Y.
    """
    size = x.shape[1]
    between = ((x.unsqueeze(2) - y.unsqueeze(1)).norm(dim=3) * weight.unsqueeze(1)).sum(2).mean(1)
    within = (x.unsqueeze(2) - x.unsqueeze(1)).norm(dim=3).sum((1, 2)) / (size * (size - 1))
    score: Tensor = between - 0.5 * within
    return score


def distill(
    composed: Composed,
    env_id: str | None = None,
    config: DistillConfig | None = None,
    *,
    name: str | None = None,
    seed: int = 0,
    hooks: Hooks | None = None,
    env_kwargs: dict[str, Any] | None = None,
) -> Skill:
    """See ``Composed.distill``."""
    seed, hooks = check_run(seed), checked_hooks(hooks, "distill()", *WATCHING)
    config = checked_config(config, DistillConfig, "distill()")
    task = gather_task(composed, env_id, config.num_envs, env_kwargs)
    kept = kept_kwargs(task.env_id, task.kwargs)
    try:
        policy = composed.fitted_to(task)
        learner = Distiller(policy, config, seed)
        theirs = policy.spec
        # With blocks that the parts do not use, such as a position, the task may have no symmetry.
        turns = known(policy.parts, theirs.observation_blocks)
        spec = SkillSpec(  # made first, so that invalid values fail before anything is learned
            name=name or plain_name(theirs.name),
            description=f"distilled from {theirs.name}; reward {theirs.reward}"[:MAX_TEXT],
            temperature=theirs.temperature,
            discount=theirs.discount,
            reward_scale=expression.reward_scale(policy.node) or 1.0,
            reward=theirs.reward[:MAX_TEXT],
            env_id=task.env_id,
            env_kwargs=kept,
            observation_blocks=theirs.observation_blocks,
            action_low=theirs.action_low,
            action_high=theirs.action_high,
            action_dtype=theirs.action_dtype,
            architecture=learner.agent.architecture,
            symmetries=theirs.symmetries if turns else (),
            config=learner.learning,
            seed=seed,
            steps=0,
            updates=0,
            parents=theirs.parents,
            model_hash=task.model_hash,
            versions=versions(),
            license="",  # its author's to choose
        )
        reports = learn(
            learner, task, None, config, discount=theirs.discount, seed=seed, hooks=hooks
        )
    finally:
        task.close()
    agent = learner.agent
    polyak_update(agent.target_critic, agent.critic, 1.0)
    done = {"steps": reports[-1].steps, "updates": reports[-1].updates}
    return Skill(spec.model_copy(update=done), flat_arrays(agent.networks()))


def plain_name(text: str) -> str:
    """A composition's name as a valid skill name: ``0.5 a + 0.5 b`` -> ``0.5-a-plus-0.5-b``."""
    if text.startswith("-"):
        text = f"minus {text[1:]}"
    words = text.replace("+", " plus ").replace(" - ", " minus ").replace("|", " or ")
    plain = re.sub(r"[^A-Za-z0-9_.]+", "-", words).strip("-.")
    return (plain or "composed")[:MAX_NAME]
