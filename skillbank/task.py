"""The learner's interface to a Gymnasium environment: many copies, flat tensors, scaled actions.

Any registered environment with a one-dimensional Box observation and a bounded one-dimensional Box
action is supported. Optional declarations, as of skillbank's own environments (observation blocks,
symmetries, model hash), are used if present.
"""

import inspect
import itertools
import re
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any, Literal, NamedTuple

import gymnasium
import numpy as np
import torch
from gymnasium.envs.registration import load_env_creator
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.wrappers import NormalizeObservation, OrderEnforcing, PassiveEnvChecker, TimeLimit
from numpy.typing import DTypeLike, NDArray
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from skillbank.config import resolve
from skillbank.errors import UnsupportedEnvironment, did_you_mean, raised_at
from skillbank.spec import ObservationBlock, Sha256, Symmetry, says_how_it_runs

Array = NDArray[Any]


class Step(NamedTuple):
    """The result of one step of all copies."""

    next_obs: Tensor  # [N, S], before any reset, also where the episode ended
    reward: Tensor  # [N]
    terminated: Tensor  # [N], 1 where the episode terminated
    ended: Array  # [N] bool, terminated or truncated
    obs: Tensor  # [N, S], where the next step starts: after a reset where the episode ended
    info: dict[str, Any]  # Gymnasium's info for ``obs``; ``final_info`` is that of ended episodes


class Layout(NamedTuple):
    """The properties of a task that are needed to fit a skill to it."""

    env_id: str
    observation_blocks: tuple[ObservationBlock, ...]
    action_low: NDArray[np.float64]
    action_high: NDArray[np.float64]
    model_hash: str | None = None

    @property
    def observation_size(self) -> int:
        """S."""
        return sum(block.size for block in self.observation_blocks)


