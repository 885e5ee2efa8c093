"""Which settings are refused, with what advice: a table of mistakes, one for every rule."""

import pytest

from ddgan_jax.config import (
    DISCRIMINATORS,
    GENERATORS,
    ConfigDict,
    base_config,
    checks,
    siddm_config,
)
from ddgan_jax.errors import UserError

pytestmark = pytest.mark.quick


def config_with(config: ConfigDict | None = None, **changes) -> ConfigDict:
    """A config, by default DDGAN's, on a named data set; changes: section__field=value.

    `generator` and `discriminator` replace a network by that of another name, before all else.
    """
    config = config or base_config()
    config.data.name = "digits"
    for section, networks in (("generator", GENERATORS), ("discriminator", DISCRIMINATORS)):
        if section in changes:
            config[section] = networks[changes.pop(section)]()
    for name, value in changes.items():
        section, field = name.split("__")
        config[section][field] = value
    return config


def siddm_with(**changes) -> ConfigDict:
    """As config_with, from SIDDM's config."""
    return config_with(siddm_config(), **changes)


def points_with(**changes) -> ConfigDict:
    """As config_with, from SIDDM on the 25 Gaussians with dense networks."""
    points = dict(data__name="mog25", data__image_size=1, data__channels=2)
    networks = dict(generator="mlp", discriminator="mlp")
    return config_with(siddm_config(), **(networks | points | changes))


def refusal(config: ConfigDict, num_devices: int | None = None) -> str:
    with pytest.raises(UserError) as error:
        checks.validate(config, num_devices)
    assert "\n" not in str(error.value)
    return str(error.value)


