"""The correction that makes a composed Q optimal, learned off-policy and without rewards.

With skills that are soft-optimal for their rewards, ``Q_i = r_i + gamma E V_i(s')``, the optimal Q
of the composed reward is ``Q_0 - C`` where Q_0 is the composed Q and

    C(s, a) = E [ b(s') - gamma V(s') ],   0 after termination,

V is the soft value of ``Q_0 - C`` and b(s') is the composition of the ``gamma V_i(s')``: their
weighted sum, or their soft-OR. For a sum this is the divergence correction
``-alpha gamma E log INT prod_i pi_i^{w_i} exp(-C / alpha)``, exact for any real weights, any number
of skills and any dynamics. For a soft-OR of rewards that differ only on entering shared absorbing
goals it is exact for deterministic dynamics: unless a goal is entered, all rewards are the same r,
and adding a constant commutes with the soft-OR.

All soft values of one state come from the same candidates, so that their errors cancel: for equal
Q-functions the target is zero with any number of candidates, and for convex weights it is never
negative where C is not (Hölder's inequality holds for weighted samples too). Each
update sees the skills under one random symmetry of theirs (``critics.look``), which their networks
have only nearly: for different skills this raises C, by some percent.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor

from skillbank.archives import arrays_of
from skillbank.compose import expression
from skillbank.compose.acting import Acting, Cloud
from skillbank.compose.composed import Composed, known
from skillbank.compose.expression import Atom, Best, Corrected, Node
from skillbank.compose.gathering import (
    Gathering,
    Mirrors,
    Report,
    checked_config,
    exploring_action,
    gather_task,
    learn,
)
from skillbank.config import Architecture, Count, Strict, Widths, first_problem
from skillbank.durable import as_path, check_replaceable, replace_durably
from skillbank.errors import IncompatibleSkill, InvalidArgument, SkillbankError, TrainingDiverged
from skillbank.networks import Critic, polyak_update
from skillbank.replay import Batch, Replay
from skillbank.soft_value import soft_value
from skillbank.spec import Finite, Name, ObservationBlock, critic_shapes
from skillbank.training import WATCHING, Hooks, check_run, checked_hooks, save_or_warn

NETWORKS = 2  # corrections learned in parallel; the larger one is used
MAX_FILE_BYTES, MAX_DOCUMENT_BYTES = 64 << 20, 1 << 20


class CorrectionConfig(Gathering):
    """How a correction is learned."""


class Correction:
    """A learned C(s, a), in units of Q.

    Args:
        network: Two networks that regress C.
        blocks: The blocks that it observes.
        about: The expression that it corrects (``expression.outline``).
        reports: The reports of its training.
        factor: Multiplies the network's output.
    """

    def __init__(
        self,
        network: Critic,
        blocks: tuple[ObservationBlock, ...],
        about: dict[str, Any],
        reports: tuple[Report, ...] = (),
        factor: float = 1.0,
    ) -> None:
        self.network, self.blocks, self.about = network, blocks, about
        self.reports, self.factor = reports, factor

    @property
    def action_size(self) -> int:
        """A."""
        return self.network["0.weight"].shape[1] - self.network.observation

    def __call__(self, obs: Tensor, action: Tensor) -> Tensor:
        """C at scaled actions [B, K, A] -> [B, K]; the larger, more pessimistic of the two."""
        found: Tensor = self.network(obs, action).amax(0)
        return self.factor * found

    def digest(self) -> str:
        """SHA-256 of its factor, blocks and parameters."""
        document = json.dumps([self.factor, [[b.name, b.size] for b in self.blocks]]).encode()
        return _digest(document, self.network.arrays()).hex()

    def scaled(self, factor: float, about: dict[str, Any]) -> "Correction":
        """The correction for rewards ``factor`` times as large, of the composition ``about``."""
        both = self.factor * factor
        return Correction(self.network, self.blocks, about, self.reports, both)

    def save(self, path: str | Path) -> None:
        """Write it to a file, atomically: arrays, how it was learned, and a hash of both.

        Raises:
            StorageError: The file cannot be written.
            TrainingDiverged: A parameter is not finite; nothing is written.
        """
        arrays = self.network.arrays()
        if not all(np.isfinite(value).all() for value in arrays.values()):
            raise TrainingDiverged(f"the correction is not finite, and was not saved in {path}")
        meta = {
            "hidden": [arrays[f"{i}.bias"].shape[-1] for i in range(self.network.hidden)],
            "action": self.action_size,
            "blocks": [[block.name, block.size] for block in self.blocks],
            "about": self.about,
            "factor": self.factor,
            "reports": [list(report) for report in self.reports],
        }
        document = json.dumps(meta, sort_keys=True).encode()
        digest = np.frombuffer(_digest(document, arrays), np.uint8)
        with replace_durably(as_path(path)) as file:
            contents: dict[str, Any] = {"meta": np.frombuffer(document, np.uint8), "digest": digest}
            np.savez(file, **contents | arrays)

    @classmethod
    def load(cls, path: str | Path) -> "Correction":
        """Read what ``save`` wrote.

        Raises:
            SkillbankError: The file is not a correction, or is damaged.
        """
        path = as_path(path)
        try:
            if path.stat().st_size > MAX_FILE_BYTES:
                raise ValueError(f"larger than {MAX_FILE_BYTES:,} bytes")
            arrays = arrays_of(path)
            if not {"meta", "digest"} <= arrays.keys():
                raise ValueError("it has no document")
            document, digest = arrays.pop("meta").tobytes(), arrays.pop("digest").tobytes()
            if len(document) > MAX_DOCUMENT_BYTES:
                raise ValueError(f"a document of {len(document):,} bytes")
            if any(value.dtype != np.float32 for value in arrays.values()):
                raise ValueError("a parameter is not of type float32")
            if _digest(document, arrays) != digest:
                raise ValueError("its bytes do not match its hash")
            meta = _Meta.model_validate_json(document)
            blocks = tuple(ObservationBlock(name=name, size=size) for name, size in meta.blocks)
            sizes = (meta.hidden, sum(block.size for block in blocks), meta.action)
            shapes = critic_shapes(_architecture(meta.hidden), *sizes[1:])
            if {name: value.shape for name, value in arrays.items()} != shapes:
                raise ValueError("its parameters have other names or shapes")
            if not all(np.isfinite(value).all() for value in arrays.values()):
                raise ValueError("a parameter is not finite")
            network = _network(*sizes)
            network.load_arrays(arrays)
            network.requires_grad_(False)
        except ValidationError as error:
            raise SkillbankError(
                f"{path} is not a correction, or is damaged: {first_problem(error)}"
            ) from error
        except (OSError, ValueError) as error:
            raise SkillbankError(f"{path} is not a correction, or is damaged: {error}") from error
        return cls(network, blocks, meta.about, meta.reports, meta.factor)


class _Meta(Strict):
    """The document in a correction's file."""

    hidden: Widths
    action: Count
    blocks: tuple[tuple[Name, Count], ...]
    about: dict[str, Any]
    factor: Finite
    reports: tuple[Report, ...]