class Task:
    """N copies of an environment.

    Args:
        env_id: A Gymnasium id, or the bare name of one of skillbank's (``QuadrupedRun``).
        num_envs: N, the number of copies.
        kwargs: Keyword arguments of the environment.

    Raises:
        UnsupportedEnvironment: The id is unknown, or its spaces are not supported.
    """

    def __init__(self, env_id: str, num_envs: int, /, **kwargs: Any) -> None:
        self.env_id = resolve(env_id)
        try:
            self.envs = _made(self.env_id, num_envs, kwargs)
        except Exception as error:  # an environment may raise anything
            made = ", ".join(f"{name}={value!r}" for name, value in kwargs.items())
            raise UnsupportedEnvironment(
                f"{self.env_id} cannot be made{made and f' with {made}'}: "
                f"{_unknown(self.env_id, error) or error}"
            ) from error
        self.num_envs, self.kwargs = num_envs, kwargs
        self.steps = 0  # steps of all copies since they were made
        try:
            self._declare()
        except BaseException:
            self.close()
            raise

    def _declare(self) -> None:
        """Read what the environment is and declares."""
        obs_space, action_space = self.envs.single_observation_space, self.envs.single_action_space
        source = _declaring(self.envs)
        _check_wrappers(self.env_id, _first(self.envs.unwrapped))
        layout = _declared(self.env_id, obs_space, action_space, source)
        self.observation_blocks = layout.observation_blocks
        self.observation_size = layout.observation_size
        self.action_low, self.action_high = layout.action_low, layout.action_high
        self.action_dtype = np.dtype(action_space.dtype)
        self.action_size = len(self.action_low)
        self.model_hash = layout.model_hash
        self.arena: Any = getattr(source, "arena", None)
        # Other environments may only work in the thread that made them.
        self.any_thread = bool(getattr(source, "any_thread", False))
        registered = getattr(_first(self.envs).spec, "max_episode_steps", None)
        self.max_episode_steps: int | None = getattr(source, "max_episode_steps", registered)
        self.control_timestep: float | None = getattr(source, "control_timestep", None)
        self.symmetries = self._declared_symmetries()

    def _declared_symmetries(self) -> tuple[Symmetry, ...]:
        """The symmetries that the environment declares, if any, checked."""
        try:
            declared = getattr(_outermost(self.envs), "symmetries", None) or ()
            symmetries = tuple(map(_symmetry, declared))
        except (AttributeError, TypeError, ValueError) as error:
            raise UnsupportedEnvironment(
                f"{self.env_id} declares invalid symmetries; each needs a name and, for "
                "observation and action, an index (a permutation) and signs of +1 and -1 "
                f"({str(error).splitlines()[0]})"
            ) from error
        for one in symmetries:
            sizes = len(one.obs_index), len(one.action_index)
            if sizes != (self.observation_size, self.action_size):
                raise UnsupportedEnvironment(
                    f"{self.env_id} declares symmetry '{one.name}' of {sizes[0]} observed numbers "
                    f"and {sizes[1]} actions; it has {self.observation_size} and {self.action_size}"
                )
            ends = np.stack((self.action_low, self.action_high))[:, list(one.action_index)]
            ends = np.sort(ends * np.array(one.action_sign), 0)
            if not np.allclose(ends, (self.action_low, self.action_high)):
                raise UnsupportedEnvironment(
                    f"{self.env_id} declares symmetry '{one.name}', which maps the actions' bounds "
                    f"to {ends.tolist()}; they are "
                    f"{[self.action_low.tolist(), self.action_high.tolist()]}"
                )
        if missing := _missing_from_group(symmetries):
            raise UnsupportedEnvironment(
                f"{self.env_id} declares symmetries that are no group: {missing} is missing "
                "(what is learned of a state must hold for each of its images)"
            )
        return symmetries

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> Tensor:
        """Reset all copies and return the first observations [N, S]; ``info`` is in ``.info``.

        Raises:
            UnsupportedEnvironment: The result has the wrong shape or is not finite.
        """
        try:
            obs, self.info = self.envs.reset(seed=seed, options=options)
        except Exception as error:
            raise UnsupportedEnvironment(
                f"{self.env_id}, reset: {raised_at(error)}{type(error).__name__}: {error}"
            ) from error
        return self._observation(obs, "reset")

    def step(self, action: Array, *, scaled: bool = True) -> Step:
        """Step all copies with actions [N, A], scaled to [-1, 1] or in the task's own units.

        Raises:
            UnsupportedEnvironment: The result has the wrong shape or is not finite.
        """
        self.steps += 1
        own = self.unscale(action) if scaled else action
        try:
            obs, reward, terminated, truncated, info = self.envs.step(own)
        except Exception as error:
            raise UnsupportedEnvironment(
                f"{self.env_id}, step {self.steps}: "
                f"{raised_at(error)}{type(error).__name__}: {error}"
            ) from error
        ended = np.asarray(terminated | truncated)
        self._check("reward", reward, (self.num_envs,))
        now = self._observation(obs, "observation")
        if not ended.any():
            return Step(now, _tensor(reward), _tensor(terminated), ended, now, info)
        final = np.asarray(obs, np.float32).copy()
        final[ended] = np.stack(list(info["final_obs"][ended]))
        next_obs = self._observation(final, "final observation")
        return Step(next_obs, _tensor(reward), _tensor(terminated), ended, now, info)

    def unscale(self, action: Array) -> Array:
        """Actions in [-1, 1] -> the environment's own units and dtype."""
        return unscaled(action, self.action_low, self.action_high, self.action_dtype)

    def close(self) -> None:
        """Close the environment."""
        self.envs.close()

    def _observation(self, obs: Array, what: str) -> Tensor:
        self._check(what, obs, (self.num_envs, self.observation_size))
        return _tensor(obs)

    def _check(self, what: str, value: Array, shape: tuple[int, ...]) -> None:
        with np.errstate(over="ignore"):  # float32 overflow becomes inf and is reported below
            value = np.asarray(value, np.float32)
        where = f"{self.env_id}, step {self.steps}"
        if value.shape != shape:
            raise UnsupportedEnvironment(
                f"{where}: the {what} has shape {value.shape}, expected {shape}"
            )
        finite = np.isfinite(value).reshape(self.num_envs, -1).all(1)
        if not finite.all():
            raise UnsupportedEnvironment(
                f"{where}: the {what} of copy {int(np.argmin(finite))} is not finite"
            )


