"""Every task of skillbank as a Gymnasium environment, single and vectorised.

Importing this package is cheap: neither MuJoCo nor dm_control is loaded before an environment is
made. `register()` registers every id with Gymnasium, after which both of these work:

    gymnasium.make("skillbank/QuadrupedRun-v0")
    gymnasium.make_vec("skillbank/QuadrupedRun-v0", num_envs=16, num_threads=2)
"""

from .registry import ENV_IDS, register

__all__ = ["ENV_IDS", "register"]
