"""Write the README.md of an export: a description of the model, its origin and its use.

Names, licences and the like come from anybody who made a model. Only `text` puts them into the
card, as words that are neither Markdown nor HTML. None of them goes into the front matter, which
`card_metadata` writes.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ddgan_jax.errors import shown
from ddgan_jax.inference import card_metadata

# Characters of a single text in the card.
LONGEST_TEXT = 500
UNKNOWN_LICENCE = "not stated"
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
# Characters that have a meaning in Markdown within a line. Among them are ":" and "@", since
# Markdown turns bare addresses into links.
_SPECIAL = re.compile(r"[&<>]|[\\`*_{}\[\]()#+!|~$^=\"':@]|(?<=www)\.", re.IGNORECASE)


def text(value: object) -> str:
    """Return an untrusted text as Markdown that shows its characters, in one line, and cut."""
    return _SPECIAL.sub(
        lambda found: _ENTITIES.get(found[0], f"\\{found[0]}"), shown(value, LONGEST_TEXT)
    )


def render(about: Mapping[str, Any], grid_seeds: Sequence[int] | np.ndarray) -> str:
    """Return the card, Markdown. about: config.json of the export; grid_seeds: of samples.png."""
    data = about["data"]
    name = text(data["name"] or "unnamed data")
    kind = "Class-conditional" if data["num_classes"] else "Unconditional"
    # A card without a picture must not say how to draw one.
    if about.get("not_drawable"):
        picture, drawing = f"No image can be drawn from it: {text(about['not_drawable'])}.", []
    else:
        first, last = grid_seeds[0], grid_seeds[-1]
        seeds = f"seeds {first} to {last}" if len(grid_seeds) > 1 else "one seed"
        picture, drawing = f"![{seeds}](samples.png)", _drawing(about)
    return "\n".join(
        [
            *card_metadata.front_matter(about),
            "",
            f"# {about['method']} on {name}, {data['image_size']} pixels",
            "",
            f"{kind} image generator; {about['denoising_steps']} denoising steps.",
            "",
            picture,
            "",
            *_facts(about),
            "",
            *drawing,
            *_parameters(about["dtype"]),
        ]
    )


def _drawing(about: Mapping[str, Any]) -> list[str]:
    lines = [
        "## Drawing images",
        "",
        "With ddgan-jax:",
        "",
        "```sh",
        "ddgan sample --export=. --seeds=0-63 --out=grid.png",
        "```",
        "",
    ]
    if "sampler" not in about:
        return lines
    return [
        *lines,
        "With JAX alone, on CPU, NVIDIA GPU or TPU, in any batch size, after",
        "`pip install jax flatbuffers`:",
        "",
        "```python",
        *standalone_example(about),
        "```",
        "",
        "`sampler.stablehlo` is a program, to be run only from people whom you trust;",
        "`model.safetensors` with `config.json` is for everyone else. JAX reads such a program for",
        f"half a year after the version that wrote it ({about['written_by']['jax']}).",
        "",
    ]


def _parameters(dtype: str) -> list[str]:
    lines = [
        "## The parameters",
        "",
        "`model.safetensors` and `config.json` are arrays by name and JSON, for any program.",
    ]
    # NumPy has no bfloat16 of its own, so that only these arrays need an explanation.
    if dtype != "bfloat16":
        return [*lines, ""]
    lines.append("The arrays are bfloat16, which NumPy knows after `pip install ml_dtypes`:")
    return [*lines, "", "```python", *BFLOAT16_EXAMPLE, "```", ""]


# NumPy's own way to the arrays: a length, a JSON header, the numbers.
BFLOAT16_EXAMPLE = (
    "import json",
    "",
    "import ml_dtypes",
    "import numpy as np",
    "",
    'content = open("model.safetensors", "rb").read()',
    'start = 8 + int.from_bytes(content[:8], "little")',
    "header, numbers = json.loads(content[8:start]), content[start:]",
    'header.pop("__metadata__", None)',
    "arrays = {",
    '    name: np.frombuffer(numbers[slice(*entry["data_offsets"])], ml_dtypes.bfloat16)',
    '    .reshape(entry["shape"])',
    "    for name, entry in header.items()",
    "}",
)


def standalone_example(about: Mapping[str, Any], folder: str = ".") -> list[str]:
    """Return a program that draws 64 images from the export in `folder` with JAX alone."""
    with_labels = about["data"]["num_classes"] > 0
    with_arrays = about["sampler"]["arguments"][0].startswith("arrays")
    # The order is that of the program's arguments: arrays, seeds, labels.
    arguments = ["seeds"] + ["labels"] * with_labels
    lines = [
        "import jax.export",
        "import numpy as np",
        "",
        f'folder = "{folder}"',
        'with open(f"{folder}/sampler.stablehlo", "rb") as file:',
        "    sampler = jax.export.deserialize(file.read())",
        "seeds = np.arange(64, dtype=np.uint32)",
    ]
    if with_labels:
        lines.append(f"labels = (seeds % {about['data']['num_classes']}).astype(np.int32)")
    if with_arrays:
        lines.insert(2, "from safetensors.flax import load_file")
        lines.append('arrays = load_file(f"{folder}/model.safetensors")')
        arguments.insert(0, "arrays")
    return [
        *lines,
        f"images = np.asarray(sampler.call({', '.join(arguments)}))",
        "print(images.shape, images.dtype)",
    ]


def _facts(about: Mapping[str, Any]) -> list[str]:
    rows = {"result of the sampler": about["sampler"]["result"]} if "sampler" in about else {}
    rows |= {
        "classes": about["data"]["num_classes"] or "none",
        "parameters": f"{about['parameters']:,} ({about['dtype']}, {about['weights']})",
        "training steps": f"{about['step']:,}",
        "licence": _licence(about["licence"]),
        "provenance": _sentence(about["provenance"]),
        "metrics": _metrics(about["metrics"]),
    }
    if "rounding" in about:
        r = about["rounding"]
        rows["rounding"] = (
            f"images differ from those of the unrounded parameters by {r['mean_difference']} on "
            f"average, {r['largest_difference']} at most ({text(r['unit'])}; {r['images']} images)"
        )
    return ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())]


def _licence(licence: str) -> str:
    if licence != UNKNOWN_LICENCE:
        return text(licence)
    return f"{UNKNOWN_LICENCE}; `ddgan export --licence=NAME` states it"


def _metrics(metrics: Mapping[str, Any]) -> str:
    if not (scores := card_metadata.scores(metrics)):
        return "none"
    at = f" (at step {text(metrics['scored_at'])})" if "scored_at" in metrics else ""
    return _sentence(scores) + at


def _sentence(entries: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{text(name.replace('_', ' '))}: "
        + (f"({_sentence(value)})" if isinstance(value, Mapping) else _number(value))
        for name, value in entries.items()
    )


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else text(value)