class _CheckedCopy(gymnasium.Wrapper[Any, Any, Any, Any]):
    """One copy of a user's environment; errors about observation shapes name the copy.

    ``info`` is reduced to its scalar numbers, as floats, and the position: Gymnasium stores the
    values of all copies in an array of the type that the first copy reports, or of objects.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], copy: int) -> None:
        super().__init__(env)
        self.copy = copy

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Reset the environment."""
        obs, info = self.env.reset(**kwargs)
        return obs, _numbers(info)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step the environment and check the shape of its observation."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        if np.shape(obs) != self.observation_space.shape:
            raise ValueError(
                f"copy {self.copy} returned an observation of shape {np.shape(obs)}, "
                f"its space says {self.observation_space.shape}"
            )
        return obs, reward, terminated, truncated, _numbers(info)


def _numbers(info: dict[str, Any]) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for name, value in info.items():
        if not isinstance(name, str):
            continue
        if isinstance(value, bool | int | float | np.bool_ | np.integer | np.floating):
            told[name] = float(value)
        elif is_numeric(value) and (value.ndim == 0 or name == "position"):
            told[name] = value.astype(np.float64)
    return told


def is_numeric(value: Any) -> bool:
    """Whether a value is an array of numbers or booleans."""
    return isinstance(value, np.ndarray) and value.dtype.kind in "fbiu"


# Wrappers added by `gymnasium.make` and by this module.
_TRANSPARENT = (TimeLimit, OrderEnforcing, PassiveEnvChecker, _CheckedCopy)


def unscaled(action: Array, low: Array, high: Array, dtype: DTypeLike) -> Array:
    """Actions [..., A] in [-1, 1] -> between ``low`` and ``high`` [A], as ``dtype``."""
    share = (np.asarray(action, np.float64) + 1.0) * 0.5
    own: Array = low + share * (high - low)
    return own.clip(low, high).astype(dtype)


TaskLike = Task | Layout | str | gymnasium.Env[Any, Any] | VectorEnv[Any, Any, Any]


def layout_of(task: TaskLike) -> Layout:
    """The layout of a task, of an environment id, or of an environment instance.

    Raises:
        UnsupportedEnvironment: The id is unknown, or its spaces are not supported.
    """
    if isinstance(task, str):
        made = Task(task, 1)
        made.close()
        return layout_of(made)
    if isinstance(task, gymnasium.Env | VectorEnv):
        obs, action = task.observation_space, task.action_space
        if isinstance(task, VectorEnv):
            obs, action = task.single_observation_space, task.single_action_space
        name = task.spec.id if task.spec else type(task.unwrapped).__name__
        if isinstance(task.unwrapped, AsyncVectorEnv):  # its copies are in other processes
            with closing(task.unwrapped.env_fns[0]()) as one:
                _check_wrappers(name, one)
                return _declared(name, obs, action, one.unwrapped)
        _check_wrappers(name, task if isinstance(task, gymnasium.Env) else _first(task.unwrapped))
        return _declared(name, obs, action, _declaring(task))
    if not hasattr(task, "env_id"):
        raise UnsupportedEnvironment(
            f"a task is a Gymnasium id or environment, single or vectorised, not {task!r}"
        )
    return Layout(
        task.env_id, task.observation_blocks, task.action_low, task.action_high, task.model_hash
    )


def _declaring(env: gymnasium.Env[Any, Any] | VectorEnv[Any, Any, Any]) -> Any:
    """The object that declares blocks, model hash etc.: the unwrapped environment or first copy."""
    return _first(env.unwrapped).unwrapped


def _first(envs: Any) -> Any:
    """The first copy if this module vectorised the environment, else the environment itself."""
    return envs.envs[0] if isinstance(envs, SyncVectorEnv) else envs


def _outermost(envs: VectorEnv[Any, Any, Any]) -> Any:
    """The object that declares symmetries: the outermost wrapper that can change the task.

    A wrapper that preserves the symmetries of the environment inside must declare them itself.
    """
    return next(env for env in _chain(_first(envs)) if not isinstance(env, _TRANSPARENT))


