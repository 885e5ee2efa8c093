"""Write the reference of all fields, docs/config.md, from their declarations.

    python -m ddgan_jax.config.reference > docs/config.md

A test compares the page in docs/ with the one that this module writes.
"""

from typing import Any

from ddgan_jax.config.defaults import SECTIONS
from ddgan_jax.config.networks import NETWORKS
from ddgan_jax.config.schema import LARGEST, Field, Section

_HEAD = """\
# Fields of a config

Written by `python -m ddgan_jax.config.reference` from the declarations in `ddgan_jax/config/`.

A config file sets a field with `c.train.batch_size = 64`, the command line with
`--config.train.batch_size=64`. The defaults are those of `base_config()`, DDGAN on 32-pixel images;
`siddm_config()` changes some of them. `ddgan show --config=FILE --all` prints every field of a
config with its value. A field that nothing reads in a config is refused unless it has its default.
Fields with a star may change when a run resumes.

"""
_TITLES = {
    "data": "the images, and how they are read",
    "diffusion": "the noise schedule",
    "objective": "what the two networks minimise",
    "optimizer": "Adam and the moving average",
    "train": "the training",
    "log": "lines of metrics and grids of samples",
    "checkpoint": "what is saved",
    "eval": "numbers of the averaged parameters during the run, and the best checkpoint",
    "sampling": "the compiled sampler",
}


def page() -> str:
    """Return the reference as Markdown: a table for each section, and for each network."""
    parts = [f"## {name}: {_TITLES[name]}\n\n{_table(s)}" for name, s in SECTIONS.items()]
    for role, networks in NETWORKS.items():
        parts += [f"## {role}, name = {name!r}\n\n{_table(s)}" for name, s in networks.items()]
    return _HEAD + "\n".join(parts)


def _table(section: Section) -> str:
    defaults = {name: field.default for name, field in section.items()}
    lines = ["| field | default | values | meaning |", "|---|---|---|---|"]
    for name, field in section.items():
        values = ", ".join(map(_code, field.choices)) or _values(field)
        needed = f" Read only with {field.needed(defaults)}." if field.needs else ""
        name = f"`{name}`" + " *" * field.may_change
        lines.append(f"| {name} | {_code(field.default)} | {values} | {field.sentence}{needed} |")
    return "\n".join(lines) + "\n"


_KINDS = {bool: "True or False", int: "integer", float: "number", str: "text"}


def _values(field: Field) -> str:
    """Return the values of a field without choices: "integer > 0, at most 8,192, pixels"."""
    default = field.default
    kind = _KINDS.get(type(default)) or f"tuple of {_KINDS[type((*default, 0)[0])]}s"
    parts = [kind + _bounds(field)]
    parts += [f"at most {field.at_most:,}"] * (field.at_most != LARGEST)
    return ", ".join([*parts, field.unit] if field.unit else parts)


def _bounds(field: Field) -> str:
    if field.above is not None:
        return f" > {field.above}"
    if field.at_least is None:
        return ""
    return f" ≥ {field.at_least}" + (f" and < {field.below}" if field.below is not None else "")


def _code(value: Any) -> str:
    return f'`"{value}"`' if isinstance(value, str) else f"`{value!r}`"


if __name__ == "__main__":
    print(page(), end="")
