"""Figures: the same draws as the sampler's, exact neighbours, edits that keep what they should."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest
from PIL import Image

from ddgan_jax import build, cli, data, images, models, pixels
from ddgan_jax.config import diffused_shape
from ddgan_jax.data.datasets import ArrayDataset, DatasetInfo
from ddgan_jax.errors import UserError
from ddgan_jax.inference import drawing, given_image
from ddgan_jax.inference.model import Model
from ddgan_jax.models import registry
from ddgan_jax.sampling import Variation
from ddgan_jax.viz import denoising, distances, neighbours, trajectory
from ddgan_jax.viz.edit import edit, strokes
from tests.methods import SMALLEST, config_of, random_params

STEPS = 3
SEEDS = [4, 11, 2]


def config_in_steps(method):
    return config_of(method, sampling__chunk_size=3, diffusion__num_timesteps=STEPS)


def make_model(method):
    config = config_in_steps(method)
    template = jax.eval_shape(lambda: models.init_params(config, jax.random.key(0)))[0]
    return Model(config, random_params(template), 7, "ema", {})


@pytest.fixture(scope="module", params=SMALLEST)
def model(request):
    """DDGAN, WaveDiff, and SIDDM with classes; in three steps."""
    return make_model(request.param)


@pytest.fixture(params=["siddm"])
def believing(request, monkeypatch):
    """A model whose generator predicts what it sees: all changes are those of the noise."""
    monkeypatch.setattr(registry, "build_generator", believer)
    return Model(config_in_steps(request.param), {}, 7, "ema", {})


def believer(config):
    """A network that returns x_{t+1}, of the channels that it is given."""
    channels = diffused_shape(config)[-1]
    return SimpleNamespace(apply=lambda variables, x, *rest, **dropout: x[..., :channels])


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


IMAGE = noise(8, 8, 1)


# ---- the denoising distribution


@pytest.fixture(scope="module")
def drawn(model):
    return denoising.denoise_once(model, IMAGE, [4, 4, 11], label=3)


def test_same_z_same_prediction_and_another_z_another_one(drawn):
    for parts in (drawn.x_0, drawn.x_km1):
        assert parts.shape == (STEPS, 3, 8, 8, 1)
        np.testing.assert_allclose(parts[:, 0], parts[:, 1], atol=1e-6)
        assert (np.abs(parts[:, 0] - parts[:, 2]).max((1, 2, 3)) > 1e-3).all()


def test_one_noise_is_in_all_noisy_images(model, drawn):
    """x_k = signal_k x_0 + noise_k eps with the same eps for every k."""
    steps = build.schedule(model.config).sampling_transitions()
    x_0 = IMAGE / 127.5 - 1
    signal, level = (np.asarray(c)[::-1, None, None, None] for c in (steps[6], steps[7]))
    assert (steps._fields[6], steps._fields[7]) == ("next_signal", "next_noise")
    eps = (drawn.x_k - signal * x_0) / level
    np.testing.assert_allclose(eps, np.broadcast_to(eps[:1], eps.shape), atol=1e-4)
    sampler = build.sampler(model.config)
    own = sampler.space.decode(sampler.noise(np.uint32([4])).x_T)[0]
    np.testing.assert_allclose(eps[0], own, atol=1e-5)


def test_draws_are_those_of_the_sampler_entered_with_the_image(model):
    """Another way to the same: the chain, begun at that step with the latents of other seeds."""
    ours = denoising.denoise_once(model, IMAGE, SEEDS, label=3, same_posterior=True)
    x_0 = np.broadcast_to(np.float32(IMAGE) / np.float32(127.5) - 1, (3, 8, 8, 1))
    variation = Variation(latent_seeds=np.uint32(SEEDS), x_0=x_0)
    request = model.request([SEEDS[0]] * 3, 3 if model.config.data.num_classes else None)
    k = 2
    theirs = drawing.concatenate(model.draw(request, variation, start=STEPS - k, trajectory=True))
    np.testing.assert_allclose(ours.x_0[k - 1], theirs.x_0[:, 0], atol=1e-5)
    np.testing.assert_allclose(ours.x_km1[k - 1], theirs.x_t[:, 0], atol=1e-5)


def test_posterior_noise_varies_what_z_alone_does_not(model, drawn):
    """Between draws of one z lies the noise of their posteriors, which the last step has not."""
    same = denoising.denoise_once(model, IMAGE, [4, 4, 11], label=3, same_posterior=True)
    np.testing.assert_allclose(same.x_0, drawn.x_0, atol=1e-6)
    apart = np.abs(same.x_km1[:, 2] - drawn.x_km1[:, 2]).max((1, 2, 3))
    assert apart[0] < 1e-6 and (apart[1:] > 1e-3).all()
    np.testing.assert_allclose(drawn.x_km1[0], drawn.x_0[0], rtol=1e-6, atol=1e-6)


def test_a_collapsed_model_shows_zero(drawn):
    collapsed = drawn._replace(x_0=np.repeat(drawn.x_0[:, :1], 3, axis=1))
    for shown, is_zero in ((collapsed, True), (drawn, False)):
        lengths = [distances.mean_pairwise(x_0) for x_0 in shown.x_0]
        assert all((length < 1e-6) == is_zero for length in lengths)
        picture = denoising.picture(IMAGE, shown)
        assert picture.dtype == np.uint8
        size = (len(picture) + images.GAP) // STEPS - images.GAP
        for row in range(STEPS):
            spread = picture[row * (size + images.GAP) :][:size, -size:]
            assert (spread.max() == 0) == is_zero


def test_mean_pairwise_distance_at_known_values():
    zero, one = np.zeros((2, 2, 1)), np.ones((2, 2, 1))
    assert distances.mean_pairwise(np.stack([zero, one])) == 2
    assert distances.mean_pairwise(np.stack([zero, zero, one])) == pytest.approx(4 / 3)
    black, white = (np.full((2, 2, 1), v, np.uint8) for v in (0, 255))
    np.testing.assert_allclose(distances.from_one(np.stack([black, white]), black), [0, 4])


# ---- the trajectory


def test_last_column_of_a_trajectory_is_the_image():
    model = make_model("siddm")
    rows = trajectory.rows(model, SEEDS)
    assert rows.shape == (3, len(trajectory.columns(model)), 8, 8, 1)
    np.testing.assert_array_equal(rows[:, -1], model.sample(SEEDS))
    whole = model.trajectory(SEEDS)
    np.testing.assert_array_equal(rows[:, 1:-1:2], pixels.to_uint8(whole.x_0[:, :-1]))
    np.testing.assert_array_equal(rows[:, 2::2], pixels.to_uint8(whole.x_t[:, :-1]))


def test_a_model_without_predictions_of_x_0(believing):
    """objective.prediction = "x_t" tells no x_0: what it puts out is x_{k-1} itself."""
    believing.config.objective.prediction = "x_t"
    rows = trajectory.rows(believing, SEEDS)
    assert rows.shape[1] == STEPS + 1 == len(trajectory.columns(believing))
    drawn = denoising.denoise_once(believing, IMAGE, SEEDS)
    assert drawn.x_0 is None
    np.testing.assert_allclose(drawn.x_km1, np.repeat(drawn.x_k[:, None], 3, axis=1), rtol=1e-6)
    assert "draws of x_{k-1}" in denoising.table(believing, drawn)
    assert denoising.picture(IMAGE, drawn).ndim == 3


# ---- neighbours


def dataset(pixels):
    info = DatasetInfo("noise", len(pixels), pixels.shape[1], pixels.shape[3], 0)
    return ArrayDataset(info, pixels, np.zeros(len(pixels), np.int32))


@pytest.mark.parametrize("chunk_bytes", [1, 4_000, 2**26])
def test_neighbours_are_those_of_all_distances_in_any_chunks(chunk_bytes):
    pixels, queries = noise(70, 5, 5, 3), noise(4, 5, 5, 3, seed=1)
    queries[1] = pixels[33]
    found = neighbours.nearest(dataset(pixels), queries, 6, chunk_bytes=chunk_bytes)
    squares = np.square(queries[:, None].astype(int) - pixels.astype(int)).sum((2, 3, 4))
    expected = np.argsort(squares, axis=1, kind="stable")[:, :6]
    np.testing.assert_array_equal(found.indices, expected)
    np.testing.assert_array_equal(found.images, pixels[expected])
    lengths = np.sqrt(np.take_along_axis(squares, expected, 1)) / 127.5
    np.testing.assert_allclose(found.distances, lengths, rtol=1e-12)
    assert (found.indices[1, 0], found.distances[1, 0]) == (33, 0)


def test_the_nearest_image_of_a_training_image_is_itself_at_distance_zero():
    """Also among images that differ in the last bit of a pixel, where float32 products cannot."""
    pixels = np.repeat(noise(1, 64, 64, 3), 9, axis=0)
    for i in range(9):
        pixels[i, i, i, 0] ^= 1
    found = neighbours.nearest(dataset(pixels), pixels, 2)
    np.testing.assert_array_equal(found.indices[:, 0], np.arange(9))
    np.testing.assert_allclose(found.distances, [[0, np.sqrt(2) / 127.5]] * 9)


def test_a_set_smaller_than_the_number_of_neighbours_is_said():
    with pytest.raises(UserError, match="noise has 3 images: `neighbours=4` is more"):
        neighbours.nearest(dataset(noise(3, 2, 2, 1)), noise(1, 2, 2, 1), 4)


# ---- editing


def test_the_fewer_steps_the_less_changes(believing):
    lengths = []
    for step in range(1, STEPS + 1):
        results, t = edit(believing, np.full_like(IMAGE, 128), range(30), from_step=step)
        assert t == step and results.shape == (30, 8, 8, 1)
        lengths.append(distances.from_one(results, np.full_like(IMAGE, 128)).mean())
    assert lengths == sorted(lengths) and lengths[2] > 1.2 * lengths[0]
    assert len({result.tobytes() for result in results}) == 30


def test_an_edit_is_the_chain_entered_so_many_steps_before_its_end(believing):
    results, t = edit(believing, IMAGE, SEEDS)
    assert t == STEPS // 2
    expected = believing.sample(SEEDS, images=np.stack([IMAGE] * 3), start=STEPS - t)
    np.testing.assert_array_equal(results, expected)


@pytest.mark.parametrize("step", [0, -1, STEPS + 1])
def test_a_step_that_the_model_does_not_have(believing, step):
    with pytest.raises(UserError, match=f"`from_step={step}`: the model has the steps 1 to 3"):
        edit(believing, IMAGE, SEEDS, from_step=step)


@pytest.mark.quick
@pytest.mark.parametrize("channels", [1, 3])
def test_strokes_are_few_colours_in_flat_areas(channels):
    yy, xx = np.mgrid[:64, :64]
    smooth = np.stack([xx * 4, yy * 4, 255 - xx * 4][:channels], axis=-1).astype(np.uint8)
    speckled = smooth.copy()
    speckled[::7, ::5] = 255
    painted = strokes(speckled, 6)
    assert painted.shape == speckled.shape and painted.dtype == np.uint8
    assert 2 <= len(np.unique(painted.reshape(-1, channels), axis=0)) <= 6
    # Near the picture without its speckles, which a brush does not see.
    error = np.abs(painted.astype(int) - smooth).mean()
    assert error < 0.7 * np.abs(painted.astype(int) - smooth.mean((0, 1))).mean()
    halves = np.zeros_like(smooth)
    halves[:, 32:] = 200
    np.testing.assert_array_equal(strokes(halves, 2), halves)


# ---- pictures


@pytest.mark.quick
def test_blocks_lie_side_by_side_and_can_be_cut_out():
    blocks = [noise(2, n, 100, 100, 3, seed=n) for n in (1, 3, 2)]
    whole = images.side_by_side(blocks)
    assert whole.shape[0] == 2 * 100 + images.GAP
    left = 0
    for block in blocks:
        for row in range(2):
            for column in range(block.shape[1]):
                y, x = row * (100 + images.GAP), left + column * (100 + images.GAP)
                np.testing.assert_array_equal(whole[y : y + 100, x : x + 100], block[row, column])
        left += block.shape[1] * (100 + images.GAP) + 3 * images.GAP
    assert whole.shape[1] == left - 4 * images.GAP


def test_an_image_is_read_as_for_training(tmp_path):
    Image.fromarray(noise(20, 30, 3)).save(tmp_path / "a.png")
    assert given_image.read(tmp_path / "a.png", 8, 1).shape == (8, 8, 1)
    same = noise(8, 8, 3)
    Image.fromarray(same).save(tmp_path / "b.png")
    np.testing.assert_array_equal(given_image.read(tmp_path / "b.png", 8, 3), same)


# ---- commands


@pytest.fixture
def command(believing, monkeypatch, tmp_path):
    """Runs a figure's command in an empty folder, on the model and on a set of noise."""
    monkeypatch.setattr("ddgan_jax.inference.load.open_model", lambda *args: believing)
    monkeypatch.setattr(data, "open_dataset", lambda config: dataset(noise(20, 8, 8, 1)), False)
    monkeypatch.chdir(tmp_path)
    Image.fromarray(IMAGE[..., 0]).save("given.png")

    def run(*argv: str) -> int:
        return cli.main(["figure", *argv])

    return run


