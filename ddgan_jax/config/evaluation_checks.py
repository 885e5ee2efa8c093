"""Checks of what a run is evaluated by."""

from ml_collections import ConfigDict

from ddgan_jax.config.fields import check_choice
from ddgan_jax.data import mixture
from ddgan_jax.errors import UserError
from ddgan_jax.metrics import names


def check_evaluation(config: ConfigDict) -> None:
    """Refuse config.eval, if it is switched on, where its numbers could not be computed."""
    wanted = config.eval
    check_choice(config, "eval.features", names.FEATURES)
    check_choice(config, "eval.protocol", names.PROTOCOLS)
    if not wanted.every_steps:
        return
    if config.data.name in mixture.SETS:
        raise UserError(f"eval.every_steps > 0 is for images, not for data.name={config.data.name}")
    metrics = wanted.metrics.split(",")
    try:
        names.check(metrics, wanted.features)
        names.check_count(metrics, wanted.num_samples, allow_small=True)
    except UserError as error:
        raise UserError(f"eval.metrics={wanted.metrics}: {error}") from error
    if "modes" in metrics and config.data.name != "stacked_mnist":
        raise UserError("eval.metrics: modes are counted on data.name='stacked_mnist'")
    if wanted.best:
        numbers = names.value_names(metrics, wanted.features, wanted.num_samples)
        check_choice(config, "eval.best", numbers)
