"""A result for people, and what wrote it."""

import datetime
from collections.abc import Mapping
from typing import Any

import jax

import ddgan_jax


def written_by() -> dict[str, str]:
    """This program, what it ran on, and when."""
    return {
        "ddgan_jax": ddgan_jax.__version__,
        "jax": jax.__version__,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def table(result: Mapping[str, Any]) -> str:
    """The result for people: a line for each number, then what they depend on."""
    values = result["metrics"]
    lines = []
    for name, value in values.items():
        if "_std" not in name:
            lines.append(f"{name:<26} {_shown(name, value)}{_spread(name, values)}")
    lines += ["", f"samples    {result['samples']['count']:,} {result['samples']['images']}"]
    if "sha256" in result["model"]:
        lines.append(f"           parameters sha256 {result['model']['sha256'][:16]}")
    lines.append(f"features   {_feature_line(result['features'])}")
    if real := result["reference"]:
        kept = f", {real['features_kept']:,} features kept" if real["features_kept"] else ""
        lines.append(f"reference  {real['dataset']}: {real['count']:,} images{kept}")
        lines.append(f"           {real['preprocessing']}")
    if modes := result.get("modes"):
        lines.append(
            f"modes      of 1,000; a perfect sampler's KL is {modes['kl_floor']:.4f}; accuracy of "
            f"the digit classifier {modes['classifier']['accuracy']:.2%}"
        )
    if sampling := result["sampling"]:
        lines.append(
            f"sampling   {sampling['network_evaluations_per_image']} network evaluations an image, "
            f"{sampling['seconds_per_100_images']:.3g} s for 100 images on {sampling['device']}"
        )
    if not result["samples"]["comparable_with_published_numbers"]:
        lines.append("note       not comparable with published numbers")
    return "\n".join(lines)


def _shown(name: str, value: float) -> str:
    # A distance of equal sets is 0 up to rounding, on either side; a kernel distance may be less.
    return f"{max(value, 0.0) if name.startswith(('fid', 'frechet')) else value:.5g}"


def _spread(name: str, values: Mapping[str, float]) -> str:
    kind, _, rest = name.partition("_")
    std = values.get("_".join(filter(None, (kind, "std", rest))))
    return "" if std is None else f" +- {std:.2g}"


def _feature_line(identity: Mapping[str, Any]) -> str:
    parts = [identity["network"]]
    if "protocol" in identity:
        parts.append(f"protocol {identity['protocol']}")
    if "accuracy" in identity:
        parts.append(f"trained on {identity['dataset']}, accuracy {identity['accuracy']:.2%}")
    if "weights_sha256" in identity:
        parts.append(f"weights sha256 {identity['weights_sha256'][:16]}")
    return ", ".join(parts)
