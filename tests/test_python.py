"""The package as the program of somebody else calls it: arguments, results, kept programs."""

import io
import random
import re
import sys
import threading
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache
from PIL import Image

import ddgan_jax
from ddgan_jax import compiler, images
from ddgan_jax.errors import UserError
from ddgan_jax.inference import drawing, load, stablehlo
from ddgan_jax.inference.drawn import Images
from tests.methods import ROOT, gray_drawer

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 8, 6, 3), np.uint8)


@pytest.fixture
def uncompiled(monkeypatch):
    monkeypatch.setattr(drawing, "make_drawer", gray_drawer)


@pytest.fixture(scope="module")
def digits():
    return ddgan_jax.load("digits")


# ------------------------------------------------------------------------- a model by its name


def test_model_that_comes_along(digits, monkeypatch, tmp_path):
    assert load.built_in() == ["digits"]
    method, size, source = repr(digits).splitlines()
    assert method == "DDGAN on digits, 8 x 8 x 1, in 2 steps"
    assert size == "274,113 parameters (ema), 2,400 train steps"
    assert source == f"from {load.BUILT_IN / 'digits'}"
    files = list((load.BUILT_IN / "digits").iterdir())
    assert sum(file.stat().length for file in files) < 1.5e6
    # What lies in the current folder comes first, whatever it is.
    monkeypatch.chdir(tmp_path)
    Path("digits").mkdir()
    with pytest.raises(UserError, match=r"cannot read digits/config.json"):
        ddgan_jax.load("digits")
    with pytest.raises(UserError, match="no export at digit, and no run; built-in models: digits"):
        ddgan_jax.load("digit")


def test_the_same_images_whichever_way_they_are_asked_for(digits):
    """An integer is a count; the rest of the request does not change an image."""
    drawn = digits.sample(3)
    assert (drawn.dtype, drawn.shape) == (np.uint8, (3, 8, 8, 1))
    np.testing.assert_array_equal(drawn, digits.sample(seeds=[0, 1, 2]))
    np.testing.assert_array_equal(drawn[2:], digits.sample(np.array([2])))


# ---------------------------------------------------------------------------- arrays of images


@pytest.mark.parametrize("pixels", [PIXELS, PIXELS[..., :1]])
def test_pil_images_hold_the_same_pixels(pixels):
    found = pixels.view(Images).images()
    assert [image.mode for image in found] == ["RGB" if pixels.shape[3] == 3 else "L"] * 5
    back = np.stack([np.asarray(image).reshape(pixels.shape[1:]) for image in found])
    np.testing.assert_array_equal(back, pixels)


def test_a_notebook_and_a_file_show_the_grid(tmp_path):
    drawn = PIXELS.view(Images)
    grid = images.picture(PIXELS)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(drawn._repr_png_()))), grid)
    drawn.save(tmp_path / "x.png")
    drawn.save(tmp_path / "x.png")  # one of ours may be replaced
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "x.png")), grid)
    row = images.picture(PIXELS, 5)
    drawn.save(str(tmp_path / "y.png"), columns=5)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "y.png")), row)
    # A thousand images are no picture for a notebook.
    many = np.repeat(PIXELS, 100, axis=0).view(Images)
    assert Image.open(io.BytesIO(many._repr_png_())).size == images.grid(many[:100]).shape[1::-1]


@pytest.mark.parametrize(
    "other",
    [
        PIXELS.mean(0),
        PIXELS / 2,
        PIXELS[0, 0],
        PIXELS[..., :2],
        PIXELS[:0],
        PIXELS.sum(),
        PIXELS > 3,
    ],
)
def test_what_is_no_images_any_more_is_numbers(other, tmp_path):
    array = np.asarray(other).view(Images)
    assert array._repr_png_() is None
    for call in (array.images, lambda: array.save(tmp_path / "x.png")):
        with pytest.raises(UserError, match="holds no images"):
            call()


@pytest.mark.parametrize(
    "compute",
    [
        np.mean,
        np.max,
        lambda a: a.mean(0),
        lambda a: a / 2,
        np.concatenate,
        lambda a: a > 3,
        np.std,
    ],
)
def test_what_is_computed_is_what_a_plain_array_gives(compute):
    """Also its type: a mean is a number that JSON can hold."""
    ours, plain = compute(PIXELS.view(Images)), compute(PIXELS)
    assert type(ours) is type(plain)
    np.testing.assert_array_equal(ours, plain)
    assert type(PIXELS.view(Images)[1:3]) is Images


def test_what_is_computed_into_images_stays_images():
    array = PIXELS.copy().view(Images)
    same = array
    same += 1
    assert same is array and np.add(array, 1, out=array) is array
    np.testing.assert_array_equal(array, PIXELS + 2)
    # What NumPy fills anew is a plain array, as before.
    assert type(np.add(array, 1)) is np.ndarray


