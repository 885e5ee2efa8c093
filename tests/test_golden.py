"""Networks, schedules, posterior and sampler against numbers of the reference.

Every case is computed in float64, where only the order of additions differs, and some of them in
float32, where ten times the reference's own rounding error is allowed. tests/golden/README.md
describes the files. The functions that check a case serve those of other programs as well.
"""

import jax
import numpy as np
import pytest

from ddgan_jax import build, diffusion, models, sampling, schedules
from ddgan_jax.errors import UserError
from ddgan_jax.interop import nvlabs
from ddgan_jax.models import layers
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
    check_generator(golden.load(name), float32=name in IN_FLOAT32)


def check_generator(case, *, float32):
    """The case's generator gives the reference's output."""
    config, shape = case.config(), case.diffused_shape()
    x, z = case.normal("x", shape), case.normal("z", (shape[0], config.generator.latent_dim))
    check_fill(case, "generator", (x, z))
    params = nvlabs.import_generator(case.state_dict("generator"), config)

    def generate(params, x, z):
        return models.build_generator(config).apply({"params": params}, x, case.arrays["t"], z)

    for dtype, out in golden.in_both_precisions(generate, params, x, z, float32=float32):
        out = golden.channels_first(out)
        assert out.dtype == dtype
        reference = case.arrays["out"]
        check(dtype, golden.strided(out, reference), reference, case.meta["f32_max_abs_dev"])
        if dtype == np.float64:
            statistics = golden.tensor_statistics(out)
            assert golden.relative_error(statistics, case.arrays["out_stat"]) < FLOAT64_TOLERANCE


@pytest.mark.parametrize("name", golden.names("d"))
def test_discriminator(name):
    check_discriminator(golden.load(name), float32=name in IN_FLOAT32)


def check_discriminator(case, *, float32):
    """The case's discriminator gives the reference's logits."""
    config = case.config()
    x, x_tp1 = (case.normal(name, case.diffused_shape()) for name in ("x", "x_tp1"))
    check_fill(case, "discriminator", (x, x_tp1))
    params = nvlabs.import_discriminator(case.state_dict("discriminator"), config)

    def discriminate(params, x, x_tp1):
        apply = models.build_discriminator(config).apply
        return apply({"params": params}, x, case.arrays["t"], x_tp1)

    for dtype, logits in golden.in_both_precisions(discriminate, params, x, x_tp1, float32=float32):
        assert logits.dtype == dtype
        check(dtype, logits, case.arrays["out"][:, 0], case.meta["f32_max_abs_dev"])


def test_published_checkpoint_layout():
    """A state dict as it is published: float32, with the prefix of torch's parallel wrapper."""
    case = golden.load("netG_tiny")
    state_dict = case.state_dict("generator", np.float32)
    check_published_generator(case, {f"module.{key}": value for key, value in state_dict.items()})


def check_published_generator(case, prefixed):
    """The state dict has the reference's numbers, and our network its output."""
    config = case.config()
    for key, row in zip(case.arrays["keys"], case.arrays["key_stat"], strict=True):
        ours = golden.tensor_statistics(prefixed[f"module.{key}"])
        np.testing.assert_allclose(ours, row, rtol=1e-6)
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
    check_chain(golden.load("s04_sampler_T4"))


def check_chain(case):
    """All steps of a sampling chain are those of the reference, for given noise."""
    config = case.config()
    shape = case.diffused_shape()
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
                reference = case.arrays[name][step]
                strided = golden.strided(golden.channels_first(ours[step]), reference)
                check(dtype, strided, reference, error, SAME_COEFFICIENTS)


@pytest.mark.quick
def test_time_embedding():
    case = golden.load("s05_time_embedding")
    for i in range(case.meta["n"]):
        t, dim = case.arrays[f"c{i}.t"], int(case.arrays[f"c{i}.dim"])
        for dtype, ours in golden.in_both_precisions(
            lambda one, t=t, dim=dim: layers.sinusoidal_embedding(t, dim, one.dtype), np.ones(())
        ):
            check(dtype, ours, case.arrays[f"c{i}.f64"], case.meta["f32_max_abs_dev"])
