"""Gradients of both networks, of R1 and of WaveDiff's term against numbers of the reference.

tests/golden/README.md describes the files.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddgan_jax import losses, models
from ddgan_jax.interop import nvlabs
from ddgan_jax.state import Judgement
from tests import golden_cases as golden
from tests.test_golden import FLOAT32_FACTOR, FLOAT64_TOLERANCE, check

every_case = pytest.mark.parametrize("name", ["b01_gradients", "wavediff/wb01_gradients"])


def check_images(dtype, case, images):
    """Gradients of the inputs."""
    for name, ours in images.items():
        ours = golden.strided(golden.channels_first(ours), case.arrays[name])
        check(dtype, ours, case.arrays[name], case.meta["f32_max_abs_dev"][name])


def check_table(dtype, case, names, gradients, table):
    """Sum, absolute sum and first values of each gradient, relative to the largest of them.

    A few gradients are zero by symmetry (of a key's bias, which the softmax ignores): what is
    left there is rounding, bounded by a small part of the whole table's largest entry.
    """
    keys = case.arrays["g_keys" if "all_modules" in jax.tree.leaves(names)[0] else "d_keys"]
    tensors = dict(zip(jax.tree.leaves(names), jax.tree.leaves(gradients), strict=True))
    reference, errors = case.arrays[table], case.meta["f32_max_abs_dev"]
    relative, absolute = FLOAT64_TOLERANCE, 1e-14 * np.abs(reference).max()
    if dtype == np.float32 and f"{table}_rel" in errors:
        relative = FLOAT32_FACTOR * errors[f"{table}_rel"]
        absolute = 1e-7 * np.abs(reference).max()
    elif dtype == np.float32:
        relative, absolute = 0.0, FLOAT32_FACTOR * errors[table]
    for key, row in zip(keys, reference, strict=True):
        ours = golden.tensor_statistics(golden.official_layout(key, tensors[key]))
        atol = relative * np.abs(row).max() + absolute
        np.testing.assert_allclose(ours, row, rtol=0, atol=atol, err_msg=f"{table} {key}")


@every_case
def test_generator_gradients(name):
    """Of a weighted sum of the output and, in WaveDiff's case, of the reconstruction term."""
    case = golden.load(name)
    config, shape = case.config(), case.diffused_shape()
    params = nvlabs.import_generator(case.state_dict("generator"), config)
    x, z = case.normal("x", shape), case.normal("z", (shape[0], config.generator.latent_dim))
    losses_of = {"g": lambda out, target: (out * target).sum()}
    targets, value_names = {"g": case.normal("r", shape)}, {"g": "g_loss", "rec": "rec"}
    if "rec" in case.arrays:
        losses_of["rec"] = lambda out, y_0: jnp.abs(out - y_0).mean()
        targets["rec"] = case.uniform("y0", shape)

    def values_and_gradients(params, x, z, targets):
        def generate(params, x, z):
            return models.build_generator(config).apply({"params": params}, x, case.arrays["t"], z)

        out, pull_back = jax.vjp(generate, params, x, z)
        values, cotangents = zip(
            *(jax.value_and_grad(losses_of[kind])(out, targets[kind]) for kind in targets),
            strict=True,
        )
        # One program for the way back of all losses.
        return values, jax.lax.map(pull_back, jnp.stack(cotangents))

    for dtype, (values, gradients) in golden.in_both_precisions(
        values_and_gradients, params, x, z, targets
    ):
        for i, kind in enumerate(targets):
            value_name, errors = value_names[kind], case.meta["f32_max_abs_dev"]
            check(dtype, values[i], case.arrays[value_name], errors[value_name])
            g_params, g_x, g_z = jax.tree.map(lambda leaf, i=i: leaf[i], gradients)
            check_images(dtype, case, {f"{kind}_dx": g_x})
            if kind == "g":
                check(dtype, g_z, case.arrays["g_dz"], errors["g_dz"])
            check_table(dtype, case, nvlabs.generator_names(config), g_params, f"{kind}_par")


@every_case
def test_discriminator_and_r1_gradients(name):
    case = golden.load(name)
    arrays, errors, config = case.arrays, case.meta["f32_max_abs_dev"], case.config()
    params = nvlabs.import_discriminator(case.state_dict("discriminator"), config)
    x, x_tp1 = (case.normal(name, case.diffused_shape()) for name in ("x", "x_tp1"))

    def losses_and_gradients(params, x, x_tp1):
        def logits(params, x, x_tp1):
            apply = models.build_discriminator(config).apply
            return apply({"params": params}, x, arrays["t"], x_tp1)

        def real_loss(*inputs):
            return jax.nn.softplus(-logits(*inputs)).mean()

        def penalty(params):
            penalty, judgement = losses.r1_penalty(lambda x: Judgement(logits(params, x, x_tp1)), x)
            return case.meta["gamma"] * penalty, judgement.logits

        loss, gradients = jax.value_and_grad(real_loss, (0, 1, 2))(params, x, x_tp1)
        (r1, out), r1_params = jax.value_and_grad(penalty, has_aux=True)(params)
        r1_x = jax.grad(lambda x: logits(params, x, x_tp1).sum())(x)
        scalars = {"d_out": out, "d_loss": loss, "r1": r1}
        images = {"d_dx": gradients[1], "d_dxtp1": gradients[2], "r1_grad_x": r1_x}
        return scalars, images, {"d_par": gradients[0], "r1_par": r1_params}

    for dtype, (scalars, images, tables) in golden.in_both_precisions(
        losses_and_gradients, params, x, x_tp1
    ):
        for name, ours in scalars.items():
            check(dtype, ours, arrays[name], errors[name])
        check_images(dtype, case, images)
        names = nvlabs.discriminator_names(config)
        for name, ours in tables.items():
            check_table(dtype, case, names, ours, name)
        # These parameters do not move the logits' gradient: exactly none, not a small one.
        ours = dict(zip(jax.tree.leaves(names), jax.tree.leaves(tables["r1_par"]), strict=True))
        assert all(not ours[key].any() for key in arrays["r1_no_grad_keys"])