def test_one_image_of_a_batch_is_an_image(tmp_path):
    one = PIXELS.view(Images)[0]
    assert one._repr_png_() == PIXELS[:1].view(Images)._repr_png_()
    (found,) = one.images()
    np.testing.assert_array_equal(np.asarray(found), PIXELS[0])
    one.save(tmp_path / "x.png", columns=1)
    shown = np.asarray(Image.open(tmp_path / "x.png"))
    np.testing.assert_array_equal(shown, images.picture(PIXELS[:1]))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_points_without_a_place_have_no_picture(bad, tmp_path):
    points = np.zeros((3, 1, 1, 2), np.float32).view(Images)
    points[1, 0, 0, 1] = bad
    assert points._repr_png_() is None
    with pytest.raises(UserError, match="a coordinate is NaN or infinite"):
        points.save(tmp_path / "x.png")
    assert list(tmp_path.iterdir()) == []


def test_points_are_one_picture(tmp_path):
    points = np.random.default_rng(0).normal(size=(50, 1, 1, 2)).astype(np.float32).view(Images)
    shown = np.asarray(Image.open(io.BytesIO(points._repr_png_())))
    np.testing.assert_array_equal(shown, images.scatter(points)[..., 0])
    with pytest.raises(UserError, match="points of a toy set"):
        points.images()


# ------------------------------------------------------------------------- mistakes in arguments

MISTAKES = [
    (lambda m: m.sample(0), "`seeds`: 0 is no number of images from 1 to 10,000,000"),
    (lambda m: m.sample([]), "`seeds`: [] is no list of integers"),
    (lambda m: m.sample([-1]), "`seeds`: -1 does not lie between 0 and 4294967295"),
    (lambda m: m.sample("16"), "`seeds`: '16' is no list of integers"),
    (lambda m: m.sample(True), "`seeds`: True is no sequence of integers"),
    (lambda m: m.sample(3, labels=3), "`labels`: this model was trained without classes"),
    (lambda m: m.sample(3, latent_seed=1.5), "`latent_seed`: 1.5 is no integer"),
    (lambda m: m.sample(3, images=[[1], [2, 3]]), "`images` are no array ("),
    (lambda m: m.sample(3, images=np.nan), "`images` are not whole numbers from 0 to 255"),
    (lambda m: m.interpolate(1, 2, 10**12), "`count`: 1000000000000 does not lie between 1 and 1"),
    (lambda m: m.interpolate(1, 2, 3, label=1), "`label`: this model was trained without classes"),
    (lambda m: m.trajectory(range(10**12)), "`seeds`: 1,000,000,000,000 of them; at most 10,0"),
    (lambda m: m.save(3), "`folder`: 3 is no path"),
    (lambda m: m.save(""), "`folder` is empty: name a file or a folder"),
    (lambda m: m.save("x", dtype=16), "`dtype`: 16 is no text"),
    (lambda m: m.save("x", sampler_weights="no"), "`sampler_weights=no` is not inside, argument o"),
    (lambda m: m.save("x", licence=None), "`licence`: None is no text"),
    (lambda m: m.save("x", force="no"), "`force`: 'no' is neither True nor False"),
    (lambda m: m.save("x", grid_seeds=[]), "`grid_seeds`: [] is no list of integers"),
    (lambda m: m.push_to_hub("digits"), "`repository=digits` is no repository: write hf://user"),
    (lambda m: m.push_to_hub("a/b", private=1), "`private`: 1 is neither True nor False"),
    (lambda m: m.push_to_hub("a/b", token=7), "`token`: 7 is no text"),
    (lambda m: ddgan_jax.load(3), "`path`: 3 is no path"),
    (lambda m: ddgan_jax.load(b"digits"), "`path`: b'digits' is bytes, not text"),
    (lambda m: ddgan_jax.load("digits", num_steps=-1), "`num_steps`: -1 does not lie between 0 a"),
]


@pytest.mark.parametrize(("call", "message"), MISTAKES)
def test_mistakes_name_the_argument(digits, uncompiled, call, message):
    with pytest.raises(UserError) as caught:
        call(digits)
    assert str(caught.value).startswith(message)


class Hostile:
    """It has a length, cannot be shown, and is no array."""

    def __len__(self):
        return 3

    def __repr__(self):
        raise RuntimeError("no")

    __array__ = __fspath__ = __repr__


