"""Exports from strangers: whatever is in them, a model or one line, and nothing of them is run."""

import copy
import hashlib
import json
import os
import random
import re
import shutil
import struct
import subprocess
import sys
import time

import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from ddgan_jax import cli, models
from ddgan_jax.config import LOCAL_PATHS
from ddgan_jax.errors import NotFiniteError, UserError
from ddgan_jax.files import locks
from ddgan_jax.inference import export, load, model_card
from ddgan_jax.inference.model import Model
from tests.methods import ROOT, config_of, random_params

HOSTILE = "<script>alert(1)</script> | `x` [a](javascript:b) **b**\n---\nlicense: mit\x1b[2J\u202e"
ABOUT = {
    "provenance": {"trained_with": HOSTILE, HOSTILE: {"deeper": HOSTILE}},
    "licence": HOSTILE,
    "metrics": {"fid": 3.75, HOSTILE: [HOSTILE]},
    "rounding": {
        "images": 1,
        "mean_difference": 0.5,
        "largest_difference": 1.0,
        "unit": HOSTILE,
    },
}


def make_model(**changes):
    config = config_of("ddgan", sampling__chunk_size=4, **changes)
    return Model(config, random_params(models.abstract_params(config)[0]), 7, "ema", ABOUT)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An export, as it is written."""
    out = tmp_path_factory.mktemp("exports") / "export"
    export.write(make_model(), out, grid_seeds=[0])
    return out


@pytest.fixture
def copied(whole, tmp_path):
    """An export to be changed."""
    return shutil.copytree(whole, tmp_path / "x")


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def write_about(folder, about):
    """With the checksums that its author would have given it."""
    if isinstance(about, dict) and isinstance(about.get("sha256"), dict):
        about["sha256"]["model.safetensors"] = sha256((folder / "model.safetensors").read_bytes())
        about["sha256"]["config"] = sha256(json.dumps(about.get("config"), sort_keys=True).encode())
    (folder / "config.json").write_text(json.dumps(about))


def check_one_line(caught):
    message = str(caught.value)
    assert message.isprintable() and len(message) < 1000, message


# ------------------------------------------------------------------------------ names of files


NAMES = ["", ".", "..", "/etc/passwd", "../../x", "a/b", "a\\b", "a\0b", "x" * 300, "\ud800"]


@pytest.mark.parametrize("name", NAMES)
def test_only_plain_names_inside_the_folder_are_opened(copied, name):
    about = json.loads((copied / "config.json").read_text())
    about["sha256"][name] = "0" * 64
    write_about(copied, about)
    with pytest.raises(UserError) as caught:
        export.read(copied)
    check_one_line(caught)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("/dev/zero", path)])
def test_only_regular_files_are_opened(copied, make):
    make(copied / "more")
    about = json.loads((copied / "config.json").read_text())
    about["sha256"]["more"] = "0" * 64
    write_about(copied, about)
    with pytest.raises(UserError, match="more: it is (no regular file|a folder)"):
        export.read(copied)


@pytest.mark.parametrize("name", ["model.safetensors", "config"])
def test_parameters_and_config_must_have_a_checksum(copied, name):
    about = json.loads((copied / "config.json").read_text())
    del about["sha256"][name]
    (copied / "config.json").write_text(json.dumps(about))
    with pytest.raises(UserError, match=f"it has no checksum of {name}"):
        export.read(copied)


def test_an_older_export_with_code_loads_and_its_code_is_not_run(copied, tmp_path):
    """Its flatbuffers.zip is a file with a checksum like any other."""
    (copied / "flatbuffers.zip").write_bytes(b"import os")
    about = json.loads((copied / "config.json").read_text())
    about["sha256"]["flatbuffers.zip"] = sha256(b"import os")
    write_about(copied, about)
    before = list(sys.path)
    assert export.read(copied).step == 7 and sys.path == before
    for file in ("flatbuffers.zip", "sampler.stablehlo", "samples.png"):
        (copied / file).write_bytes(b"another")
        with pytest.raises(UserError, match=f"{file} is damaged"):
            export.read(copied)
        about["sha256"][file] = sha256(b"another")
        write_about(copied, about)
    assert export.read(copied).step == 7


# ---------------------------------------------------------------------------------- parameters


def safetensors_file(header, body, length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def arrays_of(folder):
    return dict(safetensors.numpy.load((folder / "model.safetensors").read_bytes()))


NUMBERS = {
    "NaN": lambda a: {k: np.full_like(v, np.nan) for k, v in a.items()},
    "one infinity": lambda a: a | {"output_conv/bias": a["output_conv/bias"] + np.inf},
    "float64": lambda a: {k: v.astype(np.float64) for k, v in a.items()},
    "integers": lambda a: {k: v.astype(np.int32) for k, v in a.items()},
    "several types": lambda a: a | {"output_conv/bias": a["output_conv/bias"].astype(np.float16)},
    "a and a/b": lambda a: a | {"output_conv/bias/x": np.zeros(3, np.float32)},
    "no name": lambda a: a | {"": np.zeros(3, np.float32)},
    "deep name": lambda a: a | {"/".join("a" * 3000): np.zeros(3, np.float32)},
    "escapes": lambda a: a | {"a\n\x1b[2J": np.zeros(3, np.float32)},
    "none": lambda a: {},
}


@pytest.mark.parametrize("kind", NUMBERS)
def test_parameters_that_are_none(copied, kind):
    content = safetensors.numpy.save(NUMBERS[kind](arrays_of(copied)))
    (copied / "model.safetensors").write_bytes(content)
    write_about(copied, json.loads((copied / "config.json").read_text()))
    with pytest.raises(UserError) as caught:
        export.read(copied)
    check_one_line(caught)


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 10**8, 0])
def test_header_of_any_length(copied, length):
    (copied / "model.safetensors").write_bytes(safetensors_file({}, b"", length))
    write_about(copied, json.loads((copied / "config.json").read_text()))
    with pytest.raises(UserError):
        export.read(copied)


def test_images_that_are_not_finite_are_one_line(copied, tmp_path, capsys):
    """Finite parameters of which the network makes NaN."""
    huge = {name: np.full_like(value, 1e38) for name, value in arrays_of(copied).items()}
    (copied / "model.safetensors").write_bytes(safetensors.numpy.save(huge))
    write_about(copied, json.loads((copied / "config.json").read_text()))
    line = r"step 7 of \S*x draws images that are not finite: take an earlier checkpoint"
    with pytest.raises(NotFiniteError, match=line):
        load.load(copied).sample([0])
    for command in ("sample", "export"):
        out = tmp_path / command
        assert cli.main([command, f"--export={copied}", f"--out={out}", "--seeds=0"]) == 2
        assert "draws images that are not finite" in capsys.readouterr().err
        assert command == "sample" or not out.exists()


def test_places_that_an_export_names_are_forgotten(copied):
    about = json.loads((copied / "config.json").read_text())
    for path in LOCAL_PATHS:
        section, field = path.split(".")
        about["config"][section][field] = "/etc"
    write_about(copied, about)
    config = load.load(copied).config
    assert all(not config[s][f] for s, f in (path.split(".") for path in LOCAL_PATHS))


# ------------------------------------------------------------------------------------ the card


def test_foreign_texts_are_words_in_the_card(whole, tmp_path):
    """No HTML, no links, no further rows, nothing in the front matter, nothing for a terminal."""
    card = (whole / "README.md").read_text()
    _, front, body = card.split("---\n", 2)
    assert front == (
        "library_name: ddgan-jax\nmetrics:\n- fid\n"
        "pipeline_tag: unconditional-image-generation\n"
        "tags:\n- diffusion\n- gan\n- ddgan\n- jax\n"
    )
    rows = [line for line in body.splitlines() if line.startswith("|")]
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 3 for row in rows) and len(rows) == 10
    words = "\n".join(rows)
    assert "\x1b" not in card and "\u202e" not in card
    for mark in ("<", "[", "]", "`", "*", ":b"):
        assert not re.search(rf"(?<!\\){re.escape(mark)}", words), mark
    # From export to export they stay what they are.
    export.write(export.read(whole), tmp_path / "again", grid_seeds=[0])
    assert (tmp_path / "again" / "README.md").read_text() == card


@pytest.mark.parametrize("seed", range(3))
def test_any_text_is_one_line_without_markdown(seed):
    rng = random.Random(seed)
    alphabet = [chr(c) for c in (*range(0x250), 0x2028, 0x202E, 0xFEFF, 0xDC80, 0x1F600)]
    for _ in range(300):
        shown = model_card.text("".join(rng.choices(alphabet, k=rng.randint(0, 80))))
        assert shown.isprintable() and "<" not in shown and ">" not in shown
        # A backslash before every sign that means something.
        assert not re.search(r"(?:^|[^\\])(?:\\\\)*[`*_\[\]|#]", shown)


# ------------------------------------------------------------------------------------ generator


VALUES = [
    *(
        None,
        -1,
        0,
        1,
        2**31,
        2**63,
        10**30,
        0.5,
        -1e308,
        True,
        "",
        "x",
        "../../x",
        HOSTILE,
        "y" * 5000,
    ),
    *([], [1] * 1000, [[]], {}, {"a": {}}, [None], {"": 0}),
]


def places_of(tree, path=()):
    """All places in a tree of JSON, the tree itself first."""
    yield path
    children = tree.items() if isinstance(tree, dict) else []
    for key, child in children:
        yield from places_of(child, (*path, key))


def changed(rng, about):
    """A config.json with a value taken away, added, or put in the place of another."""
    about = copy.deepcopy(about)
    for _ in range(rng.randint(1, 2)):
        *parents, last = rng.choice([place for place in places_of(about) if place])
        node = about
        for key in parents:
            node = node[key]
        kind = rng.randrange(4)
        if kind == 0:
            del node[last]
        elif kind == 1:
            node[rng.choice(["", "a.b", "get", "update", "config", "\x1b"])] = rng.choice(VALUES)
        else:
            node[last] = rng.choice(VALUES)
    return about


def torn(rng, content):
    """Bytes changed, cut off, or doubled."""
    content = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        start = rng.randrange(len(content))
        kind = rng.randrange(3)
        if kind == 0:
            content[start] = rng.randrange(256)
        elif kind == 1:
            del content[start : start + rng.randint(1, 50)]
        else:
            content[start:start] = content[start : start + rng.randint(1, 50)]
    return bytes(content)


@pytest.mark.parametrize("seed", range(4))
def test_any_export_is_a_model_or_one_line(copied, seed):
    """Changed values with the right checksums, and damaged bytes with and without them."""
    rng = random.Random(seed)
    about = json.loads((copied / "config.json").read_text())
    parameters = (copied / "model.safetensors").read_bytes()
    loaded = 0
    for k in range(60):
        (copied / "model.safetensors").write_bytes(parameters)
        if k % 3 == 0:
            start = 8 + int.from_bytes(parameters[:8], "little")
            header = torn(rng, parameters[: start if k % 2 else 8 + 200])
            (copied / "model.safetensors").write_bytes(header + parameters[start:])
            write_about(copied, copy.deepcopy(about))
        elif k % 3 == 1:
            write_about(copied, changed(rng, about))
        else:
            content = torn(rng, json.dumps(about).encode())
            (copied / "config.json").write_bytes(content)
        begin = time.monotonic()
        try:
            loaded += bool(export.read(copied))
        except UserError as error:
            assert str(error).isprintable() and len(str(error)) < 1500, str(error)
        assert time.monotonic() - begin < 60
    assert loaded < 60


# ------------------------------------------------------------------------------- other promises


def test_bfloat16_is_read_by_numpy_with_ml_dtypes(tmp_path):
    """The card's own program, in a Python of which only NumPy and ml_dtypes are used."""
    made = make_model()
    export.write(made, tmp_path / "x", dtype="bfloat16", grid_seeds=[0])
    card = (tmp_path / "x" / "README.md").read_text()
    assert "pip install ml_dtypes" in card
    program = re.findall(r"```python\n(.*?)```", card, re.DOTALL)[-1]
    check = (
        "import sys\n"
        "assert not {'jax', 'safetensors', 'ddgan_jax'} & set(sys.modules)\n"
        "np.savez('found.npz', **{k: v.astype('f4') for k, v in arrays.items()})\n"
    )
    subprocess.run([sys.executable, "-c", program + check], cwd=tmp_path / "x", check=True)
    found = np.load(tmp_path / "x" / "found.npz")
    for path, leaf in jax.tree.leaves_with_path(made.params):
        name = "/".join(key.key for key in path)
        expected = leaf.astype(ml_dtypes.bfloat16).astype(np.float32)
        np.testing.assert_array_equal(found[name], expected)


