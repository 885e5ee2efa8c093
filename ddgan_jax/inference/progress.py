"""Show on stderr how far the writing of images is, as a bar or in lines."""

import contextlib
import sys
import time
from collections.abc import Iterable, Iterator

import numpy as np
from tqdm import tqdm

from ddgan_jax.files.progress import Pace, duration

# Time between lines where stderr is no terminal, as in the log of a cluster.
SECONDS_BETWEEN_LINES = 10.0


def with_progress(chunks: Iterable[np.ndarray], done: int, total: int) -> Iterator[np.ndarray]:
    """Yield the same chunks, and show how many images the caller has taken.

    done: images that were there before. The first chunk only starts the clock, since its program
    is compiled meanwhile.
    """
    if done:
        print(f"{done:,} of {total:,} images are there", file=sys.stderr)
    pace, last_line = Pace(total, 1), time.monotonic()
    terminal = sys.stderr.isatty()
    # A disabled bar does nothing, so that the loop below is the same without a terminal.
    bar = tqdm(
        total=total,
        initial=done,
        file=sys.stderr,
        dynamic_ncols=True,
        bar_format="{percentage:3.0f}% |{bar:20}| {n_fmt}/{total_fmt} images{postfix}",
        disable=not terminal,
    )
    with contextlib.closing(bar):
        for chunk in chunks:
            yield chunk
            # The caller asks for the next chunk when the last one is written, so that this counts
            # written images.
            done += len(chunk)
            bar.update(len(chunk))
            speed = pace.mark(done, time.monotonic())
            # The first chunk has no speed, see above.
            if speed is None:
                continue
            text = f"{speed[0]:,.3g} images/s, {duration(speed[1])} left"
            bar.set_postfix_str(text)
            due = time.monotonic() - last_line >= SECONDS_BETWEEN_LINES
            if due and not terminal:
                print(f"{done:,} of {total:,} images  {text}", file=sys.stderr, flush=True)
                last_line = time.monotonic()