def _chain(env: Any) -> Iterator[Any]:
    """An environment from its outermost wrapper to the unwrapped one."""
    yield env
    while isinstance(env, gymnasium.Wrapper):
        env = env.env
        yield env


def _check_wrappers(env_id: str, outermost: Any) -> None:
    """Raise if observations depend on statistics that a skill file cannot hold."""
    for env in _chain(outermost):
        if isinstance(env, NormalizeObservation) and env.update_running_mean:
            raise UnsupportedEnvironment(
                f"{env_id} observes through NormalizeObservation, whose running statistics are "
                "not in a skill file: elsewhere the skill would see other numbers than it learned "
                "with. Scale by constants instead (TransformObservation of gymnasium.wrappers), "
                "or set the wrapper's statistics and update_running_mean = False"
            )


def _declared(
    env_id: str, obs: gymnasium.Space[Any], action: gymnasium.Space[Any], source: Any
) -> Layout:
    """The layout given by the spaces and by the environment's declarations, if any."""
    _check_spaces(env_id, obs, action)
    assert isinstance(action, gymnasium.spaces.Box)
    size = int(obs.shape[0])  # type: ignore[index]
    blocks = getattr(source, "observation_blocks", ())
    try:
        declared = sum(int(count) for _, count in blocks)
    except (TypeError, ValueError) as error:
        raise UnsupportedEnvironment(
            f"{env_id} declares observation_blocks {blocks}; they are pairs of a name and a size, "
            "as in (('velocity', 3), ('place', 2))"
        ) from error
    if declared != size:  # no blocks are declared, or a wrapper changed the observation
        own = getattr(source, "single_observation_space", source.observation_space)
        if blocks and own.shape == obs.shape:
            raise UnsupportedEnvironment(
                f"{env_id} declares observation_blocks {blocks}; its observation has {size} numbers"
            )
        blocks = (("observation", size),)
    model_hash: Any = getattr(source, "model_hash", None)
    try:
        named = tuple(ObservationBlock(name=name, size=int(count)) for name, count in blocks)
        if len({block.name for block in named}) < len(named):
            raise UnsupportedEnvironment(
                f"{env_id} declares observation_blocks {blocks}: each needs a name of its own"
            )
        model_hash = TypeAdapter(Sha256 | None).validate_python(model_hash)
    except ValidationError as error:
        raise UnsupportedEnvironment(
            f"{env_id} has observation_blocks {blocks} and model_hash {model_hash!r}: names "
            "consist of letters, digits and _.-, a block has at most 65,536 numbers (no images), "
            "the hash is a SHA-256 in hexadecimal"
        ) from error
    low, high = action.low.astype(np.float64), action.high.astype(np.float64)
    return Layout(env_id, named, low, high, model_hash)


def _made(env_id: str, num_envs: int, kwargs: dict[str, Any]) -> VectorEnv[Any, Any, Any]:
    """Copies with same-step autoreset: the environment's own vector version, or a SyncVectorEnv."""
    if gymnasium.spec(env_id).vector_entry_point is not None:
        how = "vector_entry_point"
        envs = gymnasium.make_vec(env_id, num_envs, vectorization_mode=how, **kwargs)
        if envs.metadata.get("autoreset_mode") == AutoresetMode.SAME_STEP:
            return envs
        envs.close()
    copies = itertools.count()
    return gymnasium.make_vec(
        env_id,
        num_envs,
        vectorization_mode="sync",
        vector_kwargs={"autoreset_mode": AutoresetMode.SAME_STEP},
        wrappers=[lambda env: _CheckedCopy(env, next(copies))],
        **kwargs,
    )


