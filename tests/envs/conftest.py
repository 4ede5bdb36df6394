"""Makes skillbank's ids known to Gymnasium."""

import skillbank.envs

skillbank.envs.register()
