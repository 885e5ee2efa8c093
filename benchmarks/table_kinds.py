"""Make the tables of docs/performance.md, each from the reports of one or more files."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.scaling import markdown_table

Report = dict[str, Any]


def _setting(report: Report) -> str:
    """Return the name of a report's config, with its variant."""
    name = Path(report["config"].partition(":")[0]).stem
    variant = report["config"].partition(":")[2]
    return f"{name}:{variant}" if variant else name


def _speed_table(reports: Sequence[Report]) -> str:
    """Return the table of train steps and samplers: a row for each program."""
    rows = []
    for report in reports:
        for name, program in report["programs"].items():
            counted, xla = (program["flops_per_image"].get(k) for k in ("counted", "xla"))
            rows.append(
                [
                    _setting(report),
                    _program_name(name, report),
                    report["compute_dtype"],
                    f"{report['batch_size']}",
                    f"{program['seconds_per_image']['median']:.3g}",
                    f"{program['cpu_seconds_per_image']['median']:.3g}",
                    f"{program['images_per_second']:.3g}",
                    f"{counted / 1e9:.3g}",
                    f"{xla / 1e9:.3g}" if xla else "-",
                    _percent(program.get("share_of_matrix_peak")),
                    _percent(program.get("share_of_memory_bandwidth")),
                    f"{program['compile_seconds']:.3g}",
                    f"{(report['peak_device_bytes'] or report['peak_rss_bytes']) / 2**30:.2f}",
                ]
            )
    head = ["config", "program", "dtype", "batch", "s per image", "CPU s per image", "images/s"]
    head += ["GFLOP per image, counted", "XLA's", "of matrix peak", "of memory bandwidth"]
    return markdown_table([*head, "compile s", "peak GiB"], rows)


def _program_name(name: str, report: Report) -> str:
    what = {"with_r1": "step with R1", "without_r1": "step", "sample": "sampler"}[name]
    return what + (f", NFE {report['nfe']}" if "nfe" in report else "")


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"


def _pipeline_table(reports: Sequence[Report]) -> str:
    """Return the table of input pipelines: a row for each."""
    rows = [
        [
            _setting(report),
            report["source"],
            f"{report['batch_size']}",
            f"{report['images_per_second']:,.0f}",
            f"{1e6 * report['cpu_seconds_per_image']:.3g}",
        ]
        for report in reports
    ]
    return markdown_table(["config", "read from", "batch", "images/s", "CPU us per image"], rows)


def _overhead_table(reports: Sequence[Report]) -> str:
    """Return the table of what a run adds to its steps: a row for each config."""
    rows = [
        [
            _setting(report),
            f"{report['batch_size']}",
            f"{report['seconds_per_step']['constant_batch']['median']:.3g}",
            f"{report['real_data_over_constant']['median']:.3f}",
            *(
                f"{report['seconds_each_time'][name]['median']:.3g} / {every:,}"
                for name, every in report["every_steps"].items()
            ),
            f"{report['share_of_step_time']['together']:.2%}",
        ]
        for report in reports
    ]
    head = ["config", "batch", "s per step", "real data / constant batch"]
    events = ["log: s / every steps", "grid", "checkpoint", "all three, of the step time"]
    return markdown_table([*head, *events], rows)


def _mixture_table(reports: Sequence[Report]) -> str:
    """Return the table of the loop of the 25 Gaussians: a row for each batch size."""
    rows = [
        [
            f"{report['batch_size']:,}",
            f"{report['seeds']}",
            f"{report['iterations_per_second']:.4g}",
            f"{1e3 * report['cpu_seconds_per_iteration']:.3g}",
            _percent(report["programs"]["many_steps"].get("share_of_matrix_peak")),
            f"{report['baseline']['ratio']['median']:.2f}" if "baseline" in report else "-",
            f"{report['baseline']['cpu_ratio']['median']:.2f}" if "baseline" in report else "-",
        ]
        for report in reports
    ]
    head = ["batch", "seeds", "iterations/s", "CPU ms per iteration", "of matrix peak"]
    return markdown_table([*head, "times the baseline, wall", "CPU"], rows)


def _baseline_table(reports: Sequence[Report]) -> str:
    """Return the table of the same work by another program: a row for each report."""
    rows = []
    for report in reports:
        baseline = report["baseline"]
        [name] = report["programs"]
        rows.append(
            [
                _program_name(name, report),
                report["compute_dtype"],
                f"{report['batch_size']}",
                re.search(r"--threads=(\d+)|$", baseline["command"])[1] or "-",
                *(f"{r['seconds_per_image']:.3g}" for r in (report, _medians(baseline))),
                f"{baseline['ratio']['median']:.2f}",
                *(f"{r['cpu_seconds_per_image']:.3g}" for r in (report, _medians(baseline))),
                f"{baseline['cpu_ratio']['median']:.2f}",
                f"{baseline['cpu_ratio']['min']:.2f} to {baseline['cpu_ratio']['max']:.2f}",
            ]
        )
    head = ["program", "dtype", "batch", "threads", "s per image", "PyTorch's", "ratio"]
    return markdown_table([*head, "CPU s per image", "PyTorch's", "ratio", "of the pairs"], rows)