@pytest.mark.parametrize(
    ("argv", "printed"),
    [
        (["denoising", "--workdir=w", "--draws=3", "--example=19"], "the 3 predictions of x_0"),
        (["denoising", "--workdir=w", "--image=given.png", "--label=2"], "k  signal  noise"),
        (["trajectory", "--workdir=w", "--seeds=0-2"], "columns: x_3, x_0 predicted from x_3"),
        (["neighbours", "--workdir=w", "--seeds=5", "--neighbours=2"], "seed 5: "),
        (["edit", "--workdir=w", "--input=given.png", "--strokes=3"], "mean L2 from the input: "),
    ],
)
@pytest.mark.parametrize("believing", SMALLEST, indirect=True)
def test_a_command_writes_its_picture_and_prints_its_numbers(
    believing, command, capsys, argv, printed
):
    classes = believing.config.data.num_classes > 0
    argv = [flag for flag in argv if classes or not flag.startswith("--label")]
    assert command(*argv, "--out=out.png") == 0
    assert printed in capsys.readouterr().out
    assert np.asarray(Image.open("out.png")).std() > 0


def test_tiles_alone_are_the_pixels_without_words(believing, command):
    """--captions=none: what was drawn before figures had captions."""
    assert command("trajectory", "--workdir=w", "--seeds=4,11,2", "--captions=none") == 0
    rows = trajectory.rows(believing, SEEDS, believing.request(SEEDS).labels.tolist())
    plain = images.side_by_side([rows])
    np.testing.assert_array_equal(np.asarray(Image.open("trajectory.png")), plain[..., 0])


