"""Config files, JSON, and which settings are refused, with what advice."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from ddgan_jax import models, validation
from ddgan_jax.config import ConfigDict, base_config
from ddgan_jax.config_files import from_json, leaves, load_config, to_json
from ddgan_jax.errors import UserError
from ddgan_jax.models import discriminators
from ddgan_jax.validation.networks import ncsnpp_widths

CONFIGS = Path(__file__).parents[1] / "configs"
SHIPPED = sorted(path.stem for path in CONFIGS.glob("*.py"))

pytestmark = pytest.mark.quick


def config_with(**changes) -> ConfigDict:
    """The base config on a named data set; changes are spelled section__field=value."""
    config = base_config()
    config.data.name = "digits"
    for name, value in changes.items():
        section, field = name.split("__")
        config[section][field] = value
    return config


def refusal(config: ConfigDict, num_devices: int | None = None) -> str:
    with pytest.raises(UserError) as error:
        validation.validate(config, num_devices)
    assert "\n" not in str(error.value)
    return str(error.value)


# -------------------------------------------------------------------------------- config files


@pytest.mark.parametrize("variant", ["", ":tiny"])
@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_configs_are_valid_and_survive_json(name, variant, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # config files work from any directory
    config = load_config(f"{CONFIGS / name}.py{variant}")
    for num_devices in (1, 2, 4, 8):
        validation.validate(config, num_devices)
    restored = from_json(to_json(config))
    assert dict(leaves(restored)) == dict(leaves(config))
    assert {k: type(v) for k, v in leaves(restored)} == {k: type(v) for k, v in leaves(config)}
    for locked in (config, restored):
        with pytest.raises(AttributeError):
            locked.train.bach_size = 1


@pytest.mark.parametrize("name", SHIPPED)
def test_tiny_keeps_the_kinds_of_networks_and_data(name):
    full, small = load_config(f"{CONFIGS / name}.py"), load_config(f"{CONFIGS / name}.py:tiny")
    for path, value in leaves(full):
        section, _, field = path.partition(".")
        if path == "objective.r1_interval":
            assert small.objective.r1_interval == 1  # one program to compile
        elif isinstance(value, str | bool) or section in ("diffusion", "objective"):
            assert small[section][field] == value
    generator, discriminator = jax.eval_shape(lambda: models.init_params(small, jax.random.key(0)))
    # The normalisation of a U-Net needs 32 channels, where NCSN++ makes do with 8.
    limit = 1_000_000 if small.generator.name == "unet" else 200_000
    assert sum(p.size for p in jax.tree.leaves((generator, discriminator))) < limit


@pytest.mark.parametrize(
    ("name", "steps", "batch_size"),
    [
        # (epochs + 1) times the whole batches in an epoch
        ("cifar10_ddgan", 1801 * 195, 4 * 64),
        ("lsun_church256_ddgan", 501 * 1875, 8 * 8),
        ("celebahq256_ddgan", 801 * 843, 8 * 4),
    ],
)
def test_published_schedules(name, steps, batch_size):
    config = load_config(f"{CONFIGS / name}.py")
    assert (config.train.num_steps, config.train.batch_size) == (steps, batch_size)
    epoch = config.optimizer.decay_interval_steps
    assert config.optimizer.decay_steps == config.train.num_steps - epoch


def write(tmp_path: Path, text: str) -> str:
    file = tmp_path / "mine.py"
    file.write_text(text)
    return str(file)


@pytest.mark.parametrize(
    ("text", "argument", "message"),
    [
        ("x = 1\n", "", "it does not define get_config"),
        ("def get_config(:\n", "", "line 1: invalid syntax"),
        ("def get_config():\n    return 3\n", "", "get_config must return a ConfigDict"),
        ("\ndef get_config():\n    return 1 / 0\n", "", "line 3: ZeroDivisionError: division by"),
        ("def get_config():\n    return 1\n", ":tiny", "TypeError: get_config\\(\\) takes 0"),
    ],
)
def test_a_broken_config_file_is_named_with_the_line(tmp_path, text, argument, message):
    file = write(tmp_path, text)
    with pytest.raises(UserError, match=f"{re.escape(file)}: .*{message}"):
        load_config(file + argument)


def test_a_missing_config_file_or_argument_suggests_the_nearest():
    with pytest.raises(UserError, match=r"cannot be read .*did you mean .*cifar10_ddgan\.py\?"):
        load_config(f"{CONFIGS}/cifar_ddgan.py")
    with pytest.raises(UserError, match="'tny' is not known; did you mean tiny"):
        load_config(f"{CONFIGS}/digits_ddgan.py:tny")
    with pytest.raises(UserError, match="'x' is not known; known: tiny"):
        load_config(f"{CONFIGS}/digits_ddgan.py:x")


@pytest.mark.parametrize("text", ["{", "[1, 2]", ""])
def test_json_that_is_no_config(text):
    with pytest.raises(UserError, match="not a config in JSON"):
        from_json(text)


# ---------------------------------------------------------------------------------- validation


REFUSALS = [
    (dict(data__name=""), "data.name is empty: no data set chosen"),
    (dict(data__name="folder"), "data.name='folder' needs data.path, the folder of images"),
    (dict(data__path="photos"), "data.path is only read with data.name='folder', not 'digits'"),
    (dict(data__split=""), "data.split is empty; use 'train'"),
    (dict(data__channels=2), "data.channels=2 must be 1 (gray) or 3 (RGB)"),
    (dict(data__max_examples=-1), "data.max_examples=-1 must not be negative"),
    (
        dict(data__image_size=20),
        "data.image_size=20 cannot be halved 3 times for the 4 levels of "
        "generator.channel_multipliers; use a multiple of 8",
    ),
    (
        dict(data__image_size=12, generator__channel_multipliers=(1, 2)),
        "data.image_size=12 does not suit discriminator.name='small', which needs a multiple of 8",
    ),
    (
        dict(discriminator__name="large"),
        "data.image_size=32 does not suit discriminator.name='large', which needs a multiple of 64",
    ),
    (
        dict(diffusion__schedule="linear"),
        "diffusion.schedule='linear' is not one of vp, geometric, cosine, one_shot",
    ),
    (
        dict(diffusion__schedule="geometric"),
        "diffusion.schedule='geometric' needs 0 < beta_min < beta_max < 1, "
        "not beta_min=0.1 and beta_max=20.0; try 0.0001 and 0.999",
    ),
    (
        dict(diffusion__beta_min=30.0),
        "diffusion.schedule='vp' needs 0 <= beta_min < beta_max, "
        "not beta_min=30.0 and beta_max=20.0",
    ),
    (dict(diffusion__num_timesteps=0), "diffusion.num_timesteps=0 must be positive"),
    (
        dict(generator__time_embedding="fourier"),
        "generator.time_embedding='fourier' embeds log(t), and t = 0 occurs in "
        "diffusion.schedule='vp'; use 'positional'",
    ),
    (
        dict(objective__prediction="noise"),
        "objective.prediction='noise' needs generator.output_tanh=False, "
        "since its values leave [-1, 1]",
    ),
    (
        dict(objective__prediction="eps"),
        "objective.prediction='eps' is not one of x_0, x_t, noise",
    ),
    (
        dict(objective__augmentation_timesteps=8),
        "objective.augmentation_timesteps=8 needs diffusion.num_timesteps=1 and "
        "objective.prediction='x_0'",
    ),
    (dict(objective__r1_interval=0), "objective.r1_interval=0 must be positive"),
    (dict(objective__r1_gamma=-0.1), "objective.r1_gamma=-0.1 must not be negative"),
    (dict(generator__name="ncsnp"), "generator.name='ncsnp' is not one of ncsnpp, unet, mlp; did you mean ncsnpp?"),
    (
        dict(generator__resblock="bigan"),
        "generator.resblock='bigan' is not one of ddpm, biggan, biggan_oneadagn; "
        "did you mean biggan?",
    ),
    (
        dict(generator__base_channels=136),
        "generator.base_channels=136: group normalisation cannot split the 136 channels of "
        "level 0 on the way down into 32 equal groups of 4 or more; use 128 or 160",
    ),
    (
        dict(generator__base_channels=120, generator__channel_multipliers=(1, 1)),
        "generator.base_channels=120: group normalisation cannot split the 240 channels that "
        "level 1 concatenates on the way up into 32 equal groups of 4 or more; use 112 or 128",
    ),
    (dict(generator__channel_multipliers=()), "generator.channel_multipliers is empty; give one"),
    (
        dict(generator__channel_multipliers=("1", "2")),
        "generator.channel_multipliers=('1', '2') is not a tuple such as (1, 2, 2, 2)",
    ),
    (dict(generator__channel_multipliers=(1, 0)), "channel_multipliers=(1, 0) must be positive"),
    (dict(generator__num_res_blocks=0), "generator.num_res_blocks=0 must be positive"),
    (dict(generator__dropout=1.0), "generator.dropout=1.0 must be at least 0 and less than 1"),
    (dict(generator__fir_kernel=(1.0, -1.0)), "generator.fir_kernel=(1.0, -1.0) must be at least"),
    (dict(discriminator__time_embedding_dim=3), "time_embedding_dim=3 must be at least 4"),
    (dict(discriminator__base_channels=0), "discriminator.base_channels=0 must be positive"),
    (
        dict(optimizer__generator_learning_rate=0.0),
        "optimizer.generator_learning_rate=0.0 must be positive",
    ),
    (dict(optimizer__beta1=float("nan")), "optimizer.beta1=nan is not finite"),
    (dict(diffusion__beta_max=float("inf")), "diffusion.beta_max=inf is not finite"),
    (
        dict(optimizer__ema_decay=1.0),
        "optimizer.ema_decay=1.0 must be at least 0 and less than 1",
    ),
    (
        dict(optimizer__decay_steps=5, optimizer__decay_interval_steps=6),
        "optimizer.decay_interval_steps=6 must not exceed optimizer.decay_steps=5",
    ),
    (
        dict(optimizer__decay_steps=5, optimizer__final_learning_rate=1e-3),
        "optimizer.final_learning_rate=0.001 is above optimizer.generator_learning_rate=0.00016: "
        "the rate would grow",
    ),
    (dict(train__seed=2**31), "train.seed=2147483648 must lie between 0 and 2^31 - 1"),
    (dict(train__num_steps=True), "train.num_steps=True is not an integer"),
    (dict(train__bach_size=1), "train.bach_size is not a field; did you mean train.batch_size?"),
    (
        dict(train__compute_dtype="float16"),
        "train.compute_dtype='float16' is not one of float32, bfloat16; did you mean bfloat16?",
    ),
    (dict(train__mapping="map"), "train.mapping='map' is not one of pmap, shard_map; did you mean"),
    (dict(checkpoint__keep_latest=0), "checkpoint.keep_latest=0 must be positive"),
    (dict(log__every_steps=0), "log.every_steps=0 must be positive"),
    (dict(sampling__chunk_size=0), "sampling.chunk_size=0 must be positive"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSALS, ids=[m[:40] for _, m in REFUSALS])
def test_refusals(changes, message):
    assert message in refusal(config_with(**changes))


@pytest.mark.parametrize(
    "changes",
    [
        dict(objective__prediction="noise", generator__output_tanh=False),
        dict(objective__augmentation_timesteps=8, diffusion__num_timesteps=1),
        dict(diffusion__schedule="geometric", diffusion__beta_min=1e-4, diffusion__beta_max=0.99),
        dict(generator__time_embedding="fourier", generator__time_conditional=False),
        dict(generator__fir_kernel=(1, 2, 1)),
        dict(generator__latent="none"),
        dict(data__name="folder", data__path="photos"),
        dict(generator__attention_resolutions=()),
    ],
)
def test_unusual_settings_that_work_are_accepted(changes):
    validation.validate(config_with(**changes))


@pytest.mark.parametrize("section", ["generator", "discriminator", "objective", "diffusion"])
def test_a_replaced_section_must_be_complete(section):
    for field in list(base_config()[section]):
        config = config_with()
        values = config[section].to_dict()
        del values[field]
        config[section] = ConfigDict(values)
        assert refusal(config) == f"{section}.{field} is missing"


def test_a_missing_section_is_named():
    config = config_with()
    del config.optimizer
    assert refusal(config) == "optimizer is missing"


# -------------------------------------------------------------- the same rules as the networks'


NETWORKS = [
    dict(channel_multipliers=(1, 2), num_res_blocks=2),
    dict(channel_multipliers=(1, 3, 2), resblock="ddpm", progressive="residual"),
    dict(
        channel_multipliers=(2, 1),
        progressive_input="input_skip",
        progressive_combine="cat",
        progressive="output_skip",
    ),
]


def normalised_widths(params: dict, path: tuple[str, ...] = ()) -> set[int]:
    """Channels of every group normalisation among a network's parameters."""
    widths = set()
    for name, value in params.items():
        if name == "style":
            widths.add(value["bias"].size // 2)
        elif "norm" in name and "scale" in value:
            widths.add(value["scale"].size)
        elif isinstance(value, dict):
            widths |= normalised_widths(value, (*path, name))
    return widths


@pytest.mark.parametrize("options", NETWORKS)
@pytest.mark.parametrize("base_channels", [3, 4, 10, 22, 31, 120])
def test_validate_refuses_exactly_the_widths_that_the_generator_cannot_have(base_channels, options):
    config = config_with(data__image_size=8, generator__base_channels=base_channels)
    config.generator.update(options)
    config.generator.latent_embedding_dim = 8
    x, t, z = jnp.zeros((1, 8, 8, 3)), jnp.zeros(1, jnp.int32), jnp.zeros((1, 100))
    generator = models.build_generator(config)
    try:
        params = jax.eval_shape(generator.init, jax.random.key(0), x, t, z)["params"]
    except (TypeError, ZeroDivisionError):  # a shape that does not exist
        advice = re.search(r"use (\d+)(?: or (\d+))?$", refusal(config))
        for works in filter(None, advice.groups()):
            config.generator.base_channels = int(works)
            validation.validate(config)
    else:
        validation.validate(config)
        expected = {c for _, c in ncsnpp_widths(config.generator, base_channels)}
        assert normalised_widths(params) == expected


@pytest.mark.parametrize("batch_size", range(1, 14))
def test_validate_refuses_exactly_the_batches_that_form_no_groups(batch_size):
    x = jax.ShapeDtypeStruct((batch_size, 2, 2, 1), jnp.float32)
    config = config_with(train__batch_size=batch_size)
    try:
        jax.eval_shape(discriminators.minibatch_stddev, x)
    except ValueError:
        message = refusal(config, num_devices=1)
        assert f"gives each of 1 devices {batch_size} images, which do not form groups of 4" in message
    else:
        validation.validate(config, num_devices=1)


@pytest.mark.parametrize(
    ("batch_size", "num_devices", "advice"),
    [
        (250, 4, "is not divisible by the 4 devices; use 240 or 256"),
        (3, 4, "is not divisible by the 4 devices; use 4"),
        (20, 2, "which do not form groups of 4 (minibatch standard deviation of the "
                "discriminator); use 16 or 24"),
    ],
)  # fmt: skip
def test_a_batch_that_does_not_fit_the_devices(batch_size, num_devices, advice):
    config = config_with(train__batch_size=batch_size)
    validation.validate(config)  # the devices are not known yet
    assert refusal(config, num_devices).endswith(advice)
    for works in re.findall(r"\d+", advice.split("use")[1]):
        config.train.batch_size = int(works)
        validation.validate(config, num_devices)
