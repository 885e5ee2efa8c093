"""Speed of the data pipeline alone: batches of uint8 images in host memory, as training reads them.

    python -m benchmarks.input_pipeline --config=configs/digits_ddgan.py
    python -m benchmarks.input_pipeline --config=configs/digits_ddgan.py \\
        --config.data.memory_limit_mib=0

A set that fits data.memory_limit_mib is read from memory, any other one (the second command)
from its files, decoded on the way. Prints one JSON object; benchmarks/README.md explains its
fields.
"""

import sys
from contextlib import closing

from absl import flags

from benchmarks import command, measure
from ddgan_jax import data
from ddgan_jax.config import ConfigDict
from ddgan_jax.config.checks import validate
from ddgan_jax.data.datasets import RecordDataset

# No baseline: between turns the pipeline would read ahead, and the next turn look too fast.
FLAGS = ()


def benchmark(values: flags.FlagValues, config: ConfigDict) -> measure.Report:
    """Return the fields of the report. Raises UserError if the data set cannot be read."""
    validate(config)
    dataset, batch_size = data.open_dataset(config), config.train.batch_size
    stream = data.batches(dataset, batch_size=batch_size, seed=config.train.seed, start_step=0)
    with closing(stream):
        read = measure.Program(call=lambda: next(stream), images=batch_size)
        return {
            "batch_size": batch_size,
            "num_examples": dataset.info.num_examples,
            "source": "files" if isinstance(dataset, RecordDataset) else "memory",
            **measure.measure({"read": read}, values.repeats),
        }


if __name__ == "__main__":
    sys.exit(command.main("input_pipeline", __doc__, FLAGS, benchmark))
