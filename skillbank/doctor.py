"""What this machine has, and what is known not to work."""

import os
import platform
import re
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

PACKAGES = (
    "skillbank",
    "torch",
    "mujoco",
    "dm-control",
    "gymnasium",
    "numpy",
    "scipy",
    "h5py",
    "pydantic",
    "matplotlib",
    "imageio",
    "tensorboard",
)

# Installed on request: what a package is needed for, and the extra that has it.
OPTIONAL = {
    "onnx": ("export", "skills exported as ONNX"),
    "fsspec": ("remote", "banks elsewhere: push and pull"),
    "s3fs": ("remote", "banks on S3"),
    "stable-baselines3": ("baselines", "DDPG and SAC beside ours in studies"),
    "ray": ("ray", "studies on a cluster"),
}


class Check(NamedTuple):
    """One line of the report."""

    name: str
    found: str
    problem: str | None = None  # what is wrong, and what would help


def examine(bank: Path) -> list[Check]:
    """Look at versions, threads, simulation, rendering and the bank's folder."""
    found = {name: _version(name) for name in PACKAGES}
    checks = [Check("python", f"{platform.python_version()} on {platform.platform()}")]
    checks += [
        Check(name, found[name] or "-", known_problem(name, found[name])) for name in PACKAGES
    ]
    checks += [_optional(name) for name in OPTIONAL]
    checks.append(_threads())
    checks += _simulation()
    checks.append(_folder(bank))
    return checks


def known_problem(name: str, found: str | None) -> str | None:
    """What is known to be wrong with a version of a package."""
    if found is None:
        return f"not installed: pip install {name}"
    if name == "mujoco" and not (3, 17) <= _numbers(found) < (4,):
        return (
            "dm-control 1.0.50 works with mujoco 3.17: 4.0 lacks what it needs and older ones have "
            "no mujoco.batch; pip install 'mujoco>=3.17,<4'"
        )
    if name == "dm-control" and _numbers(found) < (1, 0, 50):
        return "older than the tested 1.0.50; pip install 'dm-control>=1.0.50,<2'"
    return None


def folder_problem(folder: Path) -> str | None:
    """Why nothing can be written to a folder, which need not exist yet; None if all is well."""
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"x")
    except OSError as error:
        return f"cannot write to {folder}: {error.strerror or error}"
    return None


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _optional(name: str) -> Check:
    """Whether it is there; that it is not is no problem."""
    extra, brings = OPTIONAL[name]
    return Check(name, _version(name) or f"not installed; 'skillbank[{extra}]' brings {brings}")


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", text.split("+", maxsplit=1)[0])[:3])


def _threads() -> Check:
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    devices = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    return Check("threads", f"{cores} cores, devices {', '.join(devices)}")


def _simulation() -> list[Check]:
    """Step one small task and draw it."""
    import gymnasium

    try:
        env = gymnasium.make("skillbank/PointMassRun-v0", render_mode="rgb_array")
        env.reset(seed=0)
        env.step(env.action_space.sample())
    except (RuntimeError, AttributeError, ImportError, OSError, gymnasium.error.Error) as error:
        return [Check("simulation", "-", f"does not run: {type(error).__name__}: {error}")]
    checks = [Check("simulation", "runs")]
    try:
        env.render()
        checks.append(Check("rendering", "works"))
    except (RuntimeError, ImportError, OSError) as error:
        checks.append(Check("rendering", "-", str(error)))
    env.close()
    return checks


def _folder(bank: Path) -> Check:
    return Check("bank", str(bank), folder_problem(bank))
