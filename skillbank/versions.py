"""The package versions that are recorded in a skill."""

from importlib.metadata import version


def versions() -> dict[str, str]:
    """Versions of the packages that training results depend on, by distribution name."""
    return {name: version(name) for name in ("skillbank", "torch", "mujoco", "gymnasium", "numpy")}
