"""Networks, schedules, posterior, sampler and gradients against numbers of the reference.

Every case is computed in float64, where only the order of additions differs, and some of them in
float32, where ten times the reference's own rounding error is allowed. tests/golden/README.md
describes the files.
"""

import jax
import numpy as np
import pytest

from ddgan_jax import build, diffusion, losses, models, sampling, schedules
from ddgan_jax.errors import UserError
from ddgan_jax.interop import nvlabs
from ddgan_jax.models import layers
from ddgan_jax.state import Judgement
from tests import golden_cases as golden

FLOAT64_TOLERANCE = 1e-9  # relative to the largest entry; 1e-14 is reached
SAME_COEFFICIENTS = 1e-12  # where ours and the reference's float32 coefficients must be equal
FLOAT32_FACTOR = 10  # times the reference's own largest float32 error


def check(dtype, ours, reference, float32_error, float64_tolerance=FLOAT64_TOLERANCE):
    """Ours, computed in dtype, against the float64 reference."""
    if dtype == np.float64:
        assert golden.relative_error(ours, reference) < float64_tolerance
    else:
        np.testing.assert_allclose(ours, reference, rtol=0, atol=FLOAT32_FACTOR * float32_error)


def check_fill(case, network, inputs):
    """Weights and inputs are those that the reference computed with."""
    weights = [value.astype(np.float64) for value in case.state_dict(network).values()]
    sums = [sum(w.sum() for w in weights), sum(np.abs(w).sum() for w in weights)]
    if "w_check" in case.arrays:
        np.testing.assert_allclose(sums, case.arrays["w_check"], rtol=1e-9)
    statistics = [
        golden.tensor_statistics(golden.channels_first(x) if x.ndim == 4 else x) for x in inputs
    ]
    np.testing.assert_allclose(statistics, case.arrays["in_check"], rtol=1e-9)


# ---- networks

# What float32 adds to the arithmetic, which float64 checks to nine digits, is rounding: that of all
# layers is in the smallest networks of each kind, how it grows with the depth in the full one.
IN_FLOAT32 = {"g01_default", "g06_fourier", "g20_cifar_full", "d01_small_b8", "d10_large_b4"}


@pytest.mark.parametrize("name", golden.names("gx"))
def test_generator(name):
    case = golden.load(name)
    config = case.config()
    shape = case.image_shape()
    x, z = case.normal("x", shape), case.normal("z", (shape[0], config.generator.latent_dim))
    check_fill(case, "generator", (x, z))
    params = nvlabs.import_generator(case.state_dict("generator"), config)

    def generate(params, x, z):
        return models.build_generator(config).apply({"params": params}, x, case.arrays["t"], z)

    stride = case.meta["out_stride"]
    for dtype, out in golden.in_both_precisions(generate, params, x, z, float32=name in IN_FLOAT32):
        out = golden.channels_first(out)
        assert out.dtype == dtype
        strided = out[..., ::stride, ::stride]
        check(dtype, strided, case.arrays["out"], case.meta["f32_max_abs_dev"])
        if dtype == np.float64:
            statistics = golden.tensor_statistics(out)
            assert golden.relative_error(statistics, case.arrays["out_stat"]) < FLOAT64_TOLERANCE


@pytest.mark.parametrize("name", golden.names("d"))
def test_discriminator(name):
    case = golden.load(name)
    config = case.config()
    x, x_tp1 = (case.normal(name, case.image_shape()) for name in ("x", "x_tp1"))
    check_fill(case, "discriminator", (x, x_tp1))
    params = nvlabs.import_discriminator(case.state_dict("discriminator"), config)

    def discriminate(params, x, x_tp1):
        apply = models.build_discriminator(config).apply
        return apply({"params": params}, x, case.arrays["t"], x_tp1)

    for dtype, logits in golden.in_both_precisions(
        discriminate, params, x, x_tp1, float32=name in IN_FLOAT32
    ):
        assert logits.dtype == dtype
        check(dtype, logits, case.arrays["out"][:, 0], case.meta["f32_max_abs_dev"])


