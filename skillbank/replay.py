"""Replay memory: a ring of transitions in one table, one row each."""

from typing import NamedTuple

import torch
from torch import Tensor


class Batch(NamedTuple):
    """Transitions, all float32; actions are scaled to [-1, 1]."""

    obs: Tensor  # [B, S]
    action: Tensor  # [B, A]
    reward: Tensor  # [B]
    terminated: Tensor  # [B], 1 where the episode ended for good
    next_obs: Tensor  # [B, S], the true one, also at an episode's end


class Replay:
    """A ring of the last ``capacity`` transitions, ``4 (2 S + A + 2)`` bytes each.

    Memory is claimed by the operating system as rows are first written, so a short training
    pays for what it stored.
    """

    def __init__(self, capacity: int, observation: int, action: int, device: str = "cpu") -> None:
        self.capacity = capacity
        self.widths = (observation, action, 1, 1, observation)
        self.rows = torch.empty((capacity, sum(self.widths)), device=device)
        self.added = 0  # transitions ever added

    def __len__(self) -> int:
        """Transitions that can be sampled."""
        return min(self.added, self.capacity)

    def add(self, batch: Batch) -> None:
        """Append transitions, over the oldest where the ring is full."""
        rows = torch.cat(
            (
                batch.obs,
                batch.action,
                batch.reward[:, None],
                batch.terminated[:, None],
                batch.next_obs,
            ),
            dim=1,
        )
        assert rows.shape[1] == self.rows.shape[1], (rows.shape, self.rows.shape)
        start = self.added % self.capacity
        first = min(len(rows), self.capacity - start)
        self.rows[start : start + first] = rows[:first]
        self.rows[: len(rows) - first] = rows[first:]
        self.added += len(rows)

    def rewards(self) -> Tensor:
        """All rewards that are kept [len]."""
        return self.rows[: len(self), self.widths[0] + self.widths[1]]

    def sample(self, count: int, generator: torch.Generator) -> Batch:
        """``count`` transitions, uniformly with replacement."""
        index = torch.randint(len(self), (count,), generator=generator, device=self.rows.device)
        obs, action, reward, terminated, next_obs = self.rows[index].split(self.widths, dim=1)
        return Batch(obs, action, reward.squeeze(1), terminated.squeeze(1), next_obs)
