"""Show how far long work is: its phase, its steps, its speed and the time left.

On a terminal this is one line that moves, at any width, and it is gone when the work is done. A
thread draws it, since JAX compiles for minutes within one call. Without a terminal, as in the log
of a cluster, there are plain lines.

`Display` shows one piece of work. If another begins before it ends, as an evaluation within a
training, the inner one has the line until it is done. tqdm has one width of line for all terminals,
or cuts off what stands at the end; here the fields that matter less give way.
"""

from ddgan_jax.progress.display import Display, phase
from ddgan_jax.progress.line import LINE
from ddgan_jax.progress.pace import Pace, duration

# For everybody else who writes to the terminal.
away = LINE.away
end = LINE.end

__all__ = ["Display", "Pace", "away", "duration", "end", "phase"]
