"""The README.md of an export: what the model is, where it comes from, how to draw from it."""

from collections.abc import Mapping, Sequence
from typing import Any


def render(about: Mapping[str, Any], grid_seeds: Sequence[int]) -> str:
    """The card, Markdown. about: config.json of the export; grid_seeds: of samples.png."""
    data = about["data"]
    name = data["name"] or "unnamed data"
    kind = "Class-conditional" if data["num_classes"] else "Unconditional"
    seeds = f"seeds {grid_seeds[0]} to {grid_seeds[-1]}" if len(grid_seeds) > 1 else "one seed"
    return "\n".join(
        [
            "---",
            "library_name: ddgan-jax",
            f"tags: [diffusion, gan, {about['method'].lower()}, jax]",
            "---",
            "",
            f"# {about['method']} on {name}, {data['image_size']} pixels",
            "",
            f"{kind} image generator; {about['denoising_steps']} denoising steps.",
            "",
            f"![{seeds}](samples.png)",
            "",
            *_facts(about),
            "",
            "## Drawing images",
            "",
            "With ddgan-jax:",
            "",
            "```sh",
            "ddgan sample --export=. --seeds=0-63 --out=grid.png",
            "```",
            "",
            "With JAX alone, on CPU, NVIDIA GPU or TPU, in any batch size:",
            "",
            "```python",
            *standalone_example(about),
            "```",
            "",
            "JAX reads such a program for half a year after the version that wrote it",
            f"({about['written_by']['jax']}). `model.safetensors` and `config.json` have no such",
            "limit: they are plain arrays by name and JSON.",
            "",
        ]
    )


def standalone_example(about: Mapping[str, Any], folder: str = ".") -> list[str]:
    """A program that draws 64 images from the export in `folder` with nothing but JAX."""
    with_labels = about["data"]["num_classes"] > 0
    with_arrays = about["sampler"]["arguments"][0].startswith("arrays")
    arguments = ["seeds"] + ["labels"] * with_labels
    lines = [
        "import sys",
        "",
        "import jax.export",
        "import numpy as np",
        "",
        f'folder = "{folder}"',
        'sys.path.append(f"{folder}/flatbuffers.zip")  # JAX reads exports with it',
        'with open(f"{folder}/sampler.stablehlo", "rb") as file:',
        "    sampler = jax.export.deserialize(file.read())",
        "seeds = np.arange(64, dtype=np.uint32)",
    ]
    if with_labels:
        lines.append(f"labels = (seeds % {about['data']['num_classes']}).astype(np.int32)")
    if with_arrays:
        lines.insert(4, "from safetensors.flax import load_file")
        lines.append('arrays = load_file(f"{folder}/model.safetensors")')
        arguments.insert(0, "arrays")
    return [
        *lines,
        f"images = np.asarray(sampler.call({', '.join(arguments)}))",
        "print(images.shape, images.dtype)",
    ]


def _facts(about: Mapping[str, Any]) -> list[str]:
    rows = {
        "result of the sampler": about["sampler"]["result"],
        "classes": about["data"]["num_classes"] or "none",
        "parameters": f"{about['parameters']:,} ({about['dtype']}, {about['weights']})",
        "training steps": f"{about['step']:,}",
        "licence": about["licence"],
        "provenance": _sentence(about["provenance"]),
        "metrics": _sentence(about["metrics"]) or "none",
    }
    if "rounding" in about:
        r = about["rounding"]
        rows["rounding"] = (
            f"images differ from those of the unrounded parameters by {r['mean_difference']} on "
            f"average, {r['largest_difference']} at most ({r['unit']}; {r['images']} images)"
        )
    return ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())]


def _sentence(entries: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name.replace('_', ' ')}: "
        + (f"({_sentence(value)})" if isinstance(value, Mapping) else _number(value))
        for name, value in entries.items()
    )


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
