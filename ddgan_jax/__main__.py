"""`python -m ddgan_jax` is `ddgan`."""

import sys

from ddgan_jax.cli import main

if __name__ == "__main__":
    sys.exit(main())
