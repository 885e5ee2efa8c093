"""Declare what the lines and the small files of a run folder hold.

They come from outside: types and ranges are checked when they are read, by `foreign`.
"""

from collections.abc import Mapping
from fractions import Fraction
from typing import Annotated, Any, NamedTuple

import msgspec

from ddgan_jax.errors import UserError

MOST_STEPS = 2**31 - 1  # the most that a config can ask for
LONGEST_NAME = 200  # characters of the name of a metric
LARGEST_NUMBER = 1e300  # sums and differences of such numbers are finite, too
YEAR_10000 = 253_402_300_800  # UNIX seconds, from which on no calendar names a day

Step = Annotated[int, msgspec.Meta(ge=0, le=MOST_STEPS)]
Time = Annotated[float, msgspec.Meta(ge=0, lt=YEAR_10000)]
Count = Annotated[int, msgspec.Meta(ge=0)]
# The exact sum of many floats, such as "-123/1024": at most the digits that doubles need.
Exact = Annotated[str, msgspec.Meta(pattern=r"^-?[0-9]{1,700}(/[1-9][0-9]{0,350})?\Z")]
# Trackers choose such names themselves, or we do.
TrackerId = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.-]{1,200}\Z")]


class MetricsLine(NamedTuple):
    """A line of metrics.jsonl. time: UNIX seconds, None if unknown. metrics: finite numbers."""

    step: int
    time: float | None
    metrics: Mapping[str, float]


class Start(msgspec.Struct):
    """A line of machine.jsonl. step: train steps done before the start. time: UNIX seconds.

    data: the fingerprint of the data set; lines of older versions have none.
    """

    step: Step
    time: Time | None = None
    devices: Count | None = None
    device_kind: str = "unknown"
    platform: str = ""
    processes: Count | None = None
    cores: Count | None = None  # of the main process's host
    data: str = ""
    jax: str = ""
    ddgan_jax: str = ""


class Interval(msgspec.Struct):
    """The metrics of the steps from `after` + 1 to `step`, where a run was stopped between lines.

    after: the step of the line before. sums: for each metric its exact sum and number of steps.
    """

    after: Step
    step: Step
    sums: dict[str, tuple[Exact, Annotated[int, msgspec.Meta(ge=1, le=MOST_STEPS)]]]

    def __post_init__(self) -> None:
        """Refuse sums beyond LARGEST_NUMBER with a ValueError."""
        if any(abs(Fraction(total)) > LARGEST_NUMBER for total, _ in self.sums.values()):
            raise ValueError("a sum is too large")


class Origin(msgspec.Struct):
    """Where the first checkpoint of an imported run comes from: values that JSON can hold."""

    provenance: dict[str, Any] = {}
    licence: str = ""


def metrics_line(values: dict[str, Any]) -> MetricsLine:
    """Return the line of metrics that a JSON object holds; raise UserError if it has no step."""
    # `True` is an integer to Python, but no step.
    step, time = values.pop("step", None), _number(values.pop("time", None))
    if type(step) is not int or not 0 <= step <= MOST_STEPS:
        raise UserError("it has no step")
    if time is not None and not 0 <= time < YEAR_10000:
        time = None
    # Names head the columns of reports. Ours are short, and a longer one comes from elsewhere.
    numbers = (
        (name, _number(value)) for name, value in values.items() if len(name) <= LONGEST_NAME
    )
    return MetricsLine(step, time, {name: value for name, value in numbers if value is not None})


def _number(value: Any) -> float | None:
    """Return a number as a float, and None for everything else."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if -LARGEST_NUMBER <= value <= LARGEST_NUMBER else None
