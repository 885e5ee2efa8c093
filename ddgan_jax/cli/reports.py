"""Declare the commands that show the results of runs: report, and figure tradeoff."""

import sys
from typing import TYPE_CHECKING

from absl import flags

from ddgan_jax.cli.arguments import Flag
from ddgan_jax.cli.command import FORCE, Command, into_file
from ddgan_jax.files.locks import output_file
from ddgan_jax.viz.figure_files import FORMS, form_of

if TYPE_CHECKING:
    from etils import epath


def _tradeoff(values: flags.FlagValues, out: "epath.Path") -> None:
    from ddgan_jax.files import atomic
    from ddgan_jax.viz import tradeoff

    # All files are read before the chart is drawn, so that a wrong one leaves no chart behind.
    paths = tradeoff.find(values.results)
    metric = values.metric or tradeoff.common_metric(paths)
    results = [tradeoff.read(path, metric) for path in paths]
    chart = tradeoff.chart_file(form_of(out), results, metric, published=values.published)
    atomic.write_atomically(out, chart)
    chosen = "" if values.metric else ", the first that all of them have: --metric takes others"
    print(f"{len(results)} results in {out}\nmetric {metric}{chosen}")


def _report(values: flags.FlagValues) -> None:
    from ddgan_jax.files import atomic
    from ddgan_jax.viz import report_data, report_page

    # The lock of the page makes missing folders, and must not make a run folder that is misspelled.
    place = values.out or report_data.find(values.workdir).report
    with output_file(place, ".html", ".htm", force=values.force) as out:
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
            "A chart with a point for each result file of `ddgan evaluate`, the time on a\n"
            "logarithmic axis. Results of other features, references or numbers of samples are\n"
            "refused: they do not belong in one plot."
        ),
        flags=(
            Flag("results", "LIST", "files, folders or patterns such as 'r/*.json'", required=True),
            Flag("metric", "NAME", "as in the files; without it one that all have, FID first", ""),
            Flag("published", "", "add the points of the DDGAN paper, CIFAR-10", False, "switch"),
            Flag("out", "FILE", "the chart: a .svg, .pdf or .png", "tradeoff.svg"),
            FORCE,
        ),
        examples=(
            "ddgan figure tradeoff --results=runs/a/evaluations,runs/b/evaluations",
            "ddgan figure tradeoff --results='results/*.json' --published --out=fid.pdf",
        ),
        run=into_file(_tradeoff, *FORMS),
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
            Flag("out", "HTML", "the page; without it WORKDIR/report.html", ""),
            FORCE,
        ),
        examples=("ddgan report --workdir=runs/digits",),
        run=_report,
    ),
}
