"""Check the rules between fields that every config must pass, so that its model can be built.

The values that a single field may have are declared with it, in `defaults` and `networks`. A
function of rules yields pairs: whether the config breaks the rule, and the message that says so.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from ddgan_jax.config.defaults import POINT_SETS, SECTIONS
from ddgan_jax.config.networks import NETWORKS, WITH_CLASSES, network_fields
from ddgan_jax.config.schema import Section, check_group, check_names
from ddgan_jax.config.shapes import (
    CONVOLUTIONAL,
    FEWEST_BLOCKS,
    check_levels,
    check_ncsnpp_widths,
    check_unet,
    input_shrinks,
)
from ddgan_jax.errors import UserError

Rules = Iterator[tuple[Any, str]]


def check_model(config: ConfigDict) -> None:
    """Refuse unknown fields, values that a field cannot have, and models that cannot be built.

    This is the check of configs that come with an export, which name no data set. It takes the same
    time and memory whatever the values are. Raises UserError as `validate` does.
    """
    # Single fields come first: the rules below rely on the types and ranges of the values.
    check_fields(config)
    refuse(_image_rules(config))
    # Under pmap every device holds all of the state, and there is no mesh along which to divide it.
    if config.train.shard_optimizer and config.train.mapping != "shard_map":
        raise UserError("train.shard_optimizer needs train.mapping=shard_map")
    refuse(_schedule_rules(config))
    for role in NETWORKS:
        if check := _NETWORK_CHECKS.get(config[role].name):
            check(config, role)
    refuse(_objective_rules(config))
    refuse(_head_rules(config))


def check_fields(config: Any, *, complete: bool = True) -> Mapping[str, Section]:
    """Return the sections of a config, after a check of its fields' names and values.

    config: anything at all. complete: also refuse a config that lacks sections or fields; the names
    of its networks are needed in any case. Raises UserError.
    """
    sections = dict(SECTIONS)
    # The names of all sections are checked before any field: a misspelled section would otherwise
    # be reported as a missing one.
    check_names("", config, {**SECTIONS, **NETWORKS})
    for name in SECTIONS:
        if complete and name not in config:
            raise UserError(f"{name} is missing")
    # The name of a network decides which fields its group has.
    for role in NETWORKS:
        sections[role] = network_fields(role, config.get(role, {}))
        if complete:
            _check_not_exchanged(config, role)
    for name, section in sections.items():
        if name in config:
            check_group(f"{name}.", config[name], section, complete=complete)
    return sections


def _check_not_exchanged(config: Any, role: str) -> None:
    """Refuse a group of fields whose `name` alone is that of another network."""
    fields, name = set(config[role]), config[role]["name"]
    if fields == set(NETWORKS[role][name]):
        return
    for other, section in NETWORKS[role].items():
        if fields == set(section):
            raise UserError(
                f"{role}.name={name!r} has other fields than {other!r}, the network of this "
                "config: a name cannot exchange networks; take another config, or write one"
            )


def check_time_embedding(config: ConfigDict) -> None:
    """Refuse an embedding that is not defined at t = 0.

    Published networks with such an embedding can be imported, but neither trained nor sampled.
    """
    d, g = config.diffusion, config.generator
    embeds_logarithm = g.get("time_embedding") == "fourier" and g.get("time_conditional", True)
    if embeds_logarithm and d.schedule != "cosine":
        raise UserError(
            "generator.time_embedding='fourier' embeds log(t), and t = 0 occurs in "
            f"diffusion.schedule={d.schedule!r}; use 'positional'"
        )


def refuse(rules: Iterable[tuple[Any, str]]) -> None:
    """Raise UserError with the message of the first rule that is broken."""
    for is_broken, message in rules:
        if is_broken:
            raise UserError(message)


# ---- images, noise schedule, objective


def _image_rules(config: ConfigDict) -> Rules:
    data = config.data
    # Points are stored as images of one pixel whose two channels are the coordinates.
    points = data.name in POINT_SETS
    yield (
        points and (data.image_size, data.channels) != (1, 2),
        f"data.name={data.name!r} needs data.image_size=1 and data.channels=2",
    )
    yield (
        not points and data.channels not in (1, 3),
        f"data.channels={data.channels} must be 1 (gray) or 3 (RGB)",
    )
    yield (
        # Points have one pixel, so that this refuses them as well.
        config.diffusion.space == "haar" and data.image_size % 2,
        f"diffusion.space='haar' needs an even data.image_size, not {data.image_size}: a Haar band "
        "has a pixel for each 2 x 2 of the image",
    )


def _schedule_rules(config: ConfigDict) -> Rules:
    d, prediction = config.diffusion, config.objective.prediction
    betas = f"not beta_min={d.beta_min} and beta_max={d.beta_max}"
    if d.schedule == "cosine":
        yield (
            # x_0 would follow by a division by the signal, which is zero there.
            prediction == "noise",
            "objective.prediction='noise' cannot tell x_0 at the noisy end of "
            "diffusion.schedule='cosine', where no signal is left; use 'x_0'",
        )
        # It has no betas, and it is defined between its steps, so that any number can be sampled.
        return
    # A discrete schedule has betas for its T steps and for no other number of steps.
    yield (
        config.sampling.num_steps not in (0, d.num_timesteps),
        f"sampling.num_steps={config.sampling.num_steps}: diffusion.schedule={d.schedule!r} "
        "samples in diffusion.num_timesteps steps only; use 0",
    )
    yield (
        d.schedule == "vp" and not 0 <= d.beta_min < d.beta_max,
        f"diffusion.schedule='vp' needs 0 <= beta_min < beta_max, {betas}",
    )
    yield (
        d.schedule == "geometric" and not 0 < d.beta_min < d.beta_max < 1,
        f"diffusion.schedule='geometric' needs 0 < beta_min < beta_max < 1, {betas}; try 0.0001 "
        "and 0.999",
    )
    yield (
        # A noise prediction fails here as at the end of the cosine: pure noise holds no signal.
        d.schedule == "one_shot" and (d.num_timesteps != 1 or prediction == "noise"),
        "diffusion.schedule='one_shot', pure noise in one step, needs "
        "diffusion.num_timesteps=1 and objective.prediction='x_0' or 'x_t'",
    )


def _objective_rules(config: ConfigDict) -> Rules:
    o, d = config.objective, config.diffusion
    # Augmentation noises x_0 by a further discrete schedule, in the place of the chain's own steps.
    augmentation = f"objective.augmentation_timesteps={o.augmentation_timesteps} needs"
    yield (
        o.prediction != "x_0" and config.generator.get("output_tanh"),
        f"objective.prediction={o.prediction!r} needs generator.output_tanh=False, "
        "since its values leave [-1, 1]",
    )
    yield (
        o.augmentation_timesteps and (d.num_timesteps, o.prediction) != (1, "x_0"),
        f"{augmentation} diffusion.num_timesteps=1 and objective.prediction='x_0'",
    )
    # "one_shot" has no levels between the image and pure noise, and "cosine" is no list of levels.
    without_levels = d.schedule in ("cosine", "one_shot")
    yield (
        o.augmentation_timesteps and (without_levels or o.judged == "x_0" or o.afd_weight),
        f"{augmentation} diffusion.schedule='vp' or 'geometric', objective.judged='x_t' and "
        "objective.afd_weight=0",
    )
    yield (
        # Direct denoising samples x_t without ever forming an estimate of x_0.
        o.prediction == "x_t" and (o.afd_weight or o.judged == "x_0"),
        "objective.prediction='x_t' tells no x_0, which objective.afd_weight > 0 and "
        "objective.judged='x_0' need",
    )
    yield (
        o.reconstruction_weight and o.prediction == "x_t",
        "objective.prediction='x_t' tells no x_0, which objective.reconstruction_weight > 0 needs",
    )
    yield (
        o.reconstruction_weight and (not o.joint or o.afd_weight or o.denoising_weight),
        "objective.reconstruction_weight is a term of DDGAN's loss; beside SIDDM's terms use "
        "objective.afd_form='recon'",
    )
    yield (
        not o.adversarial_weight and not o.afd_weight,
        "objective.adversarial_weight=0 and objective.afd_weight=0 leave the generator "
        "nothing to minimise",
    )


def _head_rules(config: ConfigDict) -> Rules:
    """Yield the rules of what a network can be asked for: further heads, classes."""
    # DDGAN's discriminators give one logit for a pair of images; a U-Net has outputs per pixel.
    o, name = config.objective, config.discriminator.name
    heads = {
        "objective.afd_regression": o.afd_weight > 0 and o.afd_regression,
        "objective.denoising_weight": o.denoising_weight > 0,
    }
    for field, used in heads.items():
        yield (
            used and name in CONVOLUTIONAL,
            f"{field} needs a discriminator with further heads, not discriminator.name={name!r}; "
            "use 'unet'",
        )
        yield (
            used and o.judged == "x_0",
            f"{field} needs objective.judged='x_t': its head reads x_t",
        )
    yield (
        not o.joint and name in CONVOLUTIONAL,
        f"objective.joint=False: discriminator.name={name!r} always judges pairs; use 'unet'",
    )
    for role in NETWORKS:
        yield (
            # A network that ignores the class would train without an error and draw classes at
            # random.
            config.data.num_classes and config[role].name not in WITH_CLASSES,
            f"data.num_classes={config.data.num_classes}: {role}.name={config[role].name!r} cannot "
            "be told the class; take data.num_classes=0, or a SIDDM config, such as cifar10_siddm",
        )


# ---- networks, by name


def _check_ncsnpp(config: ConfigDict, role: str) -> None:
    g = config[role]
    # The taps are divided by their sum.
    if g.fir and not (len(g.fir_kernel) >= 2 and sum(g.fir_kernel)):
        raise UserError(
            f"{role}.fir_kernel={g.fir_kernel} must be at least two taps, of a sum other than 0"
        )
    shrinks = input_shrinks(config, role)
    check_levels(g, config.data.image_size, shrinks=shrinks, group=f"{role}.", size="data.")
    check_ncsnpp_widths(g, f"{role}.")


def _check_wavelet(config: ConfigDict, role: str) -> None:
    g = config[role]
    if g.wavelet_blocks and g.resblock == "biggan_oneadagn":
        raise UserError(
            f"{role}.resblock='biggan_oneadagn' has no form with {role}.wavelet_blocks; use "
            f"'biggan', or {role}.wavelet_blocks=False"
        )
    _check_ncsnpp(config, role)


def _check_convolutional(config: ConfigDict, role: str) -> None:
    d, size = config[role], config.data.image_size
    published = CONVOLUTIONAL[d.name]
    most = len(published.width_multipliers)
    if d.num_blocks and not FEWEST_BLOCKS <= d.num_blocks <= most:
        raise UserError(
            f"{role}.num_blocks={d.num_blocks}: {role}.name={d.name!r} has {FEWEST_BLOCKS} to "
            f"{most} blocks; 0 takes all"
        )
    factor = published.first(d.num_blocks).factor * input_shrinks(config, role)
    if size % factor:
        blocks = f" with {d.num_blocks} blocks" if d.num_blocks else ""
        raise UserError(
            f"data.image_size={size} does not suit {role}.name={d.name!r}{blocks}, which needs a "
            f"multiple of {factor}"
        )


def _check_unet(config: ConfigDict, role: str) -> None:
    shrinks = input_shrinks(config, role)
    size = config.data.image_size
    check_unet(config[role], size, shrinks=shrinks, group=f"{role}.", size="data.")


def _check_mlp(config: ConfigDict, role: str) -> None:
    if config.data.image_size != 1:
        raise UserError(
            f"{role}.name='mlp' is for the points of {', '.join(POINT_SETS)}, not for images"
        )


# A network without rules between its fields needs no check.
_NETWORK_CHECKS: Mapping[str, Callable[[ConfigDict, str], None]] = {
    "ncsnpp": _check_ncsnpp,
    "wavelet": _check_wavelet,
    "small": _check_convolutional,
    "large": _check_convolutional,
    "unet": _check_unet,
    "mlp": _check_mlp,
}
