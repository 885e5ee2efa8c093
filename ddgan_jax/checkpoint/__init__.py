"""Keep the checkpoints of a run: written in the background, verified when read.

After the first there is always a whole one.

The folder of a run's checkpoints holds one folder per step, named by the number:

    300/state/     all arrays of the train state but the EMA, {"generator/params/...": array}
    300/ema/       {"generator": {"ema_params": ...}}, all that sampling reads
    300/config/    the resolved config, JSON
    300/manifest/  dtype, shape and CRC-32 of every array, CRC-32 of the config, JSON

Three properties of Orbax, which does the storing, shape this file. It writes a step into a
temporary folder and renames it when complete, so a kill at any instant leaves the step before.
It returns damaged bytes without a word, hence the manifest: each array is checked on the host
after reading. It ties device arrays to the devices that saved them, hence host arrays: the state
is the same on every device, and a checkpoint restores onto any number of them.
"""

from ddgan_jax.checkpoint.reading import list_steps, load_ema, load_state
from ddgan_jax.checkpoint.writing import Checkpoints

__all__ = ["Checkpoints", "list_steps", "load_ema", "load_state"]
