"""Define the methods: the losses of each for its two networks, as the papers write them.

A method is an `Objective`: networks that are handed in, and three pure functions, `draw`,
`discriminator_loss` and `generator_loss`. The train step knows nothing else of it. A further method
is a file in this folder and one line here.
"""

from ddgan_jax.methods.ddgan import DDGAN
from ddgan_jax.methods.objective import Objective
from ddgan_jax.methods.siddm import SIDDM
from ddgan_jax.methods.wavediff import WaveDiff

METHODS: dict[str, type[Objective]] = {"ddgan": DDGAN, "siddm": SIDDM, "wavediff": WaveDiff}

__all__ = ["DDGAN", "METHODS", "SIDDM", "Objective", "WaveDiff"]