def test_published_checkpoint_layout():
    """A state dict as it is published: float32, with the prefix of torch's parallel wrapper."""
    case = golden.load("netG_tiny")
    config = case.config()
    state_dict = case.state_dict("generator", np.float32)
    for key, row in zip(case.arrays["keys"], case.arrays["key_stat"], strict=True):
        np.testing.assert_allclose(golden.tensor_statistics(state_dict[key]), row, rtol=1e-6)
    prefixed = {f"module.{key}": value for key, value in state_dict.items()}
    params = nvlabs.import_generator(prefixed, config)
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(params))

    x, z = case.arrays["x"].transpose(0, 2, 3, 1), case.arrays["z"]
    with jax.default_matmul_precision("highest"):
        apply = jax.jit(models.build_generator(config).apply)
        out = apply({"params": params}, x, case.arrays["t"], z)
    error = case.meta["f32_max_abs_dev"]
    check(np.float32, golden.channels_first(out), case.arrays["out"], error)


# ---- diffusion


SCHEDULES = golden.load("s01_schedules")
# Name in the file -> field. The file's other arrays take no part in the method.
SCHEDULE_FIELDS = {
    "betas": "betas",
    "sigmas": "sigmas",
    "a_s": "sqrt_alphas",
    "a_s_cum": "sqrt_alphas_cumprod",
    "sigmas_cum": "sigmas_cumprod",
    "alphas_cumprod": "alphas_cumprod",
    "alphas_cumprod_prev": "alphas_cumprod_prev",
    "mean_coef1": "posterior_mean_coef1",
    "mean_coef2": "posterior_mean_coef2",
    "posterior_variance": "posterior_variance",
    "log_variance": "posterior_log_variance",
}


def schedule_of(meta):
    kind = "geometric" if meta["use_geometric"] else "vp"
    return schedules.discrete_schedule(kind, meta["T"], meta["beta_min"], meta["beta_max"])


@pytest.mark.quick
@pytest.mark.parametrize("tag", [t for t in SCHEDULES.meta["cases"] if t != "geo4_default"])
def test_schedule_bit_for_bit(tag):
    schedule = schedule_of(SCHEDULES.meta["cases"][tag])
    for name, field in SCHEDULE_FIELDS.items():
        reference, ours = SCHEDULES.arrays[f"{tag}.{name}"], getattr(schedule, field)
        assert ours.dtype == np.float32
        np.testing.assert_array_equal(ours, reference, err_msg=name)


@pytest.mark.quick
def test_schedule_that_is_not_a_number_is_refused():
    assert np.isnan(SCHEDULES.arrays["geo4_default.a_s"]).any()
    with pytest.raises(UserError, match="beta_max=20.0"):
        schedule_of(SCHEDULES.meta["cases"]["geo4_default"])


@pytest.mark.quick
@pytest.mark.parametrize("name", ["s02_pairs_posterior", "s03_pairs_posterior_geo2"])
def test_pairs_and_posterior(name):
    case = golden.load(name)
    n, c, h, w = case.meta["shape"]
    shape = (n, h, w, c)
    x_0, prediction = case.uniform("x0", shape), case.uniform("x0_pred", shape)
    noises = [case.normal(name, shape) for name in ("noise_t", "noise_tp1", "noise_post")]

    def chain(x_0, prediction, noise_t, noise_tp1, noise_post):
        step = schedule_of(case.meta).transition(case.arrays["t"])
        x_t, x_tp1 = diffusion.q_sample_pairs(step, x_0, noise_t, noise_tp1)
        x_pos = diffusion.posterior_sample(step, prediction, x_tp1, noise_post)
        return {"x_t": x_t, "x_tp1": x_tp1, "x_pos": x_pos}

    for dtype, results in golden.in_both_precisions(chain, x_0, prediction, *noises):
        for name, ours in results.items():
            reference, error = case.arrays[f"{name}_f64"], case.meta["f32_max_abs_dev"][name]
            check(dtype, golden.channels_first(ours), reference, error, SAME_COEFFICIENTS)


@pytest.mark.quick
def test_sampler():
    case = golden.load("s04_sampler_T4")
    config = case.config()
    shape = case.image_shape()
    times = range(config.diffusion.num_timesteps - 1, -1, -1)
    noise = sampling.Noise(
        x_T=case.normal("x_T", shape),
        z=np.stack([case.normal(f"z{t}", (shape[0], config.generator.latent_dim)) for t in times]),
        posterior=np.stack([case.normal(f"noise{t}", shape) for t in times]),
    )
    params = nvlabs.import_generator(case.state_dict("generator"), config)
    denoise = build.sampler(config).denoise
    labels = np.zeros(shape[0], np.int32)
    for dtype, (x, x_0) in golden.in_both_precisions(denoise, params, noise, labels):
        error = case.meta["f32_max_abs_dev"]
        x_last = golden.channels_first(x[-1])
        check(dtype, x_last, case.arrays["x_last"], error, SAME_COEFFICIENTS)
        for step in range(len(times)):
            for name, ours in {"x": x, "x0": x_0}.items():
                strided = golden.channels_first(ours[step])[..., ::2, ::2]
                check(dtype, strided, case.arrays[name][step], error, SAME_COEFFICIENTS)


