"""Symmetries of a task: signed permutations of observation and action, as batched tensors."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skillbank.replay import Batch
from skillbank.spec import Symmetry


class Symmetries:
    """G symmetries of a task: relabellings of observation and action that leave it unchanged.

    A random one is applied to each replayed transition, so that what is learned in one direction
    is learned in all. A skill also applies a random one to each state when acting and undoes it on
    the action, which makes its policy exactly as symmetric as the task (the mixture
    ``mean_g f(xi; g s)``, relabelled back), although the network is only nearly symmetric.
    """

    def __init__(self, declared: Sequence[Symmetry], device: str = "cpu") -> None:
        self.count = len(declared)

        def table(name: str, dtype: type) -> Tensor:
            rows: NDArray[Any] = np.array([getattr(s, name) for s in declared], dtype)
            return torch.from_numpy(rows).to(device)

        self._obs_index = table("obs_index", np.int64)  # [G, S]
        self._obs_sign = table("obs_sign", np.float32)
        self._action_index = table("action_index", np.int64)  # [G, A]
        self._action_sign = table("action_sign", np.float32)
        # The same for a whole transition as one row: observation, action, next observation.
        size = self._obs_index.shape[1]
        width = size + self._action_index.shape[1]
        self._row_index = torch.cat(
            (self._obs_index, self._action_index + size, self._obs_index + width), 1
        )
        self._row_sign = torch.cat((self._obs_sign, self._action_sign, self._obs_sign), 1)
        self._widths = (size, width - size, size)

    def draw(self, batch: int, generator: torch.Generator) -> Tensor:
        """Draw one symmetry for each of ``batch`` states [B]."""
        device = generator.device
        return torch.randint(self.count, (batch,), generator=generator, device=device)

    def obs(self, obs: Tensor, which: Tensor) -> Tensor:
        """Apply the symmetries ``which`` [B] to observations [B, S]."""
        return obs.gather(1, self._obs_index[which]) * self._obs_sign[which]

    def transitions(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Apply a random symmetry to each transition."""
        which = self.draw(len(batch.obs), generator)
        obs, action, next_obs = self.relabelled(batch.obs, batch.action, batch.next_obs, which)
        return batch._replace(obs=obs, action=action, next_obs=next_obs)

    def relabelled(
        self, obs: Tensor, action: Tensor, next_obs: Tensor, which: Tensor
    ) -> tuple[Tensor, ...]:
        """Apply the symmetries ``which`` [B] to observations, actions and next observations."""
        rows = torch.cat((obs, action, next_obs), 1)
        rows = rows.gather(1, self._row_index.index_select(0, which))
        rows *= self._row_sign.index_select(0, which)
        return rows.split_with_sizes(self._widths, 1)

    def undo_action(self, action: Tensor, which: Tensor) -> Tensor:
        """Undo the symmetries ``which`` [B] on actions [B, K, A]."""
        signed = action * self._action_sign[which].unsqueeze(1)
        index = self._action_index[which].unsqueeze(1).expand_as(action)
        return torch.empty_like(action).scatter_(2, index, signed)
