"""The PyTorch baseline computes what our networks, sampler and train step compute.

Both sides get the same parameters and draws. In float64 only the order of additions differs.
"""

import functools
import importlib
import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from flax import traverse_util

from ddgan_jax import build, distributed, models, sampling
from ddgan_jax.config.files import load_config
from ddgan_jax.methods.objective import Draws
from ddgan_jax.state import DiscriminatorState, GeneratorState, TrainState
from tests import golden_cases as golden
from tests.test_golden_training import DEVICE, settings_and_networks, step_of, training_config

torch = pytest.importorskip("torch")
baseline = importlib.import_module("benchmarks.cifar10_torch")  # which ends without it

ROOT = Path(__file__).parents[1]
SHIPPED = str(ROOT / "configs" / "cifar10_ddgan.py")
BATCH = 4
FLOAT64_TOLERANCE = 1e-9  # relative to the largest entry
FLOAT32_TOLERANCE = 2e-5
# Axes of a kernel, matrix or vector in the other side's order, by their number.
TO_TORCH = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}
TO_OURS = {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}

# ---- what is compared


@functools.cache
def tiny_config():
    """Has attention, filters up and down, the input pyramid and every kind of shortcut.

    That of the golden trajectories, so that both tests compile the same train step.
    """
    return training_config(golden.load("t01_train_lazy2"))


def sizes_of(config):
    sections = [config.data, config.diffusion, config.generator]
    names = baseline.Sizes._fields
    fields = {name: section[name] for section in sections for name in names if name in section}
    return baseline.Sizes(
        **fields,
        discriminator_channels=config.discriminator.base_channels,
        discriminator_embedding_dim=config.discriminator.time_embedding_dim,
    )


def parameter_shapes(config):
    return jax.eval_shape(functools.partial(models.init_params, config), jax.random.key(0))


@functools.cache
def parameters():
    """Of generator and discriminator, float64: larger than new ones, of which many are almost 0."""
    rng = np.random.default_rng(0)

    def fill(leaf):
        gain = 0.3 if len(leaf.shape) == 1 else np.prod(leaf.shape[:-1]) ** -0.5
        return gain * rng.standard_normal(leaf.shape)

    return jax.tree.map(fill, parameter_shapes(tiny_config()))


def normal(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape)


def images(seed, count=BATCH):
    data = tiny_config().data
    return normal(seed, count, data.image_size, data.image_size, data.channels)


def to_torch(value, dtype=torch.float64):
    """A kernel, matrix or vector of ours."""
    value = np.ascontiguousarray(value.transpose(TO_TORCH[value.ndim]))
    return torch.tensor(value, dtype=dtype)


def to_ours(value):
    return value.detach().numpy().transpose(TO_OURS[value.ndim])


def image_to_torch(x, dtype=torch.float64):
    return torch.tensor(golden.channels_first(x), dtype=dtype)


def flat(tree):
    return traverse_util.flatten_dict(tree, sep="/")


def networks(dtype=torch.float64):
    """The baseline's generator and discriminator with `parameters`."""
    made = []
    for make, params in zip(
        (baseline.Generator, baseline.Discriminator), parameters(), strict=True
    ):
        network = make(sizes_of(tiny_config()))
        for name, value in flat(params).items():
            network[name] = to_torch(value, dtype).requires_grad_()
        made.append(network)
    return made


def our_schedule():
    """Our coefficients: float32 has rounded them, which the baseline's own are only close to."""
    config = tiny_config()
    steps = build.schedule(config).transition(np.arange(config.diffusion.num_timesteps))
    names = baseline.variance_preserving(1)
    return {name: torch.tensor(np.asarray(getattr(steps, name))) for name in names}


def assert_same(theirs, ours, tolerance=FLOAT64_TOLERANCE):
    """Arrays by name, each relative to its largest entry."""
    assert theirs.keys() == ours.keys()
    for name, value in ours.items():
        # The bias of attention's keys changes nothing: its gradient is rounding alone.
        if not name.endswith("key/bias"):
            assert golden.relative_error(to_ours(theirs[name]), value) < tolerance, name


# ---- the shipped config