VALUES = [
    *(None, True, False, "", "x" * 5000, "a\0b", "7", b"7", "/dev/null/x", "hf://", "hf://a/b/c"),
    *(-1, 0, 2**31, 2**32, 2**70, -(10**5000), 1e300, float("nan"), float("-inf"), 1j),
    *([], [[]], [1, [2]], [None], [True], ["1"], [1.5], [float("nan")], [2**70], [-1], [-1, 2**63]),
    *({}, {1: 2}, {1, 2}, (), object, object(), Hostile(), [Hostile()], iter([1]), range(10**18)),
    *(
        np.array(3),
        np.zeros((2, 2), int),
        np.array([]),
        np.array(["a"]),
        np.float32(2),
        np.bool_(1),
    ),
    *(np.array([1.0]), np.array([None]), np.datetime64("2020"), np.zeros((3, 8, 8, 1)) - 1),
]


@pytest.mark.parametrize("seed", range(4))
def test_whatever_is_passed_the_answer_is_a_result_or_one_line(
    digits, uncompiled, monkeypatch, tmp_path, seed
):
    """Arguments of all types in all places; HF_HUB_OFFLINE keeps the hub's client at home."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    rng = random.Random(seed)
    calls = {
        digits.sample: ("seeds", "labels", "latent_seed", "images", "start"),
        digits.interpolate: ("first", "last", "count", "label"),
        digits.trajectory: ("seeds", "labels"),
        digits.save: ("folder", "dtype", "sampler_weights", "grid_seeds", "licence", "force"),
        digits.push_to_hub: ("repository", "private", "token", "dtype", "grid_seeds", "licence"),
        ddgan_jax.load: ("path", "num_steps"),
    }
    right = {"seeds": 2, "folder": "x", "repository": "a/b", "path": "digits"}
    right |= {"first": 1, "last": 2, "count": 3, "sampler_weights": "none"}
    refused = 0
    for _ in range(150):
        call = rng.choice(list(calls))
        names = calls[call]
        arguments = {name: right[name] for name in names if name in right}
        arguments |= {name: rng.choice(VALUES) for name in rng.sample(names, rng.choice((1, 1, 2)))}
        try:
            call(**arguments)
        except UserError as error:
            refused += 1
            assert isinstance(error, ValueError)
            assert "\n" not in str(error) and len(str(error)) < 1500
    assert refused > 75


# ------------------------------------------------------------------------------- kept programs


@pytest.fixture
def own_cache(monkeypatch, tmp_path):
    """A program that has set nothing up, and a home of its own."""
    before = jax.config.jax_compilation_cache_dir
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()
    yield tmp_path / "ddgan_jax" / "jax"
    jax.config.update("jax_compilation_cache_dir", before)
    compilation_cache.reset_cache()


def compile_anew(number):
    jax.jit(lambda x: x * number)(np.float32(1)).block_until_ready()


def test_our_programs_are_kept_and_no_others(own_cache):
    compile_anew(3.25)
    with compiler.kept_programs():
        compile_anew(4.25)
    compile_anew(5.25)
    assert len([file for file in own_cache.iterdir() if file.name.endswith("-cache")]) == 1
    assert jax.config.jax_compilation_cache_dir is None


def test_the_callers_own_choice_stays(own_cache, tmp_path):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "theirs"))
    with compiler.kept_programs():
        compile_anew(6.25)
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "theirs")
    assert not own_cache.exists() and any((tmp_path / "theirs").iterdir())
    # Also one that is made meanwhile.
    jax.config.update("jax_compilation_cache_dir", None)
    with compiler.kept_programs():
        jax.config.update("jax_compilation_cache_dir", "/elsewhere")
    assert jax.config.jax_compilation_cache_dir == "/elsewhere"


def test_threads_leave_the_settings_as_they_were(own_cache):
    def work(number):
        for _ in range(20):
            with compiler.kept_programs():
                assert jax.config.jax_compilation_cache_dir == str(own_cache)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert jax.config.jax_compilation_cache_dir is None


def test_an_error_inside_leaves_them_too(own_cache, monkeypatch, tmp_path):
    with pytest.raises(KeyError), compiler.kept_programs():
        raise KeyError
    assert jax.config.jax_compilation_cache_dir is None
    # Where nothing can be kept, everything else works.
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with compiler.kept_programs():
        assert jax.config.jax_compilation_cache_dir is None


# -------------------------------------------------------------------------------- the guide


def test_every_program_of_the_guide_runs(uncompiled, monkeypatch, tmp_path):
    """In the order of the page and in one session, as a reader copies them; not those of a hub."""
    monkeypatch.setattr(stablehlo, "export_sampler", lambda *args, **kwargs: b"")
    text = (ROOT / "docs" / "guide" / "python.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names = {}
    ran = [block for block in blocks if "hf://" not in block and "push_to_hub" not in block]
    for block in ran:
        exec(compile(block, "docs/guide/python.md", "exec"), names)
    assert len(ran) >= 4