REFUSALS = [
    (dict(data__name=""), "data.name is empty: no data set chosen"),
    (
        dict(data__holdout=1.5),
        "data.holdout=1.5 must be a share below 1 or a whole number of examples",
    ),
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
    (
        dict(generator__name="ncsnp"),
        "generator.name='ncsnp' is not one of ncsnpp, wavelet, unet, mlp; did you mean ncsnpp?",
    ),
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
    (
        dict(generator__attention_resolutions=(16, 2)),
        "generator.attention_resolutions=(16, 2): no level has 2 pixels; there are 32, 16, 8, 4",
    ),
    (
        dict(data__image_size=8),
        "generator.attention_resolutions=(16,): no level has 16 pixels; there are 8, 4, 2, 1",
    ),
    (
        dict(generator__fir=False, generator__fir_kernel=(1.0, 1.0)),
        "generator.fir_kernel=(1.0, 1.0) has no effect: it needs fir=True; take it back to "
        "(1.0, 3.0, 3.0, 1.0)",
    ),
    (
        dict(generator__resample_with_conv=False),
        "generator.resample_with_conv=False has no effect: it needs resblock='ddpm'",
    ),
    (
        dict(generator__progressive_combine="cat"),
        "generator.progressive_combine=cat has no effect: it needs progressive_input='input_skip'",
    ),
    (
        dict(generator__fourier_scale=8.0),
        "generator.fourier_scale=8.0 has no effect: it needs time_embedding='fourier' and",
    ),
    (
        dict(optimizer__final_learning_rate=1e-6),
        "optimizer.final_learning_rate=1e-06 has no effect: it needs decay_steps > 0",
    ),
    (dict(generator__num_res_blocks=2**31 - 1), "generator.num_res_blocks=2147483647 must be at"),
    (dict(train__batch_size=10**10), "train.batch_size=10000000000 must lie between 0 and 2^31"),
    (dict(train__batch_size=8, train__microbatches=2**31 - 1), "is not divisible by the 4 devices"),
    (dict(data__split="x" * 5_000), "is longer than 4096 characters"),
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
    (dict(train__microbatches=0), "train.microbatches=0 must be positive"),
    (
        dict(discriminator__stddev_groups="neighbour"),
        "discriminator.stddev_groups='neighbour' is not one of spread, neighbours; did you mean",
    ),
    (
        dict(sampling__num_steps=8),
        "sampling.num_steps=8: diffusion.schedule='vp' samples in diffusion.num_timesteps steps "
        "only; use 0",
    ),
    (
        dict(diffusion__schedule="one_shot"),
        "diffusion.schedule='one_shot', pure noise in one step, needs "
        "diffusion.num_timesteps=1 and objective.prediction='x_0' or 'x_t'",
    ),
    (
        dict(
            diffusion__schedule="one_shot",
            diffusion__num_timesteps=1,
            objective__prediction="noise",
            generator__output_tanh=False,
        ),
        "diffusion.schedule='one_shot', pure noise in one step, needs",
    ),
    (
        dict(diffusion__schedule="cosine", objective__prediction="noise"),
        "objective.prediction='noise' cannot tell x_0 at the noisy end of "
        "diffusion.schedule='cosine', where no signal is left; use 'x_0'",
    ),
    (
        dict(objective__judged="x0"),
        "objective.judged='x0' is not one of x_t, x_0; did you mean x_0?",
    ),
    (
        dict(objective__discriminator_time="t1"),
        "objective.discriminator_time='t1' is not one of t, t+1",
    ),
    (
        dict(objective__afd_form="reconstruction"),
        "objective.afd_form='reconstruction' is not one of recon, kl, code; did you mean recon?",
    ),
    (
        dict(objective__afd_scaling="1/beta"),
        "objective.afd_scaling='1/beta' is not one of none, likelihood",
    ),
    (dict(objective__adversarial_weight=-1.0), "adversarial_weight=-1.0 must not be negative"),
    (dict(objective__afd_weight=-1.0), "objective.afd_weight=-1.0 must not be negative"),
    (dict(objective__denoising_weight=-1.0), "denoising_weight=-1.0 must not be negative"),
    (
        dict(
            objective__augmentation_timesteps=8,
            diffusion__num_timesteps=1,
            diffusion__schedule="cosine",
        ),
        "objective.augmentation_timesteps=8 needs diffusion.schedule='vp' or 'geometric', "
        "objective.judged='x_t' and objective.afd_weight=0",
    ),
    (
        dict(
            objective__augmentation_timesteps=8,
            diffusion__num_timesteps=1,
            diffusion__schedule="one_shot",
        ),
        "objective.augmentation_timesteps=8 needs diffusion.schedule='vp' or 'geometric'",
    ),
    (
        dict(
            objective__augmentation_timesteps=8,
            diffusion__num_timesteps=1,
            objective__judged="x_0",
        ),
        "objective.augmentation_timesteps=8 needs diffusion.schedule='vp' or 'geometric'",
    ),
    (
        dict(objective__prediction="x_t", objective__judged="x_0", generator__output_tanh=False),
        "objective.prediction='x_t' tells no x_0, which objective.afd_weight > 0 and "
        "objective.judged='x_0' need",
    ),
    (
        dict(objective__adversarial_weight=0.0),
        "objective.adversarial_weight=0 and objective.afd_weight=0 leave the generator "
        "nothing to minimise",
    ),
    (
        dict(objective__afd_weight=1.0, objective__afd_regression=True),
        "objective.afd_regression needs a discriminator with further heads, not "
        "discriminator.name='small'; use 'unet'",
    ),
    (
        dict(objective__denoising_weight=1.0),
        "objective.denoising_weight needs a discriminator with further heads, not "
        "discriminator.name='small'; use 'unet'",
    ),
    (
        dict(objective__joint=False),
        "objective.joint=False: discriminator.name='small' always judges pairs; use 'unet'",
    ),
    (
        dict(data__num_classes=10),
        "data.num_classes=10: generator.name='ncsnpp' cannot be told the class; take "
        "data.num_classes=0, or a SIDDM config, such as cifar10_siddm",
    ),
    (dict(data__num_classes=-1), "data.num_classes=-1 must not be negative"),
    (
        dict(generator__name="unet"),
        "generator.name='unet' has other fields than 'ncsnpp', the network of this config: a name "
        "cannot exchange networks; take another config, or write one",
    ),
    (dict(discriminator__name="unet"), "discriminator.name='unet' has other fields than 'small'"),
    (
        dict(data__num_classes=10, generator="unet"),
        "data.num_classes=10: discriminator.name='small' cannot be told the class",
    ),
    (
        dict(data__name="mog25"),
        "data.name='mog25' needs data.image_size=1 and data.channels=2",
    ),
    (
        dict(generator="mlp"),
        "generator.name='mlp' is for the points of mog25, mog25_scaled, not for images",
    ),
]

