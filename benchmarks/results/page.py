"""Fill the gaps of docs/results.template.md from the results.

- `{{table NAME}}`: a table of claims, `mog25` or `mnist`, below what its rows have in common;
- `{{plot NAME}}`: one of the plots;
- `{{claims TABLE ROW NUMBER}}`: mean and deviation over the seeds, sampled in as many steps as
  trained; `{{claims TABLE ROW NUMBER STEPS}}`: in another number of steps;
- `{{mog25 METHOD T NUMBER}}`: the same of a cell;
- `{{hours}}`: processor time of everything.

What has no results says that it is not measured.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.results import claims, mixture, mnist
from benchmarks.results.plots import PLOTS
from benchmarks.results.records import Results
from benchmarks.results.spread import FORMS, NOT_MEASURED, hours, over_seeds
from ddgan_jax.errors import UserError
from ddgan_jax.experiments.claims_rows import Table

_GAP = re.compile(r"\{\{(.+?)\}\}")
_NOTICE = "<!-- Written by `python -m benchmarks.results` from {template}. -->\n\n"


def page(template: Path, results: Results, tables: Mapping[str, Table]) -> str:
    """Return the whole page, with a line that says where it comes from."""
    return _NOTICE.format(template=template.name) + render(template.read_text(), results, tables)


def render(template: str, results: Results, tables: Mapping[str, Table]) -> str:
    """Return the template with its gaps filled. Raises UserError for a gap that nothing fills."""
    kinds: dict[str, Callable[..., str]] = {
        "table": lambda name: _table(name, results, tables),
        "plot": lambda name: _plot(name, results, tables),
        "claims": lambda *names: _claim(*names, results=results, tables=tables),
        "mog25": lambda *names: _cell(*names, results=results),
        "hours": lambda: hours(results.cpu_seconds()),
    }

    def fill(match: re.Match[str]) -> str:
        kind, *names = match[1].split()
        try:
            return kinds[kind](*names)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{{{{{match[1]}}}}}: {error!r}") from error

    return _GAP.sub(fill, template)


def _table(name: str, results: Results, tables: Mapping[str, Table]) -> str:
    if name == "mog25":
        return mixture.section(results)
    if name == "mnist":
        return mnist.section(results)
    return claims.section(tables[name], name, results)


def _plot(name: str, results: Results, tables: Mapping[str, Table]) -> str:
    plot = PLOTS[name]
    if not plot.measured(results, tables):
        return f'Plot "{plot.title}": {NOT_MEASURED}.'
    return f"![{plot.title}](images/{name}.svg)"


def _claim(
    name: str,
    row: str,
    measure: str,
    steps: str = "",
    *,
    results: Results,
    tables: Mapping[str, Table],
) -> str:
    count = int(steps) if steps else claims.trained_steps(tables[name], row)
    values = claims.values_of(results.of_row(name, row), measure, count)
    return over_seeds(values, FORMS[measure]) if values else NOT_MEASURED


def _cell(method: str, steps: str, field: str, *, results: Results) -> str:
    forms = {name: form for name, _, form in mixture.COLUMNS}
    for size in mixture.sizes(results.cells):
        for cell in results.cells:
            key = (cell.method, cell.num_timesteps, mixture.size_of(cell))
            if key == (method, int(steps), size) and (values := mixture.kept(cell, field)):
                return over_seeds(values, forms[field])
    return NOT_MEASURED
