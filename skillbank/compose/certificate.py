"""How far from optimal a composition can be, before anything is learned for it.

A composed Q promises more than its policy achieves. With soft-optimal parts, ``Q_i = r_i + gamma E
V_i(s')``, the composed ``Q_0`` is soft-optimal for the composed reward plus ``e(s') = b(s') -
gamma V_0(s')`` at every step (terms as in ``correction``; for weights that sum to 1, ``e = gamma
alpha D`` with D the divergence of the policies). For every state, exactly:

    V_0(s) - V^pi(s) = E_pi sum_t gamma^t e(s_t+1)              the composed policy's shortfall
    V_0(s) - V*(s)  >= least_pi' E_pi' sum_t gamma^t e(s_t+1)   what no policy can avoid

The difference of the two bounds how far the composed policy is from the optimal one (for a soft-OR,
in deterministic dynamics). For a mean it never exceeds the bound of the theorem on averaged
Q-functions (Haarnoja et al. 2018, with the factor alpha / 2 on its divergence), which takes the
worst policy in the first line and 0 in the second.

The shortfall is estimated by running pi; the unavoidable part by the smallest sum over any stretch
of the episodes of pi and of the parts' own policies. (Where the terms are noisy, the smallest is
that of a lucky episode: the estimated loss errs upwards, and more so with more episodes.) With a
learned correction C, the same holds for ``Q_0 - C`` with ``e(s, a, s') = b(s') - gamma V(s') - C(s,
a)``, where V is its own soft value: the expected e is 0 where C is exact.

The certificate only covers the error of composing, not parts that are far from optimal themselves.
"""

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skillbank.compose import expression
from skillbank.compose.correction import Backup, backup, correction_target
from skillbank.compose.expression import Best, Corrected, Node, WeightedSum
from skillbank.compose.gathering import gather_task
from skillbank.errors import IncompatibleSkill, Interrupted, InvalidArgument
from skillbank.evaluation import bootstrap_interval, check_ending
from skillbank.training import WATCHING, Hooks, Progress, check_run, checked_hooks

if TYPE_CHECKING:
    from skillbank.compose.composed import Composed
    from skillbank.compose.correction import Correction

Float = NDArray[np.float64]
VISITED_FACTOR = 2  # candidates for a visited state's value, as a multiple of an action's
SCOUTS = 4  # episodes of each part's own policy
GOOD, POOR = 0.25, 2.0  # loss per step in units of alpha: below GOOD is well, from POOR on badly


@dataclass(frozen=True)
class Certificate:
    """An estimate of how far a composed policy is from optimal, along states that it visits.

    Attributes:
        name: The composition's name.
        temperature: alpha.
        discount: gamma.
        promised: V_0 at each episode's start [E]; with a correction, the soft value of ``Q_0 - C``.
        shortfall: How much less than that the policy achieves [E].
        unavoidable: How much less than that every policy achieves at least.
        horizon: Mean discounted number of steps of an episode.
        divergence: Mean over visited states of ``(sum_i w_i V_i - V_0) / alpha``, in nats; nan
            unless the composition is a mean.
        corrected: Whether it includes a learned correction.
        sample_size: Mean effective number of candidates per action.
    """

    name: str
    temperature: float
    discount: float
    promised: Float
    shortfall: Float
    unavoidable: float
    horizon: float
    divergence: float
    corrected: bool
    sample_size: float

    @property
    def loss(self) -> float:
        """Estimated bound on the gap in soft value between the optimal policy and this one."""
        return float(self.shortfall.mean()) - self.unavoidable

    @property
    def interval(self) -> tuple[float, float]:
        """95 % bootstrap interval of ``loss``, over episodes."""
        return bootstrap_interval(self.shortfall - self.unavoidable)

    @property
    def per_step(self) -> float:
        """``loss`` as reward per step of an episode."""
        return self.loss / self.horizon

    @property
    def overlap(self) -> float:
        """``exp(-divergence)``: 1 if all parts act alike."""
        return float(np.exp(-self.divergence))

    @property
    def verdict(self) -> str:
        """Whether these skills compose, in a word: ``well``, ``partly`` or ``badly``."""
        share = self.per_step / self.temperature
        return "well" if share < GOOD else "partly" if share < POOR else "badly"

    def __str__(self) -> str:
        return self.text("corrected()")

    def text(self, correct: str) -> str:
        """The certificate in words; ``correct`` is the call or option that learns a correction."""
        low, high = self.interval
        advice = {
            "well": "they compose well",
            "partly": "they may lose something by being composed",
            "badly": "they may lose much by being composed",
        }[self.verdict]
        if self.corrected:
            advice = advice.replace("being composed", "being composed, even corrected")
        elif self.verdict != "well":
            advice += f", and {correct} learns what is lost"
        number = len(self.shortfall)
        episodes = "1 episode" if number == 1 else f"{number} episodes"
        apart = (
            ""
            if np.isnan(self.divergence)
            else f" In the states it visits, the parts overlap by {100.0 * self.overlap:.3g} %."
        )
        return (
            f"'{self.name}': {advice}. Its policy's soft value is an estimated {self.loss:.3g} at "
            f"most (95 % interval over episodes {low:.3g} to {high:.3g}) below the optimal one, "
            f"{self.per_step:.2g} of reward per step.{apart} From {episodes}, "
            "assuming that no policy does better than the best stretch of them."
        )


