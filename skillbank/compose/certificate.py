"""How far from optimal a composition can be, before anything is learned for it.

A composed Q promises more than its policy keeps. With soft-optimal parts, ``Q_i = r_i + gamma E
V_i(s')``, the composed ``Q_0`` is soft-optimal for the composed reward plus ``b(s') - gamma
V_0(s')`` at every step (the terms of ``correction``; for a sum it is ``gamma alpha D(s')`` with D
the policies' divergence). Therefore, for the composed policy pi and exactly,

    V_0(s) - V^pi(s) = E_pi sum_t gamma^t [ b(s_t+1) - gamma V_0(s_t+1) ]

which one estimates by running pi. With convex weights V_0 is above the optimal value, so this is a
bound on everything that the composition lacks; it is never above the printed theorem's, which puts
the worst action in the place of pi's. A learned correction C is taken off each term, which then
measures what is left of it.

All of it is about composing. Parts that are themselves far from optimal are not seen here.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from skillbank.compose import expression
from skillbank.compose.expression import Best, Corrected, WeightedSum
from skillbank.compose.gathering import gather_task
from skillbank.errors import IncompatibleSkill
from skillbank.evaluation import bootstrap_interval

if TYPE_CHECKING:
    from skillbank.compose.composed import Composed

Float = NDArray[np.float64]
VALUE_FACTOR = 4  # times the candidates of an action, for the values of a certificate
GOOD, POOR = 0.1, 1.0  # nats per step that policies diverge by, where they agree and disagree


@dataclass(frozen=True)
class Certificate:
    """An estimate of what a composed policy lacks, along states that it visits.

    Attributes:
        name: Of the composition.
        temperature: alpha.
        discount: gamma.
        promised: V_0 at each episode's start [E], above the optimal value for convex weights.
        shortfall: Estimate of what the policy keeps less than ``promised`` [E].
        divergence: Mean of D(s) = (composed V_i - V_0) / alpha over the visited states, in nats.
        convex: Do the weights make ``promised`` an upper bound?
        corrected: Is a learned correction part of it?
        sample_size: Mean effective number of candidates behind an action.
    """

    name: str
    temperature: float
    discount: float
    promised: Float
    shortfall: Float
    divergence: float
    convex: bool
    corrected: bool
    sample_size: float

    @property
    def loss(self) -> float:
        """Estimated bound on ``V* - V^pi`` where ``convex``; else how far the promise is off."""
        return float(self.shortfall.mean())

    @property
    def interval(self) -> tuple[float, float]:
        """95 % bootstrap interval of ``loss``."""
        return bootstrap_interval(self.shortfall)

    @property
    def per_step(self) -> float:
        """``loss`` as reward per step, ``(1 - gamma) loss``."""
        return (1.0 - self.discount) * self.loss

    @property
    def overlap(self) -> float:
        """``exp(-divergence)``: 1 where all parts do the same."""
        return float(np.exp(-self.divergence))

    @property
    def verdict(self) -> str:
        """Whether these skills compose, in a word: ``well``, ``partly`` or ``badly``."""
        nats = (1.0 - self.discount) * self.loss / (self.discount * self.temperature)
        return "well" if nats < GOOD else "partly" if nats < POOR else "badly"

    def __str__(self) -> str:
        low, high = self.interval
        figures = f"{self.loss:.3g} (95 % interval {low:.3g} to {high:.3g})"
        scale = (
            f"of a soft value of {self.promised.mean():.3g}, {self.per_step:.2g} of reward per step"
        )
        if not self.convex:
            return (
                f"'{self.name}': its Q promises {figures} more than the policy keeps, {scale}. "
                "For these weights that bounds nothing: the optimal value may lie above the "
                "promise. corrected() learns the difference."
            )
        if self.corrected:
            return (
                f"'{self.name}': at most {figures} from optimal, {scale}, as far as can be told "
                f"from {len(self.shortfall)} episodes."
            )
        advice = {
            "well": "they compose well",
            "partly": "they compose with a loss; corrected() would learn it away",
            "badly": "they pull apart and do not compose by averaging; use corrected()",
        }[self.verdict]
        return (
            f"'{self.name}': {advice}. Where the composed policy goes, the parts overlap by "
            f"{100 * self.overlap:.0f} %, and it is at most {figures} from optimal, {scale}; an "
            f"estimate from {len(self.shortfall)} episodes."
        )


def certify(
    composed: "Composed",
    env_id: str | None = None,
    *,
    episodes: int = 32,
    steps: int | None = None,
    seed: int = 0,
    env_kwargs: dict[str, Any] | None = None,
) -> Certificate:
    """See ``Composed.certificate``."""
    from skillbank.compose.correction import backup

    root = composed.node
    correction = root.correction if isinstance(root, Corrected) else None
    node = root.node if isinstance(root, Corrected) else root
    if any(isinstance(atom, Best) for atom in expression.atoms(node)):
        raise IncompatibleSkill(
            "the best of evaluated policies has no certificate: their values already are what "
            "the policies keep"
        )
    task = gather_task(composed, env_id, episodes, env_kwargs)
    generator = torch.Generator().manual_seed(seed)
    policy = composed.fitted_to(task)
    alpha, gamma = policy.spec.temperature, policy.spec.discount
    acting = policy.acting.enlarged(VALUE_FACTOR)
    try:
        obs = task.reset(seed=seed)
        start = backup(policy, node, correction, obs, acting, generator)
        promised = (start.base if expression.is_convex(node) else start.value).double().numpy()
        # corrected: V_0 - V_C at the start is taken off already
        shortfall = promised - start.value.double().numpy()
        weight, alive = 1.0, np.ones(episodes, bool)
        late: list[Float] = []
        divergences, weights, sizes = 0.0, 0.0, []
        while alive.any() and (steps is None or len(late) < steps):
            action, _, size, _ = policy.drawn(obs, 1, generator)
            sizes.append(float(size.mean()))
            step = task.step(action.squeeze(1).numpy())
            found = backup(policy, node, correction, step.next_obs, acting, generator)
            term = (1.0 - step.terminated) * (found.promised - gamma * found.value)
            if correction is not None:
                with torch.no_grad():
                    seen = obs[:, policy.columns(correction.blocks)]
                    term = term - correction(seen, action).squeeze(1)
            now = alive * term.double().numpy()
            shortfall = shortfall + weight * now
            late.append(now)
            apart = _divergence(policy, node, found, alpha)
            divergences += float((alive * apart).sum())
            weights += float(alive.sum())
            obs, weight = step.obs, weight * gamma
            ending = step.ended & alive
            if ending.any():  # the clock ran out: the rest, as it has been going lately
                cut = ending & (step.terminated.numpy() == 0.0)
                recent = np.stack(late[-max(1, len(late) // 4) :]).mean(0)
                shortfall = shortfall + cut * weight / (1.0 - gamma) * recent
            alive = alive & ~step.ended
        if alive.any():
            recent = np.stack(late[-max(1, len(late) // 4) :]).mean(0)
            shortfall = shortfall + alive * weight / (1.0 - gamma) * recent
    finally:
        task.close()
    return Certificate(
        name=policy.spec.name,
        temperature=alpha,
        discount=gamma,
        promised=promised,
        shortfall=shortfall,
        divergence=divergences / max(weights, 1.0),
        convex=expression.is_convex(node),
        corrected=correction is not None,
        sample_size=float(np.mean(sizes)),
    )


def _divergence(policy: "Composed", node: Any, found: Any, alpha: float) -> Float:
    """D(s) in nats [B]; for sums exactly, as promised / gamma is the sum of the parts' V."""
    if not isinstance(node, WeightedSum):
        return np.zeros(len(found.base))
    apart: Float = ((found.promised / policy.spec.discount - found.base) / alpha).double().numpy()
    return apart
