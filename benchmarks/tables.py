"""Render docs/performance.md: its words from a template, every number from a result file.

    python -m benchmarks.tables --results=docs/results --out=docs/performance.md

The template, docs/performance.template.md, holds

- `{{FILE:KEY.KEY}}` or `{{FILE:KEY.KEY|FORMAT}}`: a value in docs/results/FILE.json; FORMAT is
  Python's, for instance `.1%`, `.3g` or `,.0f`; `*1e-9 .1f` multiplies first;
- `{{FILE:KEY / FILE:KEY|FORMAT}}`: the quotient of two values;
- `{{table NAME FILE*}}`: one of the tables of `table_kinds`, of the files that match, and
  `{{table NAME FILE.KEY}}` where a table is of a part of one file.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

from benchmarks import command
from benchmarks.table_kinds import TABLES
from ddgan_jax.cli.arguments import Flag, parse_flags
from ddgan_jax.errors import UserError
from ddgan_jax.files.atomic import write_atomically

FLAGS = (
    Flag("template", "FILE", "Markdown with gaps", "docs/performance.template.md"),
    Flag("results", "FOLDER", "JSON reports of the benchmarks", "docs/results"),
    Flag("out", "FILE", "Markdown file to write", "docs/performance.md"),
)

_GAP = re.compile(r"\{\{(.+?)\}\}")
_NOTICE = "<!-- Written by `python -m benchmarks.tables` from {template}. -->\n\n"
Report = dict[str, Any]


def render(template: str, results: Path) -> str:
    """Return the template with its gaps filled. Raises UserError for a gap that nothing fills."""

    def fill(match: re.Match[str]) -> str:
        try:
            if match[1].startswith("table "):
                _, kind, pattern = match[1].split()
                return TABLES[kind](_matching(results, pattern))
            return _number(match[1], results)
        except (KeyError, ValueError, TypeError, OSError) as error:
            raise UserError(f"{{{{{match[1]}}}}}: {error!r}") from error

    return _GAP.sub(fill, template)


def page(template: Path, results: Path) -> str:
    """Return the whole page, with a line that says where it comes from."""
    return _NOTICE.format(template=template.name) + render(template.read_text(), results)


def _number(gap: str, results: Path) -> str:
    expression, _, form = gap.partition("|")
    value, *divisor = (_lookup(part.strip(), results) for part in expression.split(" / "))
    if divisor:
        value /= divisor[0]
    if scaled := re.fullmatch(r"\*(\S+) (.*)", form):
        value, form = value * float(scaled[1]), scaled[2]
    return format(value, form)


def _lookup(path: str, results: Path) -> Any:
    file, _, keys = path.partition(":")
    value = json.loads((results / f"{file}.json").read_text())
    for key in keys.split("."):
        value = value[int(key) if isinstance(value, list) else key]
    return value


def _matching(results: Path, pattern: str) -> list[Report]:
    file, _, key = pattern.partition(".")
    reports = [json.loads(path.read_text()) for path in sorted(results.glob(f"{file}.json"))]
    if not reports:
        raise ValueError(f"no file {pattern} in {results}")
    return [report[key] for report in reports] if key else reports


def main() -> int:
    """Write the page."""
    values, _ = parse_flags("python -m benchmarks.tables", FLAGS, sys.argv[1:])
    try:
        text = page(Path(values.template), Path(values.results))
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}") from error
    write_atomically(values.out, text.encode())
    return 0


if __name__ == "__main__":
    sys.exit(command.exit_code("tables", main))