def test_model_that_cannot_be_drawn_is_exported_without_pictures(tmp_path, capsys):
    """log(t) at t = 0: its parameters come through, and what cannot be had is said."""
    made = make_model(generator__time_embedding="fourier")
    with jax.default_matmul_precision("highest"):
        out = models.generator(made.config)(
            made.params, *(np.zeros((1, 8, 8, 1), np.float32), np.zeros(1, np.int32)),
            np.zeros((1, *models.latent_shape(made.config)), np.float32),
        )  # fmt: skip
    assert not np.isfinite(out).all()
    export.write(made, tmp_path / "x")
    there = sorted(path.name for path in (tmp_path / "x").iterdir())
    assert there == ["README.md", "config.json", "model.safetensors"]
    card = (tmp_path / "x" / "README.md").read_text()
    assert "No image can be drawn from it" in card and "samples.png" not in card
    back = export.read(tmp_path / "x")
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, back.params, made.params)))
    command = ["sample", f"--export={tmp_path / 'x'}", f"--out={tmp_path / 'grid.png'}"]
    assert cli.main(command) == 2
    error = capsys.readouterr().err
    assert "no image can be drawn from this model: its time embedding is of log(t)" in error
    assert error.count("\n") == 1 and not (tmp_path / "grid.png").exists()


