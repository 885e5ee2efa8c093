"""Programs that measure speed; they are run from the repository root, see README.md."""