@pytest.mark.parametrize("form", ["png", "svg", "pdf"])
def test_figures_replace_their_own_files_alone(command, capsys, tmp_path, form):
    """Every form by its ending; a file of somebody else's is kept."""
    argv = ["edit", "--workdir=w", "--input=given.png", "--seeds=0,1"]
    for _ in range(2):
        assert command(*argv, f"--out=x.{form}") == 0
    start = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[form]
    assert (tmp_path / f"x.{form}").read_bytes().startswith(start)
    (tmp_path / f"y.{form}").write_bytes(b"mine")
    assert command(*argv, f"--out=y.{form}") == 2
    assert (
        "did not write it: name another file, or replace it with --force" in capsys.readouterr().err
    )
    assert (tmp_path / f"y.{form}").read_bytes() == b"mine"
    assert command(*argv, f"--out=y.{form}", "--force") == 0
    assert (tmp_path / f"y.{form}").read_bytes() == (tmp_path / f"x.{form}").read_bytes()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            ["trajectory", "--workdir=w", "--captions=none", "--out=x.svg"],
            "pixels alone are a .png",
        ),
        (["trajectory", "--workdir=w", "--captions=xyz"], "'xyz' is not known; known: full"),
        (["trajectory", "--workdir=w", "--seeds=0-999"], "has at most 147 rows or columns of"),
        (["edit", "--workdir=w", "--input=none.png"], "none.png: there is no such file"),
        (["edit", "--workdir=w", "--input=a.txt"], "a.txt is damaged, or no PNG, JPEG"),
        (["edit", "--workdir=w", "--input=given.png", "--from-step=4"], "--from-step=4: the model"),
        (["edit", "--workdir=w", "--input=given.png", "--strokes=1"], "--strokes=1: a painting"),
        (["edit", "--workdir=w"], "--input is missing"),
        (["denoising", "--workdir=w", "--draws=1"], "--draws=1 is not an integer from 2"),
        (["denoising", "--workdir=w", "--example=20"], "has the examples 0 to 19"),
        (["denoising", "--workdir=w", "--label=10"], "`labels`: 10 does not lie between 0 and 9"),
        (["denoising", "--workdir=w", "--posterior-noise=no"], "'no' is not known; known: own"),
        (["neighbours", "--workdir=w", "--neighbours=0"], "--neighbours=0 is not an integer"),
        (["neighbours", "--workdir=w", "--neighbours=21"], "has 20 images: --neighbours=21"),
    ],
)
def test_mistakes_are_one_line(command, capsys, tmp_path, argv, message):
    (tmp_path / "a.txt").write_text("no image")
    assert command(*argv) == 2
    output, errors = capsys.readouterr()
    assert message in errors and errors.count("\n") == 1 and output == ""


def test_points_have_no_figures(command, believing, capsys):
    believing.config.data.name = "mog25"
    assert command("trajectory", "--workdir=w") == 2
    assert "this model draws points" in capsys.readouterr().err
