"""The floating-point operations that an update needs at least: its matrix products.

Counted from the mathematics, not from the code: a first layer's product with the state once per
state, no gradient where none is needed, only the unmasked half of each coupling's weights.
"""

import itertools

from skillbank.config import Architecture, Learning


def layers(*widths: int) -> int:
    """Weights of a chain of layers."""
    return sum(a * b for a, b in itertools.pairwise(widths))


class Needed:
    """Operations of the steps of one update.

    Args:
        architecture: The networks' architecture.
        learning: Batch size, particles and value samples.
        observation: S.
        action: A.
    """

    def __init__(
        self, architecture: Architecture, learning: Learning, observation: int, action: int
    ) -> None:
        self.net, self.learning = architecture, learning
        self.obs, self.act = observation, action

    def critic(self, states: int, actions: int, *, weights: bool, of_action: bool) -> float:
        """All critics at a number of actions and states, with the gradients asked for."""
        first, *rest = self.net.critic_hidden
        later = layers(first, *rest, 1)
        forward = states * self.obs * first + actions * (self.act * first + later)
        back = actions * later if weights or of_action else 0  # to the first hidden layer
        back += forward if weights else 0
        back += actions * self.act * first if of_action else 0
        return 2.0 * self.net.critics * (forward + back)

    def sampler(self, states: int, particles: int, *, gradient: bool) -> float:
        """The sampling network for a number of particles and states."""
        first, *rest = self.net.sampler_hidden
        if self.net.sampler == "noise":
            later = layers(first, *rest, self.act)
            forward = states * self.obs * first + particles * (self.act * first + later)
            back = forward + particles * later
        else:
            couplings, hidden = self.net.couplings, self.net.coupling_hidden
            later = layers(first, *rest, 2 * self.act + couplings * hidden)
            moving = couplings * (self.act / 2 * hidden + hidden * self.act)
            forward = states * (self.obs * first + later) + particles * moving
            back = forward + states * later + particles * moving
        return 2.0 * (forward + (back if gradient else 0.0))

    def critic_step(self) -> float:
        """One regression of the critics on the soft target."""
        batch, count = self.learning.batch_size, self.learning.value_samples
        total = self.critic(batch, batch * count, weights=False, of_action=False)
        total += self.critic(batch, batch, weights=True, of_action=False)
        if self.learning.proposals == "sampler":
            total += self.sampler(batch, batch * count, gradient=False)
        return total

    def sampler_step(self) -> float:
        """One step of the sampling network."""
        batch, count = self.learning.batch_size, self.learning.particles
        total = self.critic(batch, batch * count, weights=False, of_action=True)
        total += self.sampler(batch, batch * count, gradient=True)
        if self.learning.objective == "stein":
            total += self.sampler(batch, batch * count, gradient=False)
            total += 2.0 * batch * count * count * 3 * self.act  # distances, two kernel sums
        return total

    def update(self) -> float:
        """Both steps."""
        return self.critic_step() + self.sampler_step()