def certify(
    composed: "Composed",
    env_id: str | None = None,
    *,
    episodes: int = 32,
    steps: int | None = None,
    seed: int = 0,
    hooks: Hooks | None = None,
    env_kwargs: dict[str, Any] | None = None,
) -> Certificate:
    """See ``Composed.certificate``."""
    seed, hooks = check_run(seed), checked_hooks(hooks, "certificate()", *WATCHING)
    root = composed.node
    correction = composed.correction
    node = root.node if isinstance(root, Corrected) else root
    expression.check_bounded(node)
    if isinstance(node, Corrected):
        raise IncompatibleSkill(
            "a correction of a correction has no certificate; correct the composition itself"
        )
    if any(isinstance(atom, Best) for atom in expression.atoms(node)):
        raise IncompatibleSkill(
            "a composition made by improve() has no certificate: its values are already those that "
            "the policies achieve"
        )
    if episodes < 1 or (steps is not None and steps < 1):
        raise InvalidArgument(f"a certificate needs episodes and steps, got {episodes} of {steps}")
    copies = episodes + SCOUTS * len(composed.parts)
    task = gather_task(composed, env_id, copies, env_kwargs)
    try:
        walk = _Walk(composed.fitted_to(task), node, correction, episodes, seed)
        obs = task.reset(seed=seed)
        walk.start(obs)
        longest = steps or task.max_episode_steps  # None: unlimited
        while walk.alive.any() and (steps is None or walk.steps < steps):
            check_ending(task, walk.steps)
            action = walk.act(obs)
            step = task.step(action.numpy())
            walk.note(obs, action, step.next_obs, step.terminated, step.ended)
            obs = step.obs
            if hooks.should_stop():
                raise Interrupted("interrupted; the certificate is not finished")
            if hooks.on_progress is not None and longest is not None:
                hooks.on_progress(walk.progress(longest))
        return walk.finished()
    finally:
        task.close()