@pytest.mark.parametrize(
    "command", ["export", "sample", "sample grid", "import nvlabs", "import wavediff"]
)
def test_second_writer_is_told(whole, tmp_path, command, monkeypatch, capsys):
    monkeypatch.setattr(locks, "PATIENCE", 0.1)
    out = tmp_path / ("grid.png" if command == "sample grid" else "out")
    golden = ROOT / "tests" / "golden" / "netG_tiny.pth"
    argv = {
        "export": ["export", f"--export={whole}"],
        "sample": ["sample", f"--export={whole}"],
        "sample grid": ["sample", f"--export={whole}"],
        "import nvlabs": ["import", "nvlabs", f"--checkpoint={golden}", "--args=cifar10"],
        "import wavediff": ["import", "wavediff", f"--checkpoint={golden}", "--args=cifar10"],
    }[command]
    # A lock belongs to an open file, so that two openings in one process exclude each other, too.
    with locks.only_writer(out):
        assert cli.main([*argv, f"--out={out}"]) == 75
    errors = capsys.readouterr().err
    assert "another process is writing" in errors and errors.count("\n") == 1
    assert not out.exists()


def test_repository_names():
    for name in (
        "",
        "user",
        "user/a/b",
        "../..",
        "user/a@",
        "user/a b",
        "user/\x1b",
        "u/" + "a" * 999,
    ):
        with pytest.raises(UserError, match="is no repository: write hf://user/name"):
            load.load(f"hf://{name}")