def test_shipped_config():
    """The sizes and numbers of the config, and the choices that the baseline has built in."""
    config = load_config(SHIPPED)
    assert sizes_of(config) == baseline.CIFAR10
    o = config.optimizer
    assert (config.diffusion.beta_min, config.diffusion.beta_max) == (
        baseline.BETA_MIN,
        baseline.BETA_MAX,
    )
    assert config.objective.r1_gamma == baseline.R1_GAMMA
    assert o.generator_learning_rate == baseline.GENERATOR_LEARNING_RATE
    assert o.discriminator_learning_rate == baseline.DISCRIMINATOR_LEARNING_RATE
    assert (o.beta1, o.beta2) == baseline.ADAM_BETAS
    assert o.ema_decay == baseline.EMA_DECAY

    g, d = config.generator, config.discriminator
    assert (g.resblock, g.dropout, g.fir, g.fir_kernel) == ("biggan", 0.0, True, (1, 3, 3, 1))
    assert (g.progressive, g.progressive_input, g.skip_rescale) == ("none", "residual", True)
    assert (g.time_conditional, g.time_embedding) == (True, "positional")
    assert (g.centered, g.output_tanh, g.latent) == (True, True, "normal")
    assert (d.name, d.stddev_groups) == ("small", "spread")
    assert (config.diffusion.schedule, config.objective.prediction) == ("vp", "x_0")
    assert (config.objective.judged, config.objective.joint) == ("x_t", True)


def test_parameters_of_the_shipped_config():
    """Same names and, with the axes in our order, same shapes."""
    sizes = baseline.CIFAR10
    generator, discriminator = baseline.Generator(sizes), baseline.Discriminator(sizes)
    x = torch.zeros(1, sizes.channels, sizes.image_size, sizes.image_size, device="meta")
    t, z = torch.zeros(1, device="meta"), torch.zeros(1, sizes.latent_dim, device="meta")
    generator.forward(x, t, z)
    discriminator.forward(x, t, x)
    for theirs, ours in zip(
        (generator, discriminator), parameter_shapes(load_config(SHIPPED)), strict=True
    ):
        shapes = {n: tuple(v.permute(TO_OURS[v.ndim]).shape) for n, v in theirs.items()}
        assert shapes == {name: leaf.shape for name, leaf in flat(ours).items()}


def test_schedule():
    num_timesteps = tiny_config().diffusion.num_timesteps
    for name, table in baseline.variance_preserving(num_timesteps).items():
        np.testing.assert_allclose(table, our_schedule()[name], rtol=0, atol=1e-6, err_msg=name)


# ---- networks and sampler


@functools.cache
def our_outputs():
    """x_0 of the generator and logits of the discriminator, float64, for the inputs below."""
    generate, discriminate = (
        make(tiny_config()) for make in (models.generator, models.discriminator)
    )

    def both(generator, discriminator, x_t, x_tp1, t, z):
        logits = discriminate(discriminator, x_t, t, x_tp1).logits
        return generate(generator, x_tp1, t, z), logits

    with jax.enable_x64(True):
        return jax.tree.map(np.asarray, jax.jit(both)(*parameters(), *inputs()))


def inputs():
    """x_t, x_{t+1}, t, z."""
    count = 2 * BATCH  # two groups of the minibatch standard deviation
    t = np.arange(count) % tiny_config().diffusion.num_timesteps
    return (
        images(1, count),
        images(2, count),
        t,
        normal(3, count, tiny_config().generator.latent_dim),
    )


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, FLOAT64_TOLERANCE), (torch.float32, FLOAT32_TOLERANCE)],
)
def test_networks(dtype, tolerance):
    x_t, x_tp1, t, z = inputs()
    x_t, x_tp1 = (image_to_torch(x, dtype) for x in (x_t, x_tp1))
    t, z = torch.tensor(t), torch.tensor(z, dtype=dtype)
    generator, discriminator = networks(dtype)
    with torch.no_grad():
        x_0, logits = generator(x_tp1, t, z), discriminator(x_t, t, x_tp1)
    assert x_0.dtype == logits.dtype == dtype
    our_x_0, our_logits = our_outputs()
    assert golden.relative_error(x_0, golden.channels_first(our_x_0)) < tolerance
    assert golden.relative_error(logits, our_logits) < tolerance


def test_sampler():
    config = tiny_config()
    steps = config.diffusion.num_timesteps
    noise = sampling.Noise(
        x_T=images(4),
        z=normal(5, steps, BATCH, config.generator.latent_dim),
        posterior=np.stack([images(6 + i) for i in range(steps)]),
    )
    with jax.enable_x64(True):
        denoise = jax.jit(build.sampler(config).denoise)
        ours = denoise(parameters()[0], noise, np.zeros(BATCH, np.int32)).x_t[-1]
    posterior = torch.stack([image_to_torch(x) for x in noise.posterior])
    theirs = baseline.sample(
        networks()[0], our_schedule(), image_to_torch(noise.x_T), torch.tensor(noise.z), posterior
    )
    assert golden.relative_error(theirs, golden.channels_first(ours)) < FLOAT64_TOLERANCE


