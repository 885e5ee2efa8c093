"""Where results go: a command replaces what ddgan wrote, and nothing else without --force."""

import numpy as np
import pytest
from PIL import Image

from ddgan_jax import images
from ddgan_jax.errors import UserError
from ddgan_jax.files import locks, ours
from ddgan_jax.metrics import statistics
from ddgan_jax.viz import charts
from ddgan_jax.viz.charts import Series

pytestmark = pytest.mark.quick


def write_foreign(path):
    """A file of the same kind by somebody else."""
    if path.suffix == ".png":
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(path)
    elif path.suffix == ".npz":
        np.savez(path, mu=np.zeros(2), sigma=np.eye(2))
    else:
        path.write_text("<svg xmlns='http://www.w3.org/2000/svg'/> or a page about ddgan-jax")


def write_ours(path):
    chart = [Series("a", [(0, 1), (1, 2)])]
    if path.suffix == ".npz":
        stats = statistics.add(statistics.empty(2), np.random.default_rng(0).random((9, 2)))
        statistics.save(path, stats, statistics.Provenance(*"abcd"))
    elif path.suffix == ".html":
        path.write_text('<head>\n<meta name="generator" content="ddgan-jax 0.1.0">')
    elif path.name == "grid.png":
        images.write_png(path, np.zeros((4, 4, 1), np.uint8))
    else:
        path.write_bytes(charts.scatter_file(path.suffix, chart, title="t"))


@pytest.mark.parametrize("name", ["grid.png", "x.png", "x.svg", "x.pdf", "x.html", "x.npz"])
def test_only_what_this_program_wrote_is_replaced(tmp_path, name):
    path = tmp_path / name
    for write, replaced in ((write_ours, True), (write_foreign, False), (path.open, True)):
        path.write_bytes(b"") if write == path.open else write(path)
        before = path.read_bytes()
        assert ours.may_be_replaced(path) == replaced
        if not replaced:
            message = f"{name} exists already, and this program did not write it: .*`force`"
            with pytest.raises(UserError, match=message), locks.output_file(path):
                raise AssertionError("not reached")
            with locks.output_file(path, force=True) as out:
                assert out == path
        with pytest.raises(UserError, match="exists already"), locks.output_file(path, new=True):
            raise AssertionError("not reached")
        assert path.read_bytes() == before


def test_a_sign_is_found_at_both_ends_of_a_long_file(tmp_path):
    sign = b"/Creator (ddgan-jax)"
    for content, found in (
        (sign + b"\0" * 500_000, True),
        (b"\0" * 500_000 + sign, True),
        (b"\0" * 200_000 + sign + b"\0" * 200_000, False),
    ):
        (tmp_path / "x").write_bytes(content)
        assert ours.may_be_replaced(tmp_path / "x") == found