class Backup(NamedTuple):
    """Soft values of a composition at states, all from one set of candidates."""

    promised: Tensor  # b(s): the composition of gamma V_i(s) [B]
    value: Tensor  # V(s) of the composed Q minus the correction [B]
    base: Tensor  # V_0(s) of the composed Q without correction [B]


def backup(
    composed: Composed,
    node: Node,
    correction: Correction | None,
    obs: Tensor,
    acting: Acting,
    generator: torch.Generator,
) -> Backup:
    """The composed soft values of states [B, S] that the correction's target is made of.

    Args:
        composed: Gives candidates and the parts' Q.
        node: The expression to correct.
        correction: The correction learned so far; None for zero.
        obs: [B, S].
        acting: Candidates for each value.
        generator: Draws the candidates.
    """
    alpha, gamma = composed.spec.temperature, composed.spec.discount
    seen: list[dict[Atom, Tensor]] = []
    plain: list[Tensor] = []
    columns = slice(None) if correction is None else composed.columns(correction.blocks)

    def energy(states: Tensor, action: Tensor) -> Tensor:
        qs = composed.part_qs(states, action, node)
        seen.append(qs)
        plain.append(expression.fold(node, qs.__getitem__, alpha))
        if correction is None:
            return plain[-1]
        return plain[-1] - correction(states[:, columns], action)

    cloud: Cloud = composed.candidates(obs, generator, acting, energy)
    log_base = cloud.log_base
    values = {
        atom: soft_value(torch.cat([qs[atom] for qs in seen], 1), log_base, alpha)
        for atom in seen[0]
    }
    promised = expression.fold(node, lambda atom: gamma * values[atom], alpha)
    base = soft_value(torch.cat(plain, 1), log_base, alpha)
    return Backup(promised, soft_value(cloud.q, log_base, alpha), base)


