"""Write the table of the MNIST run: a row for each checkpoint that was evaluated."""

from benchmarks.results.claims import made_with
from benchmarks.results.records import Results
from benchmarks.results.spread import hours
from benchmarks.scaling import markdown_table
from ddgan_jax.evaluation.results import Result


def section(results: Results) -> str:
    """Return what the run was, and the numbers of its checkpoints."""
    parts = []
    if run := results.training:
        parts.append(
            f"Config `{run.config}`, {run.train_steps:,} steps of {run.batch_size} images.\n"
            f"{made_with([run.about])}; {hours(run.cpu_seconds)} in all. The run again:\n\n"
            f"```sh\n{run.about.command}\n```"
        )
    evaluations = in_order(results)
    parts.append(_table(evaluations) if evaluations else "No checkpoint is measured yet.")
    return "\n\n".join(parts)


def in_order(results: Results) -> list[Result]:
    """Return the evaluations by train step, then by sampling steps."""
    return sorted(results.mnist.values(), key=lambda r: (_train_step(r), sampling_steps(r)))


def _train_step(result: Result) -> int:
    return result.model.step or 0 if result.model else 0


def sampling_steps(result: Result) -> int:
    """Return the number of denoising steps of the samples, 0 for images without a model."""
    return result.sampling.denoising_steps or 0 if result.sampling else 0


def _table(evaluations: list[Result]) -> str:
    names = list(dict.fromkeys(name for result in evaluations for name in result.metrics))
    rows = [
        [
            f"{_train_step(result):,}",
            f"{sampling_steps(result)}",
            f"{result.samples.count:,}" if result.samples and result.samples.count else "-",
            *(f"{result.metrics[n]:.4g}" if n in result.metrics else "-" for n in names),
            f"{result.sampling.seconds_per_100_images:.3g}" if result.sampling else "-",
        ]
        for result in evaluations
    ]
    head = ["train steps", "sampling steps", "images", *(n.replace("_", " ") for n in names)]
    return markdown_table([*head, "s per 100"], rows)
