"""Start the program `ddgan`; `python -m ddgan_jax` does the same."""

import sys

from ddgan_jax import signals


def main() -> int:
    """Run the program and return its exit code."""
    # Before anything that takes a moment is imported: no signal is lost from here on.
    signals.listen()
    from ddgan_jax import cli
    from ddgan_jax.cli import terminal

    terminal.protect_streams()
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