def correction_target(found: Backup, discount: float, terminated: Tensor) -> Tensor:
    """``(1 - terminated) (b(s') - gamma V(s'))`` [B]."""
    assert found.promised.shape == terminated.shape, (found.promised.shape, terminated.shape)
    return (1.0 - terminated) * (found.promised - discount * found.value)


class Corrector:
    """Learns a correction (a ``gathering.Learner``)."""

    def __init__(self, composed: Composed, config: CorrectionConfig, seed: int) -> None:
        self.base = composed.acting_with(averaged=config.proposals.averaged)
        self.node, self.config = composed.node, config
        spec = self.base.spec
        self.generator = torch.Generator().manual_seed(seed)
        turns = known(composed.parts, spec.observation_blocks)
        self.mirrors = Mirrors(spec.symmetries if turns else (), self.generator)
        sizes = (spec.observation_size, spec.action_size)
        self.network = _network(config.hidden, *sizes)
        self.network.initialise(self.generator)
        with torch.no_grad():  # C starts at 0, which leaves the composition unchanged
            self.network["out.weight"].zero_()
            self.network["out.bias"].zero_()
        self.target = _network(config.hidden, *sizes)
        polyak_update(self.target, self.network, 1.0)
        self.optimiser = torch.optim.Adam(
            self.network.parameters(), lr=config.learning_rate, fused=True
        )
        self.floor = 0.0 if expression.is_convex(self.node) else None
        about = expression.outline(self.node)
        self.correction = Correction(self.network, spec.observation_blocks, about)
        self.frozen = Correction(self.target, spec.observation_blocks, about)
        self.composed = composed.replaced(Corrected(self.node, self.correction)).acting_with(
            **config.proposals.model_dump()
        )
        self.updates = 0

    def act(self, obs: Tensor) -> Tensor:
        """Actions of the current corrected policy, a share of them drawn from all candidates."""
        return exploring_action(self.composed, obs, self.config.explore, self.generator)

    def update(self, batch: Batch) -> Tensor:
        """One step of regression on the correction's target."""
        discount, batch = self.base.spec.discount, self.mirrors(batch)
        self.base.critics.look(self.generator)
        with torch.no_grad():
            found = backup(
                self.base,
                self.node,
                self.frozen,
                batch.next_obs,
                self.config.proposals,
                self.generator,
            )
            if self.updates == 0:
                level = self._level(correction_target(found, discount, batch.terminated), batch)
                found = found._replace(value=found.value - level)
            target = correction_target(found, discount, batch.terminated)
            if self.floor is not None:
                target = target.clamp_min(self.floor)
        predicted = self.network(batch.obs, batch.action)  # [2, B]
        loss = 0.5 * (predicted - target).square().mean(1).sum()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        polyak_update(self.target, self.network, self.config.target_rate)
        self.updates += 1
        last: Tensor = loss.detach()
        return last

    def probe(self, batch: Batch) -> Tensor:
        """C at a batch [B]."""
        with torch.no_grad():
            return self.correction(batch.obs, batch.action.unsqueeze(1)).squeeze(1)

    def _level(self, target: Tensor, batch: Batch) -> float:
        """Start at the level that the first targets imply, unless episodes terminate.

        A constant offset would otherwise be learned only at the slow rate of the target network.
        """
        if batch.terminated.any():
            return 0.0
        level = float(target.mean()) / (1.0 - self.base.spec.discount)
        with torch.no_grad():
            for network in (self.network, self.target):
                network["out.bias"].fill_(level)
        return level


