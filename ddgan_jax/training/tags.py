"""Group the metrics of a run for TensorBoard and other trackers.

metrics.jsonl has the plain names. A tracker shows a group as a section of charts, and takes what
stands before the slash of a tag for the name of the group.
"""

from collections.abc import Mapping

from ddgan_jax.files.run_folder import SPEED

GROUPS = {
    "loss": (
        *("d_loss_real", "d_loss_fake", "g_loss", "r1"),
        *("g_afd", "d_regression", "d_denoising"),  # SIDDM alone has these
    ),
    "logits": ("d_logit_real", "d_logit_fake"),
    "gradients": ("d_gradient_norm", "g_gradient_norm"),
    "parameters": ("ema_distance",),
    "schedule": ("d_learning_rate", "g_learning_rate"),
    "speed": (SPEED,),
}
_TAGS = {name: f"{group}/{name}" for group, names in GROUPS.items() for name in names}


def tagged(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics by tags such as "loss/g_loss".

    The names of scores, such as "eval/fid_5000", are tags already. Names that no group has, as of a
    new method, stay as they are.
    """
    return {_TAGS.get(name, name): value for name, value in metrics.items()}
