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

# What is installed only where it is asked for: the package behind each extra, and what it brings.
EXTRAS = {
    "baselines": ("stable-baselines3", "DDPG and SAC in studies"),
    "export": ("onnx", "export to ONNX"),
    "ray": ("ray", "studies on a cluster"),
    "remote": ("s3fs", "banks elsewhere, push and pull"),
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
    checks += [_extra(extra, *what) for extra, what in EXTRAS.items()]
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


def _extra(extra: str, package: str, brings: str) -> Check:
    """No problem if it is missing: not everybody wants it."""
    found = _version(package)
    missing = f"not there; pip install 'skillbank[{extra}]' brings {brings}"
    return Check(f"[{extra}]", missing if found is None else f"{package} {found}")


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
