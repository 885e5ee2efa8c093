"""WaveDiff's networks, sampler and checkpoint against numbers of the reference.

The functions that check a case are those of DDGAN. Gradients and training runs of both programs are
in test_golden_gradients.py and test_golden_training.py.
"""

import jax
import numpy as np
import pytest

from ddgan_jax import haar, models
from ddgan_jax.interop import nvlabs, pytorch_files
from tests import golden_cases as golden
from tests import test_golden as ddgan

CASES = "wavediff/"
# As in test_golden.py.
IN_FLOAT32 = {f"{CASES}{name}" for name in ("wg01_default", "wd01_small_l3_b4", "wd03_large_l5_b4")}


@pytest.mark.parametrize("name", golden.wavediff_names("wg"))
def test_generator(name):
    ddgan.check_generator(golden.load(name), float32=name in IN_FLOAT32)


@pytest.mark.parametrize("name", golden.wavediff_names("wd"))
def test_discriminator(name):
    ddgan.check_discriminator(golden.load(name), float32=name in IN_FLOAT32)


def test_every_module_of_a_generator():
    """The output of each module in the order of the calls, and the bands that each level keeps.

    The second block of the middle is called twice: on all of its features, then on their low band.
    """
    case = golden.load(f"{CASES}wg02_three_levels")
    rows, kept, latent = module_statistics(case)
    arrays = case.arrays
    assert [position for position, _ in rows] == list(arrays["mod_idx"])
    tables = (([row for _, row in rows], "mod_stat"), (kept, "high_stat"), ([latent], "zemb_stat"))
    for ours, table in tables:
        reference = arrays[table].reshape(-1, 7)
        ours = np.reshape(ours, reference.shape)
        for row, expected in zip(ours, reference, strict=True):
            assert golden.relative_error(row, expected) < ddgan.FLOAT64_TOLERANCE


def module_statistics(case):
    """[(official position, statistics of the output)], statistics of bands, of the latent's map."""
    config, shape = case.config(), case.diffused_shape()
    params = nvlabs.import_generator(case.state_dict("generator"), config)
    x, z = case.normal("x", shape), case.normal("z", (shape[0], config.generator.latent_dim))
    generator = models.build_generator(config)

    def capture(params, x, z):
        # Modules of the network itself, whose paths have one name.
        outputs = generator.apply(
            {"params": params},
            x,
            case.arrays["t"],
            z,
            capture_intermediates=lambda m, method: method == "__call__" and len(m.path) == 1,
        )[1]["intermediates"]
        return {name: calls["__call__"] for name, calls in outputs.items()}

    ((_, outputs),) = golden.in_both_precisions(capture, params, x, z, float32=False)
    (latent,) = outputs.pop("latent_mapping")
    rows, kept = [], {}
    for name, names in nvlabs.generator_names(config).items():
        if name not in outputs:
            continue
        position = int(jax.tree.leaves(names)[0].split(".")[1])
        for out in outputs[name]:
            if isinstance(out, tuple):
                out, details = out
                kept[position] = [statistics(band) for band in details]
            rows.append((position, statistics(out)))
    by_position = [kept[position] for position in sorted(kept)]
    return sorted(rows, key=lambda row: row[0]), by_position, statistics(latent)


def statistics(out):
    return golden.tensor_statistics(golden.channels_first(out) if out.ndim == 4 else out)


def test_sampler():
    """The chain in the space of bands, and the images that its end is, in both orders of bands."""
    case = golden.load(f"{CASES}ws01_sampler_T4")
    ddgan.check_chain(case)
    last = case.arrays["x_last"].transpose(0, 2, 3, 1)
    for name, order in {"matrix": "lh_hl", "pw": "hl_lh"}.items():
        with jax.enable_x64(True):
            image = (np.clip(haar.Bands(order).decode(last), -1, 1) + 1) / 2
        image, reference = golden.channels_first(image), case.arrays[f"image_{name}"]
        error = golden.relative_error(golden.strided(image, reference), reference)
        assert error < ddgan.SAME_COEFFICIENTS


def test_published_checkpoint():
    """A file as it is published, whose tensors share storages."""
    content = pytorch_files.read(golden.FOLDER / CASES / "wnetG_tiny.pth")
    ddgan.check_published_generator(golden.load(f"{CASES}wnetG_tiny"), content)
