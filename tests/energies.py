"""Any energy in the critics' place, so that what is learned can be held to a closed form."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from skillbank.gradients import CriticPass
from skillbank.networks import Critic


class EnergyPass:
    """Its values, and its gradient by autograd; otherwise as ``CriticPass``.

    Args:
        energy: Gives Q-values [C, B, K] for obs [B, S] and action [B, K, A].
        obs: [B, S].
        action: [B, K, A].

    Attributes:
        q: Q-values [C, B, K].
    """

    def __init__(self, energy: nn.Module, obs: Tensor, action: Tensor) -> None:
        with torch.enable_grad():
            self.action = action.detach().requires_grad_()
            self._q = energy(obs, self.action)
        self.q: Tensor = self._q.detach()

    def of_action(self, dq: Tensor) -> Tensor:
        """The gradient over the actions: dq [C, B, K] -> [B, K, A]."""
        return torch.autograd.grad(self._q, self.action, dq)[0]


@pytest.fixture
def any_energy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an agent's critic be any module that gives [C, B, K]."""

    def either(critic: nn.Module, obs: Tensor, action: Tensor, **how: Any) -> Any:
        known = isinstance(critic, Critic)
        return CriticPass(critic, obs, action, **how) if known else EnergyPass(critic, obs, action)

    monkeypatch.setattr("skillbank.agent.CriticPass", either)
