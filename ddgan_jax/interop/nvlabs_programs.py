"""Describe the programs whose checkpoints are imported alike: DDGAN's, and WaveDiff's, its child.

They save the same files, in which the modules of the networks have the same names. They differ in
their options, which decide the networks and the diffusion.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from ddgan_jax.interop import nvlabs_options, wavediff_options


class Program(NamedTuple):
    """A published training program.

    repository: where it is published. licence: what is known of that of its published weights.
    published: the options of its published runs, by a name of ours. read_options, config_from_args,
    check_config: as those of `nvlabs_options`. must_be_given: options that files of options have to
    give, since a wrong one would go unnoticed.
    """

    repository: str
    licence: str
    published: Mapping[str, Mapping[str, Any]]
    read_options: Callable[[Any], dict[str, Any]]
    config_from_args: Callable[[Any], ConfigDict]
    check_config: Callable[[ConfigDict], None]
    must_be_given: tuple[str, ...] = ()


DDGAN = Program(
    repository="NVlabs/denoising-diffusion-gan",
    licence="not stated; the published weights of this code are for non-commercial use only",
    published=nvlabs_options.PUBLISHED,
    read_options=nvlabs_options.read_options,
    config_from_args=nvlabs_options.config_from_args,
    check_config=nvlabs_options.check_config,
)
WAVEDIFF = Program(
    repository="VinAIResearch/WaveDiff",
    licence="not stated; the code that published weights come from is under the AGPL-3.0",
    published=wavediff_options.PUBLISHED,
    read_options=wavediff_options.read_options,
    config_from_args=wavediff_options.config_from_args,
    check_config=wavediff_options.check_config,
    # Weights fit both orders of the bands, and the wrong one draws images that are almost right.
    must_be_given=("use_pytorch_wavelet",),
)
# By the word for the program in the command that imports its checkpoints.
PROGRAMS: Mapping[str, Program] = {"nvlabs": DDGAN, "wavediff": WAVEDIFF}