SIDDM_REFUSALS = [
    (
        dict(objective__prediction="x_t"),
        "objective.prediction='x_t' tells no x_0, which objective.afd_weight > 0",
    ),
    (
        dict(objective__judged="x_0", objective__afd_regression=True),
        "objective.afd_regression needs objective.judged='x_t': its head reads x_t",
    ),
    (
        dict(objective__judged="x_0", objective__afd_weight=0.0),
        "objective.denoising_weight needs objective.judged='x_t': its head reads x_t",
    ),
    (dict(generator__updown_order="up"), "generator.updown_order='up' is not one of adm, imagen"),
    (dict(discriminator__channel_multipliers=()), "discriminator.channel_multipliers is empty"),
    (
        dict(generator__resblock_updown=True),
        "generator.resblock_updown=True needs generator.updown_order='adm'",
    ),
    (
        dict(data__image_size=12),
        "data.image_size=12 cannot be halved 3 times for the 3 levels of "
        "generator.channel_multipliers in the order 'imagen'; use a multiple of 8",
    ),
    (
        dict(data__image_size=12, generator__updown_order="adm"),
        "data.image_size=12 cannot be halved 3 times for the 3 levels of "
        "discriminator.channel_multipliers in the order 'imagen'; use a multiple of 8",
    ),
    (
        dict(data__image_size=10, generator__updown_order="adm"),
        "data.image_size=10 cannot be halved 2 times for the 3 levels of "
        "generator.channel_multipliers in the order 'adm'; use a multiple of 4",
    ),
    (
        dict(generator__base_channels=100),
        "generator.base_channels=100: group normalisation splits the channels of every level into "
        "32 groups; use 96 or 128",
    ),
    (
        dict(generator__head_channels=48),
        "generator.head_channels=48 does not divide the 512 channels of level 0, which has",
    ),
    (
        dict(discriminator__head_channels=0, discriminator__num_heads=5),
        "discriminator.num_heads=5 does not divide the 512 channels of level 0, which has attent",
    ),
    (
        dict(discriminator__head_channels=0, discriminator__num_heads=0),
        "discriminator.num_heads=0 must be positive",
    ),
    (dict(generator__dropout=1.0), "generator.dropout=1.0 must be at least 0 and less than 1"),
    (dict(generator__head_channels=-1), "generator.head_channels=-1 must not be negative"),
    (dict(generator__base_channels=0), "generator.base_channels=0 must be positive"),
    (dict(generator__num_res_blocks=0), "generator.num_res_blocks=0 must be positive"),
    (
        dict(generator__remat_resolutions=("16",)),
        "generator.remat_resolutions=('16',) is not a tup",
    ),
    (
        dict(generator__latent="gaussian"),
        "generator.latent='gaussian' is not one of normal, uniform, none",
    ),
    (
        dict(generator__remat_resolutions=(32,)),
        "generator.remat_resolutions=(32,): no level has 32 pixels; there are 16, 8, 4",
    ),
    (
        dict(discriminator__num_heads=8),
        "discriminator.num_heads=8 has no effect: it needs head_channels=0; take it back to 4",
    ),
    (
        dict(
            generator__updown_order="adm",
            generator__resblock_updown=True,
            generator__resample_with_conv=False,
        ),
        "generator.resample_with_conv=False has no effect: it needs resblock_updown=False",
    ),
    (dict(discriminator__num_logits=0), "discriminator.num_logits=0 must be positive"),
    (
        dict(discriminator__latent="none"),
        "discriminator.latent is not a field; did you mean",
    ),
]

