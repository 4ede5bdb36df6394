"""The versions that a skill was made with."""

from importlib.metadata import version


def versions() -> dict[str, str]:
    """Versions of what a skill's numbers depend on, by distribution name."""
    return {name: version(name) for name in ("skillbank", "torch", "mujoco", "gymnasium", "numpy")}
