"""Where the time of a train step or of the sampler goes, by kind of operation and by layer.

    python -m benchmarks.profiling --config=configs/cifar10_ddgan.py --what=train_step \\
        --config.train.batch_size=4

Runs the compiled program a few times under jax.profiler and adds up the operations of its trace;
--trace=FOLDER keeps the trace, for `xprof FOLDER` or Perfetto. Shares are of the time in all
operations, of all threads together. Prints one JSON object; benchmarks/README.md explains it.
"""

import re
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
from absl import flags
from jax.profiler import ProfileData

from benchmarks import command, measure, sampler, train_step
from ddgan_jax.cli.arguments import Flag
from ddgan_jax.config import ConfigDict
from ddgan_jax.config.checks import validate
from ddgan_jax.errors import UserError

FLAGS = (
    Flag("what", "train_step|sampler", "the program", "train_step"),
    Flag("r1", "yes|no", "with the R1 penalty", "no"),
    Flag("num", "N", "images that the sampler draws at once", 4, "integer"),
    Flag("top", "N", "lines of each table", 15, "integer"),
    Flag("trace", "FOLDER", "where the trace stays"),
)

# "%name = shape kind(operands), ..., metadata={op_name="jit(step)/module/primitive"}"
_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.\-]+) = (?:\([^=]*\)|\S+) ([\w\-]+)\(", re.M)
_OP_NAME = re.compile(r'op_name="([^"]*)"')
# transpose(jvp(Generator)) is Generator, backwards.
_WRAPPERS = re.compile(r"\w+\(([^()]*)\)")
_CONTAINERS = ("while", "conditional", "call")


class Operation(NamedTuple):
    """An instruction of a compiled program. source: the place in the model that it comes from."""

    kind: str
    source: str
    primitive: str


def benchmark(values: flags.FlagValues, config: ConfigDict) -> measure.Report:
    """Return the fields of the report. Raises UserError if the program has left no trace."""
    validate(config, jax.device_count())
    program = _program(values, config)
    # A call before the trace begins keeps the work of a first call out of it.
    program.call()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(values.trace or scratch)
        measure.progress("tracing")
        with jax.profiler.trace(folder):
            measure.time_calls(program.call, values.repeats)
        nanoseconds, counts = _durations(folder, operations(program.executable.as_text()))
    total = sum(nanoseconds.values())
    if not total:
        raise UserError("no operation of the program is in the trace: nothing to add up")

    def table(part: Callable[[Operation], str]) -> list[measure.Report]:
        shares: Counter[str] = Counter()
        calls: Counter[str] = Counter()
        for operation, time in nanoseconds.items():
            shares[part(operation)] += time
            calls[part(operation)] += counts[operation]
        return [
            {
                "name": name,
                "share": measure.rounded(time / total),
                "operations_per_call": round(calls[name] / values.repeats),
            }
            for name, time in shares.most_common(values.top)
        ]

    return {
        "what": values.what,
        "calls": values.repeats,
        "operation_seconds_per_call": measure.rounded(total * 1e-9 / values.repeats),
        "by_kind": table(lambda operation: operation.kind),
        "by_primitive": table(lambda operation: operation.primitive),
        "by_source": table(lambda operation: operation.source),
        "by_kind_and_source": table(lambda o: f"{o.kind}: {o.primitive} in {o.source}"),
    }


def _program(values: flags.FlagValues, config: ConfigDict) -> measure.Program:
    if values.what == "sampler":
        return sampler.make_program(config, values.num)
    if values.what != "train_step" or values.r1 not in ("yes", "no"):
        raise UserError(f"--what={values.what} --r1={values.r1}: see --help")
    [program] = train_step.make_programs(config, (values.r1 == "yes",)).values()
    return program


def operations(text: str) -> dict[str, Operation]:
    """Return the instructions of a compiled program by name. text: as XLA prints it."""
    found = {}
    for match in _INSTRUCTION.finditer(text):
        line = text[match.start() : text.find("\n", match.end())]
        op_name = _OP_NAME.search(line)
        found[match[1]] = _describe(match[1], match[2], op_name[1] if op_name else "")
    return found


def _describe(name: str, kind: str, op_name: str) -> Operation:
    # Calls of vendor libraries say in their name what they are, "__onednn$matmul" or "cudnn-conv".
    kind = re.sub(r"[.\d]+$", "", name) if kind in ("custom-call", "fusion") else kind
    backwards = "transpose(" in op_name
    # Wrappers stand within one another, and each pass takes the innermost ones off.
    while op_name != (inner := _WRAPPERS.sub(r"\1", op_name)):
        op_name = inner
    parts = [part for part in op_name.split("/") if part]
    modules = [part for part in parts[1:-1] if part not in ("while", "body", "closed_call")]
    source = "/".join(modules[:2]) or "(outside of the networks)"
    return Operation(
        kind, source + (", backwards" if backwards else ""), parts[-1] if parts else ""
    )


def _durations(
    folder: Path, known: Mapping[str, Operation]
) -> tuple[Counter[Operation], Counter[Operation]]:
    nanoseconds: Counter[Operation] = Counter()
    counts: Counter[Operation] = Counter()
    for event in _events(folder):
        operation = known.get(event.name)
        # A loop's own event lasts as long as those of all that is inside.
        if operation and operation.kind not in _CONTAINERS:
            nanoseconds[operation] += event.duration_ns
            counts[operation] += 1
    return nanoseconds, counts


def _events(folder: Path) -> Iterator[Any]:
    # A folder that the user keeps may hold the traces of earlier calls.
    newest = max(folder.rglob("*.xplane.pb"), key=lambda file: file.stat().st_mtime)
    for plane in ProfileData.from_file(str(newest)).planes:
        for line in plane.lines:
            yield from line.events


if __name__ == "__main__":
    sys.exit(command.main("profiling", __doc__, FLAGS, benchmark))