# ------------------------------------------------------------------------------------ requests


REQUESTS = {
    "negative seed": (
        lambda m: m.sample([-1]),
        "^`seeds`: -1 does not lie between 0 and 4294967295",
    ),
    "large seed": (lambda m: m.sample([2**32]), "^`seeds`: "),
    "huge seed": (lambda m: m.sample([10**30]), "^`seeds`: "),
    "a float": (lambda m: m.sample([1.5]), "^`seeds`: .* is no list of integers"),
    "no seed": (lambda m: m.sample([]), "^`seeds`: "),
    "no image": (lambda m: m.sample(0), "^`seeds`: "),
    "two axes": (lambda m: m.sample([[1, 2]]), "^`seeds`: "),
    "ragged": (lambda m: m.sample([1, [2]]), "^`seeds`: "),
    "text": (lambda m: m.sample("12"), "^`seeds`: "),
    "a trillion": (lambda m: m.sample(range(10**12)), "^`seeds`: 1,000,000,000,000 of them"),
    "latent": (lambda m: m.sample([0], latent_seed=-1), "^`latent_seed`: "),
    "latent text": (lambda m: m.sample([0], latent_seed="x"), "^`latent_seed`: "),
    "labels": (lambda m: m.sample([0], labels=[0]), "^`labels`: this model was trained without"),
    "start": (lambda m: m.sample([0], start="x"), "^`start`: "),
    "start -1": (lambda m: m.sample([0], start=-1), "^`start`: "),
    "NaN image": (
        lambda m: m.sample([0], images=np.full((1, 8, 8, 1), np.nan)),
        "^`images` are not",
    ),
    "image text": (lambda m: m.sample([0], images=[["x"]]), "^`images` are "),
    "count 0": (lambda m: m.interpolate(0, 1, 0), "^`count`: 0 does not lie between 1"),
    "count": (lambda m: m.interpolate(0, 1, 10**12), "^`count`: "),
    "last": (lambda m: m.interpolate(0, -1, 2), "^`last`: "),
    "steps": (lambda m: m.in_steps("x"), "sampling.num_steps="),
    "steps -1": (lambda m: m.in_steps(-1), "sampling.num_steps="),
}


@pytest.mark.parametrize("kind", REQUESTS)
def test_requests_name_the_argument_that_is_wrong(kind):
    call, message = REQUESTS[kind]
    with pytest.raises(UserError, match=message) as caught:
        call(make_model())
    check_one_line(caught)
    assert "--" not in str(caught.value)


@pytest.mark.parametrize(
    "labels", [[0], [0, 1, 2], [0, 10], [0, -1], [0.5, 1], 10, -1, [[0, 1]], "all"]
)
def test_labels_that_a_model_does_not_know(labels):
    config = config_of("siddm")
    made = Model(config, {}, 0, "ema", {})
    with pytest.raises(UserError, match="^`labels`: "):
        made.sample([1, 2], labels)