def corrected(
    composed: Composed,
    env_id: str | None = None,
    config: CorrectionConfig | None = None,
    *,
    transitions: Replay | None = None,
    seed: int = 0,
    hooks: Hooks | None = None,
    env_kwargs: dict[str, Any] | None = None,
) -> Composed:
    """See ``Composed.corrected``."""
    seed = check_run(seed)
    hooks = checked_hooks(hooks, "corrected()", *WATCHING, "checkpoint", "on_warning")
    config = checked_config(config, CorrectionConfig, "corrected()")
    expression.check_bounded(composed.node)
    if isinstance(composed.node, Corrected):
        raise IncompatibleSkill(
            "this composition is corrected already; to learn longer, correct the original "
            "composition again with more total_steps"
        )
    for atom in expression.atoms(composed.node):
        if isinstance(atom, Best):
            raise IncompatibleSkill(
                "a composition made by improve() is not soft-optimal for a reward, so there is "
                "nothing to correct; compose the skills themselves"
            )
    if hooks.checkpoint is not None:
        _check_place(hooks.checkpoint)
    task = None
    if transitions is None:
        task = gather_task(composed, env_id, config.num_envs, env_kwargs)
    else:
        _check_transitions(composed, transitions, env_id, env_kwargs)
    try:
        fitted = composed if task is None else composed.fitted_to(task)
        learner = Corrector(fitted, config, seed)

        def save(path: Path) -> None:
            if learner.updates:  # before, it is zero
                learner.correction.save(path)

        reports = learn(
            learner,
            task,
            transitions,
            config,
            discount=composed.spec.discount,
            seed=seed,
            hooks=hooks,
            save=save,
        )
    finally:
        if task is not None:
            task.close()
    learner.network.requires_grad_(False)
    learner.correction.reports = reports
    save_or_warn(hooks, learner.correction.save)  # with the reports
    return fitted.replaced(Corrected(composed.node, learner.correction))


def _check_place(path: Path) -> None:
    """Raise, before it is learned, if a correction cannot or should not be saved to a path."""
    check_replaceable(path)
    if path.exists():
        try:
            Correction.load(path)
        except SkillbankError as error:
            raise SkillbankError(f"{error}; name another file for this one") from error


def _check_transitions(
    composed: Composed, transitions: Replay, env_id: str | None, env_kwargs: object
) -> None:
    if env_id is not None or env_kwargs:
        raise InvalidArgument(
            "a correction is learned either from given transitions or from those it gathers in a "
            "task: leave out transitions, or env_id and env_kwargs"
        )
    spec = composed.spec
    theirs, own = transitions.sizes, (spec.observation_size, spec.action_size)
    if theirs != own:
        raise IncompatibleSkill(
            f"the transitions have observations of {theirs[0]} and actions of {theirs[1]}; "
            f"{spec.name} has {own[0]} and {own[1]}"
        )
    if len(transitions) == 0:
        raise SkillbankError("there is no transition to learn from")


def _architecture(hidden: tuple[int, ...]) -> Architecture:
    return Architecture(critics=NETWORKS, critic_hidden=hidden, layer_norm=True)


def _network(hidden: tuple[int, ...], observation: int, action: int) -> Critic:
    return Critic(_architecture(hidden), observation, action)


def _digest(document: bytes, arrays: dict[str, NDArray[np.float32]]) -> bytes:
    digest = hashlib.sha256(document)
    for name in sorted(arrays):
        digest.update(name.encode() + b"\0" + str(arrays[name].shape).encode())
        digest.update(np.ascontiguousarray(arrays[name], "<f4").data)
    return digest.digest()