# ---- train step


def draws(seed):
    config = tiny_config()
    rng = np.random.default_rng(seed)
    return Draws(
        t=rng.integers(config.diffusion.num_timesteps, size=BATCH, dtype=np.int32),
        noise_t=images(seed + 1),
        noise_tp1=images(seed + 2),
        z=normal(seed + 3, BATCH, config.generator.latent_dim),
        noise_posterior=images(seed + 4),
    )


def draws_to_torch(ours):
    noises = ("noise_t", "noise_tp1", "noise_posterior")
    theirs = {name: image_to_torch(getattr(ours, name)) for name in noises}
    return theirs | {"t": torch.tensor(ours.t).long(), "z": torch.tensor(ours.z)}


def moments(adam, network, name):
    """Adam's running mean of the gradients or of their squares."""
    return {key: adam.state[value][name] for key, value in network.items()}


def test_train_step():
    """Two steps: with R1 in the published order, then without both R1 and the detour through G."""
    with jax.enable_x64(True), jax.default_matmul_precision("highest"):
        compare_two_steps(tiny_config())


def compare_two_steps(config):
    settings, as_json = settings_and_networks(config)
    step = step_of(as_json, True)
    trainer = baseline.Trainer(*networks(), our_schedule())
    state = initial_state(config)
    for i, r1 in enumerate((True, False)):
        x_0, for_d, for_g = np.tanh(images(10 + i)), draws(20 + 10 * i), draws(50 + 10 * i)
        # With a weight of 0 the penalty is still computed, and changes nothing.
        now = settings._replace(r1_gamma=baseline.R1_GAMMA * r1, ema_decay=baseline.EMA_DECAY)
        batch = {"x_0": x_0, "d_draws": for_d, "g_draws": for_g}
        batch = jax.device_put(batch, distributed.split(DEVICE))
        state, now = jax.device_put((state, now), distributed.replicated(DEVICE))
        state, metrics = step(state, batch, now)
        terms = trainer.step(
            image_to_torch(x_0), draws_to_torch(for_d), draws_to_torch(for_g), r1=r1, detach=not r1
        )
        assert terms.keys() == {"d_loss_real", "d_loss_fake", "g_loss"} | ({"r1"} if r1 else set())
        for name, value in terms.items():
            np.testing.assert_allclose(value.item(), metrics[name], rtol=FLOAT64_TOLERANCE)
        compare_states(trainer, state)


def initial_state(config):
    generator, discriminator = parameters()
    optimizers = build.optimizers(config)
    return TrainState(
        np.int32(0),
        GeneratorState(generator, generator, optimizers.generator.init(generator)),
        DiscriminatorState(discriminator, optimizers.discriminator.init(discriminator)),
    )


def compare_states(trainer, state):
    for ours, network, adam in (
        (state.generator, trainer.generator, trainer.generator_adam),
        (state.discriminator, trainer.discriminator, trainer.discriminator_adam),
    ):
        assert_same(network, flat(ours.params))
        for name, of_torch in (("mu", "exp_avg"), ("nu", "exp_avg_sq")):
            moment = optax.tree.get(ours.opt_state, name)
            assert_same(moments(adam, network, of_torch), flat(moment))
    average = dict(zip(trainer.generator, trainer.average, strict=True))
    assert_same(average, flat(state.generator.ema_params))


# ---- command line


@pytest.mark.parametrize(
    "arguments",
    [("step", "--r1"), ("step", "--detach", "--compute=bfloat16"), ("sample", "--compute=tf32")],
)
def test_report(arguments, capsys):
    options = ("--batch=4", "--calls=1", "--threads=1")
    baseline.main([*arguments, *options], sizes_of(tiny_config()))
    (line,) = capsys.readouterr().out.splitlines()
    report = json.loads(line)
    assert report["seconds_per_image"] > 0 and report["cpu_seconds_per_image"] > 0
    assert (report["what"], report["batch"], report["threads"]) == (arguments[0], 4, 1)
    assert (report["device"], report["torch"]) == ("cpu", torch.__version__)


def test_no_gpu(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as stopped:
        baseline.main(["step", "--device=cuda"])
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "cifar10_torch: --device=cuda: PyTorch finds no GPU\n"


def test_no_torch():
    hide = "import runpy, sys; sys.modules['torch'] = None; runpy.run_path(sys.argv[1])"
    file = str(ROOT / "benchmarks" / "cifar10_torch.py")
    done = subprocess.run([sys.executable, "-c", hide, file], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "cifar10_torch: there is no PyTorch; install torch\n"
