"""Declare the commands that show the results of runs: report, and figure tradeoff."""

import sys
from typing import TYPE_CHECKING

from absl import flags

from ddgan_jax.cli.arguments import Flag
from ddgan_jax.cli.command import Command, into_file

if TYPE_CHECKING:
    from etils import epath


def _tradeoff(values: flags.FlagValues, out: "epath.Path") -> None:
    from ddgan_jax.files import atomic
    from ddgan_jax.viz import charts, tradeoff

    # All files are read before the chart is drawn, so that a wrong one leaves no chart behind.
    results = [tradeoff.read(path, values.metric) for path in tradeoff.find(values.results)]
    chart = tradeoff.chart(results, values.metric, published=values.published)
    atomic.write_atomically(out, charts.standalone(chart).encode())
    print(f"{len(results)} results in {out}")


def _report(values: flags.FlagValues, out: "epath.Path") -> None:
    from ddgan_jax.files import atomic
    from ddgan_jax.viz import report_data, report_page

    run = report_data.read(values.workdir)
    # A damaged file of a run is left out and named, since the rest of the page is still worth
    # having.
    for line in run.left_out:
        print(line, file=sys.stderr)
    atomic.write_atomically(out, report_page.render(run).encode())
    print(f"the report of {values.workdir} in {out}")


COMMANDS = {
    "figure tradeoff": Command(
        summary="quality against sampling time, from result files",
        description=(
            "An SVG chart with a point for each result file of `ddgan evaluate`, the time on a\n"
            "logarithmic axis. Results of other features, references or numbers of samples are\n"
            "refused: they do not belong in one plot."
        ),
        flags=(
            Flag("results", "LIST", "files, folders or patterns such as 'r/*.json'", required=True),
            Flag("metric", "NAME", "as in the files", "fid"),
            Flag("published", "", "add the points of the DDGAN paper, CIFAR-10", False, "switch"),
            Flag("out", "SVG", "the chart", "tradeoff.svg"),
        ),
        examples=(
            "ddgan figure tradeoff --results=runs/a/evaluations,runs/b/evaluations",
            "ddgan figure tradeoff --results='results/*.json' --published --out=fid.svg",
        ),
        run=into_file(_tradeoff, ".svg"),
    ),
    "report": Command(
        summary="the page of a run: config, curves, samples, numbers",
        description=(
            "Write one HTML page with everything that a run folder tells: samples over time,\n"
            "curves, evaluations and where they come from, hardware, speed, the config. It needs\n"
            "no other file and no network; of a run that goes on it shows the state so far."
        ),
        flags=(
            Flag("workdir", "FOLDER", "run folder of `ddgan train`", required=True),
            Flag("out", "HTML", "the page", "report.html"),
        ),
        examples=("ddgan report --workdir=runs/digits",),
        run=into_file(_report, ".html", ".htm"),
    ),
}
