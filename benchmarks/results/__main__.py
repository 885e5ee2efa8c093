"""Write docs/results.md and its plots: words from a template, every number from a result file.

    python -m benchmarks.results --results=docs/results --out=docs/results.md

The plots go into the folder `images` beside the page. What was not measured yet, the page says.
`benchmarks.results.page` explains the template's gaps.
"""

import sys
from pathlib import Path

from benchmarks import command
from benchmarks.results import page, records
from benchmarks.results.plots import PLOTS
from ddgan_jax.cli.arguments import Flag, parse_flags
from ddgan_jax.errors import UserError
from ddgan_jax.experiments.claims_rows import TABLES
from ddgan_jax.files.atomic import write_atomically

FLAGS = (
    Flag("template", "FILE", "Markdown with gaps", "docs/results.template.md"),
    Flag("results", "FOLDER", "result files of the experiments", "docs/results"),
    Flag("out", "FILE", "Markdown file to write", "docs/results.md"),
)


def main() -> int:
    """Write the page and the plots that have results."""
    values, _ = parse_flags("python -m benchmarks.results", FLAGS, sys.argv[1:])
    results = records.read(Path(values.results), TABLES)
    try:
        text = page.page(Path(values.template), results, TABLES)
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}") from error
    for name, plot in PLOTS.items():
        svg = plot.svg(results, TABLES)
        if svg is not None:
            write_atomically(Path(values.out).parent / "images" / f"{name}.svg", svg.encode())
    write_atomically(values.out, text.encode())
    return 0


if __name__ == "__main__":
    sys.exit(command.exit_code("results", main))