@pytest.mark.quick
def test_time_embedding():
    case = golden.load("s05_time_embedding")
    for i in range(case.meta["n"]):
        t, dim = case.arrays[f"c{i}.t"], int(case.arrays[f"c{i}.dim"])
        for dtype, ours in golden.in_both_precisions(
            lambda one, t=t, dim=dim: layers.sinusoidal_embedding(t, dim, one.dtype), np.ones(())
        ):
            check(dtype, ours, case.arrays[f"c{i}.f64"], case.meta["f32_max_abs_dev"])


# ---- gradients


GRADIENTS = golden.load("b01_gradients")


def check_table(dtype, names, gradients, table, float32_error):
    """Sum, absolute sum and first values of each gradient, relative to the largest of them.

    A few gradients are zero by symmetry (of a key's bias, which the softmax ignores): what is
    left there is rounding, bounded by a small part of the whole table's largest entry.
    """
    keys = GRADIENTS.arrays["g_keys" if table == "g_par" else "d_keys"]
    tensors = dict(zip(jax.tree.leaves(names), jax.tree.leaves(gradients), strict=True))
    reference = GRADIENTS.arrays[table]
    if dtype == np.float64:
        relative, rounding = FLOAT64_TOLERANCE, 1e-14
    else:
        relative, rounding = FLOAT32_FACTOR * float32_error, 1e-7
    for key, row in zip(keys, reference, strict=True):
        ours = golden.tensor_statistics(golden.official_layout(key, tensors[key]))
        atol = relative * np.abs(row).max() + rounding * np.abs(reference).max()
        np.testing.assert_allclose(ours, row, rtol=0, atol=atol, err_msg=f"{table} {key}")


def test_generator_gradients():
    case, arrays, errors = GRADIENTS, GRADIENTS.arrays, GRADIENTS.meta["f32_max_abs_dev"]
    config, shape = case.config(), case.image_shape()
    params = nvlabs.import_generator(case.state_dict("generator"), config)
    x, r = case.normal("x", shape), case.normal("r", shape)
    z = case.normal("z", (shape[0], config.generator.latent_dim))

    def weighted_sum_and_gradients(params, x, z, r):
        def weighted_sum(params, x, z):
            return (
                models.build_generator(config).apply({"params": params}, x, arrays["t"], z) * r
            ).sum()

        return jax.value_and_grad(weighted_sum, (0, 1, 2))(params, x, z)

    for dtype, (value, (g_params, g_x, g_z)) in golden.in_both_precisions(
        weighted_sum_and_gradients, params, x, z, r
    ):
        check(dtype, value, arrays["g_loss"], errors["g_loss"])
        check(dtype, golden.channels_first(g_x), arrays["g_dx"], errors["g_dx"])
        check(dtype, g_z, arrays["g_dz"], errors["g_dz"])
        names = nvlabs.generator_names(config)
        check_table(dtype, names, g_params, "g_par", errors["g_par_rel"])


def test_discriminator_and_r1_gradients():
    case, arrays, errors = GRADIENTS, GRADIENTS.arrays, GRADIENTS.meta["f32_max_abs_dev"]
    config = case.config()
    params = nvlabs.import_discriminator(case.state_dict("discriminator"), config)
    x, x_tp1 = (case.normal(name, case.image_shape()) for name in ("x", "x_tp1"))

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
        for name, ours in images.items():
            check(dtype, golden.channels_first(ours), arrays[name], errors[name])
        names = nvlabs.discriminator_names(config)
        for name, ours in tables.items():
            check_table(dtype, names, ours, name, errors[f"{name}_rel"])
        # These parameters do not move the logits' gradient: exactly none, not a small one.
        ours = dict(zip(jax.tree.leaves(names), jax.tree.leaves(tables["r1_par"]), strict=True))
        assert all(not ours[key].any() for key in arrays["r1_no_grad_keys"])