class _Walk:
    """Runs episodes of a composed policy and a few of each part's own, and records their terms."""

    def __init__(
        self,
        policy: "Composed",
        node: Node,
        correction: "Correction | None",
        episodes: int,
        seed: int,
    ) -> None:
        self.policy, self.node, self.correction = policy, node, correction
        self.episodes, self.steps = episodes, 0
        self.generator = torch.Generator().manual_seed(seed)
        self.acting = policy.acting.enlarged(VISITED_FACTOR)
        self.copies = episodes + SCOUTS * len(policy.parts)
        self.alive = np.ones(self.copies, bool)
        self.terms: list[Float] = []  # e [N] of each step; nan after an episode's end
        self.endless = np.ones(self.copies, bool)  # has the episode not terminated?
        self.recent = np.zeros(self.copies)  # mean of its last terms
        self.late: list[Float] = []  # terms of the shortfall [E], by step
        self.apart: list[float] = []
        self.sizes: list[float] = []
        self._started = time.perf_counter()

    def start(self, obs: Tensor) -> None:
        """Record the value promised at the start."""
        found = self._backup(obs[: self.episodes])
        self.promised = found.value.double().numpy()
        self.apart.extend(self._divergence(found))
        self.shortfall = np.zeros(self.episodes)
        self.discounted = np.zeros(self.episodes)  # steps

    def act(self, obs: Tensor) -> Tensor:
        """Actions [N, A]: of the composed policy, then of each part."""
        own = self.episodes
        action, _, size, _ = self.policy.drawn(obs[:own], 1, self.generator)
        self.sizes.append(float(size.mean()))
        parts = [action.squeeze(1)]
        for index, skill in enumerate(self.policy.parts):
            first = own + SCOUTS * index
            seen = obs[first : first + SCOUTS].numpy()
            seed = int(torch.randint(2**31, (), generator=self.generator))
            drawn = skill.sample(seen, 1, seed=seed)
            parts.append(self.policy.scaled(drawn[:, 0]))
        return torch.cat(parts)

    def note(
        self,
        obs: Tensor,
        action: Tensor,
        next_obs: Tensor,
        terminated: Tensor,
        ended: NDArray[np.bool_],
    ) -> None:
        """Record a step of all copies."""
        gamma = self.policy.spec.discount
        found = self._backup(next_obs)
        term = correction_target(found, gamma, terminated)  # [N]
        if self.correction is not None:
            with torch.no_grad():
                seen = obs[:, self.policy.columns(self.correction.blocks)]
                term = term - self.correction(seen, action.unsqueeze(1)).squeeze(1)
        self.terms.append(np.where(self.alive, term.double().numpy(), np.nan))
        self.endless = np.where(self.alive, terminated.numpy() == 0.0, self.endless)
        self.recent = np.where(self.alive, _mean_of_last(self.terms), self.recent)
        own = slice(0, self.episodes)
        alive = self.alive[own]
        now = alive * term[own].double().numpy()
        self.shortfall = self.shortfall + gamma**self.steps * now
        self.discounted = self.discounted + gamma**self.steps * alive
        self.late.append(now)
        self.steps += 1
        goes_on = terminated[own].numpy() == 0.0
        self.apart.extend(self._divergence(found)[own][alive & goes_on])
        cut = alive & ended[own] & goes_on
        self._go_on(cut)
        self.alive = self.alive & ~ended

    def progress(self, longest: int) -> Progress:
        """Progress so far, in episodes of at most ``longest`` steps."""
        done, total = self.steps * self.copies, longest * self.copies
        seconds, nan = time.perf_counter() - self._started, float("nan")
        figures = {"shortfall": float(self.shortfall.mean())}
        return Progress(done, total, 0, seconds, nan, nan, figures)

    def finished(self) -> Certificate:
        """The certificate."""
        spec = self.policy.spec
        self._go_on(self.alive[: self.episodes])
        return Certificate(
            name=spec.name,
            temperature=spec.temperature,
            discount=spec.discount,
            promised=self.promised,
            shortfall=self.shortfall,
            unavoidable=self._least_stretch(),
            horizon=float(self.discounted.mean()),
            divergence=float(np.mean(self.apart)) if self._is_mean() else float("nan"),
            corrected=self.correction is not None,
            sample_size=float(np.mean(self.sizes)),
        )

    def _least_stretch(self) -> float:
        """The smallest ``sum_t gamma^t e`` from any visited state on."""
        gamma = self.policy.spec.discount
        terms = np.stack(self.terms)  # [T, N]
        total, least = np.zeros(self.copies), np.inf
        for now in terms[::-1]:
            alive = np.isfinite(now)
            last = alive & (total == 0.0) & self.endless  # truncated, not terminated
            total = np.where(last, self.recent / (1.0 - gamma), total)
            total = np.where(alive, np.nan_to_num(now) + gamma * total, 0.0)
            if alive.any():
                least = min(least, float(total[alive].min()))
        return least

    def _go_on(self, cut: NDArray[np.bool_]) -> None:
        """Extrapolate truncated episodes [E]: further terms equal the mean of the recent ones."""
        gamma = self.policy.spec.discount
        rest = cut * gamma**self.steps / (1.0 - gamma)
        self.shortfall = self.shortfall + rest * _mean_of_last(self.late)
        self.discounted = self.discounted + rest

    def _backup(self, obs: Tensor) -> Backup:
        with torch.no_grad():
            return backup(self.policy, self.node, self.correction, obs, self.acting, self.generator)

    def _divergence(self, found: Backup) -> Float:
        """``(sum_i w_i V_i - V_0) / alpha`` [N]."""
        gamma, alpha = self.policy.spec.discount, self.policy.spec.temperature
        apart: Float = (found.promised / gamma - found.base).double().numpy() / alpha
        return apart

    def _is_mean(self) -> bool:
        return isinstance(self.node, WeightedSum) and expression.is_convex(self.node)


def _mean_of_last(terms: list[Float]) -> Float:
    """Mean of the last quarter of them."""
    found: Float = np.stack(terms[-max(1, len(terms) // 4) :]).mean(0)
    return found
