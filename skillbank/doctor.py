"""Checks of an installation: versions, simulation, rendering, and the bank's folder."""

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

# Optional extras: the package behind each, and what it provides.
EXTRAS = {
    "baselines": ("stable-baselines3", "DDPG and SAC in studies"),
    "export": ("onnx", "export to ONNX"),
    "ray": ("ray", "studies on a cluster"),
    "remote": ("s3fs", "remote banks, push and pull"),
}


class Check(NamedTuple):
    """One line of the report."""

    name: str
    found: str
    problem: str | None = None  # what is wrong, and what would help


def examine(bank: Path) -> list[Check]:
    """Check versions, threads, simulation, rendering and the bank's folder."""
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
    """Known problem of a version of a package; None if there is none."""
    if found is None:
        return f"not installed: pip install {name}"
    if name == "mujoco" and not (3, 17) <= _numbers(found) < (4,):
        return (
            "dm-control 1.0.50 needs mujoco 3.17 or newer, below 4: 4.0 lacks what it needs, older "
            "versions have no mujoco.batch; pip install 'mujoco>=3.17,<4'"
        )
    if name == "dm-control" and _numbers(found) < (1, 0, 50):
        return "older than the tested 1.0.50; pip install 'dm-control>=1.0.50,<2'"
    return None


def folder_problem(folder: Path) -> str | None:
    """Why a folder is not writable; None if it is. It need not exist yet."""
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
    """Report an optional extra; a missing one is not a problem."""
    found = _version(package)
    missing = f"not installed; pip install 'skillbank[{extra}]' provides {brings}"
    return Check(f"[{extra}]", missing if found is None else f"{package} {found}")


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", text.split("+", maxsplit=1)[0])[:3])


def cores() -> int:
    """How many processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _threads() -> Check:
    import torch

    devices = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    return Check("threads", f"{cores()} cores, devices {', '.join(devices)}")


def _simulation() -> list[Check]:
    """Simulate and render one step of a small task."""
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