POINT_REFUSALS = [
    (dict(generator__width=0), "generator.width=0 must be positive"),
    (dict(discriminator__hidden_layers=0), "discriminator.hidden_layers=0 must be positive"),
    (dict(generator__time_embedding_dim=3), "generator.time_embedding_dim=3 must be at least 4"),
    (dict(generator__latent_dim=0), "generator.latent_dim=0 must be positive"),
    (dict(discriminator__num_logits=0), "discriminator.num_logits=0 must be positive"),
    (dict(generator__latent="x"), "generator.latent='x' is not one of normal, uniform, none"),
    (dict(data__channels=1), "data.name='mog25' needs data.image_size=1 and data.channels=2"),
    (
        dict(data__num_classes=25),
        "data.num_classes=25: generator.name='mlp' cannot be told the class",
    ),
    (
        dict(data__name="digits", data__channels=1, data__image_size=32),
        "generator.name='mlp' is for the points of mog25, mog25_scaled, not for images",
    ),
    (
        dict(data__name="digits", data__channels=1, data__image_size=32, generator="unet"),
        "discriminator.name='mlp' is for the points of mog25, mog25_scaled, not for images",
    ),
]


ALL_REFUSALS = [
    pytest.param(make, changes, message, id=f"{make.__name__} {message[:40]}")
    for make, table in (
        (config_with, REFUSALS),
        (siddm_with, SIDDM_REFUSALS),
        (points_with, POINT_REFUSALS),
    )
    for changes, message in table
]


@pytest.mark.parametrize(("make", "changes", "message"), ALL_REFUSALS)
def test_refusals(make, changes, message):
    checks.validate(make(), num_devices=4)  # it is the change that is refused
    assert message in refusal(make(**changes), num_devices=4)


@pytest.mark.parametrize(
    "changes",
    [
        dict(discriminator="unet", objective__denoising_weight=1.0),
        dict(discriminator="unet", objective__joint=False, objective__afd_weight=1.0),
        dict(objective__judged="x_0"),
        dict(diffusion__schedule="one_shot", diffusion__num_timesteps=1),
        dict(diffusion__schedule="cosine", generator__time_embedding="fourier"),
        dict(objective__afd_weight=1.0),
        dict(generator="unet"),
        dict(generator="unet", discriminator="unet", data__num_classes=10),
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
    checks.validate(config_with(**changes))


@pytest.mark.parametrize(
    "changes",
    [
        dict(sampling__num_steps=16),
        dict(data__num_classes=10),
        dict(objective__adversarial_weight=0.0),
        dict(objective__prediction="x_t", objective__afd_weight=0.0),
        dict(objective__joint=True),
        dict(discriminator__num_logits=2),
        dict(generator__latent="none"),
        dict(generator__remat_resolutions=(16, 8), discriminator__remat_resolutions=()),
        dict(generator__updown_order="adm", generator__resblock_updown=True),
        dict(generator__head_channels=0, generator__num_heads=4),
        dict(generator__attention_resolutions=(), generator__channel_multipliers=(1, 2, 3)),
        dict(diffusion__schedule="vp"),
    ],
)
def test_unusual_settings_of_siddm_that_work_are_accepted(changes):
    checks.validate(siddm_with(**changes))


@pytest.mark.parametrize(
    ("make", "changes"),
    [
        (config_with, dict(generator__attention_resolutions=(64,))),
        (config_with, dict(generator__fir=False, generator__fir_kernel=(1.0, 1.0))),
        (siddm_with, dict(discriminator__num_heads=8)),
    ],
)
def test_a_run_that_exists_goes_on_with_fields_without_effect(make, changes):
    """Another config would be another run, so that nothing could be done about them."""
    refusal(make(**changes))
    checks.validate(make(**changes), resumed=True)


@pytest.mark.parametrize(
    "changes",
    [
        dict(objective__r1_gamma=0.0, objective__r1_interval=10),
        dict(optimizer__decay_steps=0, optimizer__decay_interval_steps=195),
        dict(eval__every_steps=0, eval__num_samples=1_000),
        dict(objective__afd_weight=0.0, objective__afd_form="code"),
    ],
)
def test_what_is_switched_off_for_one_run_keeps_its_other_fields(changes):
    checks.validate(config_with(**changes))


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