def _unknown(env_id: str, error: Exception) -> str:
    """For a keyword that the environment does not take, say so and which it takes; else empty."""
    found = re.search(r"unexpected keyword argument '(\w+)'", str(error))
    if found is None or not isinstance(error, TypeError):
        return ""
    spec, wrong = gymnasium.spec(env_id), found[1]
    entry: Any = spec.vector_entry_point or spec.entry_point
    creator: Any = load_env_creator(entry) if isinstance(entry, str) else entry
    classes: tuple[Any, ...] = inspect.getmro(creator) if inspect.isclass(creator) else ()
    makers = [vars(c)["__init__"] for c in classes if "__init__" in vars(c)] or [creator]
    known = {"max_episode_steps"}
    for maker in makers:
        parameters = inspect.signature(maker).parameters.values()
        for one in parameters:
            # What a base class requires is given by the class that inherits it.
            if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY) and (
                maker is makers[0] or one.default is not one.empty
            ):
                known.add(one.name)
        if not any(one.kind == one.VAR_KEYWORD for one in parameters):
            own = sorted(name for name in known if not says_how_it_runs(env_id, name))
            listed = f"{did_you_mean(wrong, own)} There is: {', '.join(own)}"
            # Else the keyword was passed on to where no signature shows it.
            raised_here = f"{maker.__qualname__}() got" in str(error)
            return f"it has no '{wrong}'.{listed}" if raised_here else ""
    return ""


def _check_spaces(env_id: str, obs: gymnasium.Space[Any], action: gymnasium.Space[Any]) -> None:
    box = gymnasium.spaces.Box
    if not isinstance(obs, box) or len(obs.shape) != 1 or not obs.shape[0]:
        raise UnsupportedEnvironment(
            f"{env_id} has observations {obs}; skills need a one-dimensional Box of some numbers "
            "(gymnasium.wrappers.FlattenObservation makes one of a Dict or an image)"
        )
    if (
        not isinstance(action, box)
        or len(action.shape) != 1
        or not action.shape[0]
        or not np.issubdtype(action.dtype, np.floating)
    ):
        raise UnsupportedEnvironment(
            f"{env_id} has actions {action}; soft Q-learning here needs a one-dimensional Box "
            "of real numbers, as in Pendulum-v1"
        )
    if not (np.isfinite(action.low).all() and np.isfinite(action.high).all()):
        raise UnsupportedEnvironment(
            f"{env_id} has unbounded actions {action}; give its action_space finite bounds, as "
            "TransformAction(env, lambda action: action, Box(low, high)) of gymnasium.wrappers "
            "does (ClipAction removes them: leave it out)"
        )
    if not (action.low < action.high).all():
        raise UnsupportedEnvironment(
            f"{env_id} has actions {action} with a component whose bounds are equal: remove it"
        )


def _symmetry(declared: Any) -> Symmetry:
    """A symmetry as an environment declares it (``envs.symmetry``)."""
    return Symmetry(
        name=declared.name,
        obs_index=tuple(np.asarray(declared.observation_index).tolist()),
        obs_sign=_signs(declared.observation_sign),
        action_index=tuple(np.asarray(declared.action_index).tolist()),
        action_sign=_signs(declared.action_sign),
    )


def _missing_from_group(symmetries: Sequence[Symmetry]) -> str:
    """What a list of symmetries lacks to be a group; empty if it is one, or if there are none."""
    signed = [
        [  # each as new = old[index] * sign, of observation and action side by side
            np.array((*one.obs_index, *(len(one.obs_index) + i for i in one.action_index))),
            np.array((*one.obs_sign, *one.action_sign)),
        ]
        for one in symmetries
    ]
    known = {(index.tobytes(), sign.tobytes()) for index, sign in signed}
    for one, (index, sign) in zip(symmetries, signed, strict=True):
        for then, (index_2, sign_2) in zip(symmetries, signed, strict=True):
            both = (index[index_2].tobytes(), (sign[index_2] * sign_2).tobytes())
            if both not in known:
                again = "twice" if one is then else f"and then '{then.name}'"
                return f"'{one.name}' {again}, which may be the identity,"
    return ""


def _signs(values: Any) -> tuple[Literal[-1, 1], ...]:
    signs = np.asarray(values)
    if not np.isin(signs, (-1, 1)).all():
        raise ValueError(f"signs {signs.tolist()}")
    return tuple(1 if value > 0 else -1 for value in signs)


def _tensor(value: Array) -> Tensor:
    return torch.from_numpy(np.array(value, dtype=np.float32))
