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
    """G relabellings under which the task looks the same.

    Replayed transitions are seen through a random one, so that what is learned in one direction
    is learned in all; and a skill acts through a random one, which makes its policy exactly as
    symmetric as the task (the mixture ``mean_g f(xi; g s)`` relabelled back) where the network is
    only nearly so.
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
        # The same for a whole transition in one row: observation, action, next observation.
        size = self._obs_index.shape[1]
        width = size + self._action_index.shape[1]
        self._row_index = torch.cat(
            (self._obs_index, self._action_index + size, self._obs_index + width), 1
        )
        self._row_sign = torch.cat((self._obs_sign, self._action_sign, self._obs_sign), 1)
        self._widths = (size, width - size, size)

    def draw(self, batch: int, generator: torch.Generator) -> Tensor:
        """One symmetry for each of ``batch`` states [B]."""
        device = generator.device
        return torch.randint(self.count, (batch,), generator=generator, device=device)

    def obs(self, obs: Tensor, which: Tensor) -> Tensor:
        """Observations [B, S] as the relabelled robots see them."""
        return obs.gather(1, self._obs_index[which]) * self._obs_sign[which]

    def transitions(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Each transition seen through a random symmetry."""
        which = self.draw(len(batch.obs), generator)
        rows = torch.cat((batch.obs, batch.action, batch.next_obs), 1)
        rows = rows.gather(1, self._row_index.index_select(0, which))
        rows *= self._row_sign.index_select(0, which)
        obs, action, next_obs = rows.split_with_sizes(self._widths, 1)
        return batch._replace(obs=obs, action=action, next_obs=next_obs)

    def undo_action(self, action: Tensor, which: Tensor) -> Tensor:
        """Actions [B, K, A] of relabelled robots as the original ones do them."""
        signed = action * self._action_sign[which].unsqueeze(1)
        index = self._action_index[which].unsqueeze(1).expand_as(action)
        return torch.empty_like(action).scatter_(2, index, signed)
