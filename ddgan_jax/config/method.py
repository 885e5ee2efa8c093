"""Say which method a config trains."""

from ml_collections import ConfigDict


def method_title(config: ConfigDict) -> str:
    """Return the method's name as its paper writes it: "DDGAN", "SIDDM" or "WaveDiff"."""
    o = config.objective
    # The losses of both others contain DDGAN's: with pairs, and without their own terms, they are
    # the same.
    if not o.joint or o.afd_weight or o.denoising_weight:
        return "SIDDM"
    return "WaveDiff" if o.reconstruction_weight else "DDGAN"