def _methods_table(reports: Sequence[Report]) -> str:
    """Return the table of WaveDiff beside DDGAN by counting: a row for each data set.

    reports: the one of `benchmarks.shapes`.
    """
    [shapes] = reports
    rows = []
    for name in sorted(shapes):
        set_name, _, method = name.rpartition("_")
        if method != "wavediff" or f"{set_name}_ddgan" not in shapes:
            continue
        pair = [shapes[f"{set_name}_ddgan"], shapes[name]]
        parameters = [one["parameters"] for one in pair]
        flops = [one["flops_per_image_and_step"]["without_r1"] for one in pair]
        memory = [one["activation_bytes_per_image"][""] for one in pair]
        rows.append(
            [
                set_name,
                " / ".join(f"{p['generator'] / 1e6:.3g} M" for p in parameters),
                " / ".join(f"{p['discriminator'] / 1e6:.3g} M" for p in parameters),
                " / ".join(f"{f / 1e9:,.4g}" for f in flops),
                f"{flops[0] / flops[1]:.1f}",
                " / ".join(f"{m / 1e6:,.4g}" for m in memory),
            ]
        )
    head = ["data set", "generator", "discriminator", "GFLOP, train step of an image", "ratio"]
    return markdown_table([*head, "MB kept for an image"], rows)


def _pairs_table(reports: Sequence[Report]) -> str:
    """Return the table of WaveDiff beside DDGAN by the clock: a row for each report."""
    rows = []
    for report in reports:
        baseline = report["baseline"]
        [name] = report["programs"]
        rows.append(
            [
                _setting(report).removesuffix("_wavediff"),
                _program_name(name, report),
                f"{report['batch_size']}",
                *(f"{r['cpu_seconds_per_image']:.3g}" for r in (_medians(baseline), report)),
                f"{baseline['cpu_ratio']['median']:.2f}",
                f"{baseline['cpu_ratio']['min']:.2f} to {baseline['cpu_ratio']['max']:.2f}",
                f"{baseline['ratio']['median']:.2f}",
            ]
        )
    head = ["data set", "program", "batch", "DDGAN: CPU s per image", "WaveDiff"]
    return markdown_table([*head, "DDGAN / WaveDiff", "of the pairs", "by wall time"], rows)


def _medians(figures: Report) -> Report:
    return {key: value["median"] for key, value in figures.items() if isinstance(value, dict)}


def _checkpoint_table(reports: Sequence[Report]) -> str:
    """Return the table of checkpoints: a row for each config."""
    rows = [
        [
            _setting(report),
            f"{(report['generator_parameters'] + report['discriminator_parameters']) / 1e6:.1f} M",
            f"{report['state_bytes'] / 1e6:,.0f}",
            f"{report['bytes_on_disk'] / 1e6:,.0f}",
            *(
                f"{report[f'{name}_seconds']['median']:.3g}"
                for name in ("save_blocks", "save_durable", "restore", "load_ema")
            ),
        ]
        for report in reports
    ]
    head = ["config", "parameters", "state, MB", "on disk, MB", "save: training waits, s"]
    return markdown_table([*head, "until durable, s", "restore, s", "EMA alone, s"], rows)


def _startup_table(reports: Sequence[Report]) -> str:
    """Return the table of times from a command to the first step: a row for each config."""
    rows = [
        [_setting(report)]
        + [f"{report['first_step_seconds'][k]['median']:.3g}" for k in ("cold", "warm", "resumed")]
        for report in reports
    ]
    head = ["config", "empty cache, s", "compiled before, s", "going on from a checkpoint, s"]
    return markdown_table(head, rows)


def _profile_table(parts: Sequence[Sequence[Report]]) -> str:
    """Return one table of a profile."""
    [lines] = parts
    rows = [
        [line["name"] or "(none)", f"{line['share']:.1%}", f"{line['operations_per_call']:,}"]
        for line in lines
    ]
    return markdown_table(["operations", "share of the time", "per call"], rows)


def _levers_table(parts: Sequence[Sequence[Report]]) -> str:
    """Return the table of changes that were tried: a row for each."""
    [levers] = parts
    rows = [
        [
            lever["change"],
            lever["program"],
            f"{lever['before_ms']:,.4g}",
            f"{lever['after_ms']:,.4g}",
            f"{lever['gain']:.2f}",
            f"{lever['pairs']}",
            lever["verdict"],
        ]
        for lever in levers
    ]
    head = ["change", "program", "CPU ms before", "after", "gain", "times", "verdict"]
    return markdown_table(head, rows)


TABLES: dict[str, Callable[[Sequence[Any]], str]] = {
    "baseline": _baseline_table,
    "levers": _levers_table,
    "speed": _speed_table,
    "pipeline": _pipeline_table,
    "overhead": _overhead_table,
    "mixture": _mixture_table,
    "checkpoint": _checkpoint_table,
    "startup": _startup_table,
    "profile": _profile_table,
    "methods": _methods_table,
    "pairs": _pairs_table,
}
