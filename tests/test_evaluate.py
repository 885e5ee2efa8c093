"""`ddgan evaluate` and `ddgan reference`: names, numbers by another way, one line for mistakes."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

from ddgan_jax import cli, metrics, models
from ddgan_jax.errors import UserError
from ddgan_jax.evaluation import classifier, evaluate, features, given, results, scorer
from ddgan_jax.evaluation.gather import Gathered, gather
from ddgan_jax.inference.model import Model
from ddgan_jax.metrics import names as metric_names
from ddgan_jax.metrics import statistics
from tests.methods import config_of, random_params

# ---- names


@pytest.mark.quick
@pytest.mark.parametrize(
    ("asked", "network", "count", "names"),
    [
        (["fid"], "inception", 50_000, ["fid"]),
        (["fid", "kid"], "inception", 5_000, ["fid_5000", "kid_5000", "kid_std_5000"]),
        (["is"], "inception", 60_000, ["is_60000", "is_std_60000"]),
        (["frechet"], "pixels", 1_000, ["frechet_pixels_1000"]),
        (["score"], "classifier", 50_000, ["score_classifier", "score_std_classifier"]),
        (["modes"], "pixels", 26_000, ["modes", "modes_kl"]),
        (["modes"], "inception", 50_000, ["modes", "modes_kl"]),  # the first 26,000
        (["modes"], "inception", 2_600, ["modes_2600", "modes_kl_2600"]),
    ],
)
def test_a_name_tells_the_network_and_an_unusual_count(asked, network, count, names):
    assert list(metric_names.value_names(asked, network, count).values()) == names


@pytest.mark.quick
@pytest.mark.parametrize("network", ["classifier", "pixels"])
def test_other_networks_have_no_published_names(network):
    asked = [name for name, metric in metric_names.METRICS.items() if network in metric.features]
    names = metric_names.value_names(asked, network, 100).values()
    assert not {"fid", "kid", "is", "inception"} & {part for n in names for part in n.split("_")}
    for name in ("fid", "is", "kid"):
        with pytest.raises(UserError):
            metric_names.check([name], network)


# ---- numbers


def gathered(count, seed, dim=6, classes=10):
    random = np.random.default_rng(seed)
    vectors = random.standard_normal((count, dim)).astype(np.float32) + seed / 4
    logits = random.standard_normal((count, classes)).astype(np.float32)
    stats = statistics.add(statistics.empty(dim), vectors)
    return Gathered(stats, vectors, logits, random.integers(0, 1000, count))


def as_reference(real):
    moments = statistics.mean_and_covariance(real.stats)
    provenance = statistics.Provenance("none", "none", "x", "x", "pixels")
    return statistics.SavedStatistics(*moments, real.stats.count, provenance, real.vectors)


@pytest.mark.quick
def test_numbers_are_those_of_the_functions_on_whole_sets(monkeypatch):
    monkeypatch.setattr(scorer, "SUBSETS", 10)
    real, fake = gathered(1500, 0), gathered(1200, 1)
    asked = ["frechet", "kernel", "score", "prdc", "modes"]
    ours = scorer.compute(asked, fake, as_reference(real))
    assert list(metric_names.value_names(asked, "classifier", 1200)) == list(
        {name: None for metric in asked for name in metric_names.METRICS[metric].values}
    )
    assert ours["frechet"] == pytest.approx(metrics.frechet_distance(real.vectors, fake.vectors))
    whole = metrics.kernel_distance(real.vectors, fake.vectors)
    assert ours["kernel"] == pytest.approx(whole, abs=4 * ours["kernel_std"])
    assert ours["kernel_std"] > 0
    same_number = real.vectors[:1200]
    assert (ours["precision"], ours["recall"]) == metrics.precision_recall(
        same_number, fake.vectors
    )
    assert (ours["density"], ours["coverage"]) == metrics.density_coverage(
        same_number, fake.vectors
    )
    order = np.random.RandomState(2020).permutation(1200)
    expected = metrics.inception_score(fake.logits[order])
    assert (ours["score"], ours["score_std"]) == expected
    assert (ours["modes"], ours["modes_kl"]) == metrics.mode_statistics(fake.labels, 1000)


@pytest.mark.quick
def test_a_set_is_no_distance_from_itself(monkeypatch):
    monkeypatch.setattr(scorer, "SUBSETS", 2)
    real = gathered(1000, 0)
    values = scorer.compute(["frechet", "kernel", "prdc"], real, as_reference(real))
    assert values["frechet"] == pytest.approx(0, abs=1e-9)
    assert values["kernel"] <= 0  # unbiased: the pairs of equal ones are not in the mean
    assert (values["precision"], values["recall"], values["coverage"]) == (1, 1, 1)


@pytest.mark.quick
def test_a_scorer_gives_the_numbers_of_whole_sets():
    """Of images that come in chunks, by their full names, on features that a test can compute."""
    real, fake = images(40, channels=1), images(30, channels=1, seed=1)
    network = features.pixels(jax.devices())
    found = gather([real], network, total=40, keep=40)
    provenance = features.provenance(network, "x", "x")
    reference = statistics.saved(found.stats, provenance, found.vectors)
    asked = ("frechet", "prdc")
    score = scorer.Scorer(asked, 30, network, reference, None)
    values = score(np.split(fake, [7, 8, 21]))
    x, y = ((pixels / 127.5 - 1).reshape(len(pixels), -1) for pixels in (real, fake))
    expected = {
        "frechet": metrics.frechet_distance(x, y),
        **metrics.precision_recall(x[:30], y)._asdict(),
        **metrics.density_coverage(x[:30], y)._asdict(),
    }
    full = metric_names.value_names(asked, "pixels", 30)
    assert values == pytest.approx({full[name]: value for name, value in expected.items()}, 1e-5)


@pytest.mark.quick
def test_which_way_is_better():
    assert metric_names.is_better("fid", 3.0, None) and metric_names.is_better("modes_kl", 0.1, 0.2)
    assert not metric_names.is_better("frechet", 3.0, 3.0)
    assert metric_names.is_better("recall", 0.5, 0.4) and not metric_names.is_better("is", 8.0, 9.0)


# ---- images that are given


def images(count=4, size=8, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, channels), np.uint8)


def write_folder(folder, pixels):
    folder.mkdir()
    for i, image in enumerate(pixels):
        Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(folder / f"{i}.png")
    return folder


def read_all(path):
    found = given.open_images(path)
    read = np.concatenate(list(found.read()))
    assert (found.count, found.shape) == (len(read), read.shape[1:])
    return read


@pytest.mark.quick
@pytest.mark.parametrize("channels", [1, 3])
def test_the_same_images_from_any_file(tmp_path, channels):
    pixels = images(channels=channels)
    np.save(tmp_path / "x.npy", pixels)
    np.save(tmp_path / "floats.npy", (pixels / 127.5 - 1).astype(np.float32))
    np.savez(tmp_path / "x.npz", images=pixels, seeds=np.arange(4))
    np.savez(tmp_path / "field.npz", pixels, np.arange(4))  # as arr_0 and arr_1
    write_folder(tmp_path / "folder", pixels)
    write_folder(tmp_path / "folder" / ".thumbnails", images(size=4))  # hidden
    for name in ("x.npy", "floats.npy", "x.npz", "field.npz", "folder"):
        np.testing.assert_array_equal(read_all(tmp_path / name), pixels)
    if channels == 1:
        np.save(tmp_path / "gray.npy", pixels[..., 0])
        np.testing.assert_array_equal(read_all(tmp_path / "gray.npy"), pixels)


def nan(shape=(2, 8, 8, 3)):
    x = np.zeros(shape, np.float32)
    x[1, 2, 3] = np.nan
    return x


@pytest.mark.quick
@pytest.mark.parametrize(
    ("array", "message"),
    [
        (nan(), "holds NaN or infinity"),
        (np.full((2, 8, 8, 3), -3.0), "floats from -3 to -3: they must lie in"),
        (np.linspace(-1, 255, 384).reshape(2, 8, 8, 3), "floats from -1 to 255"),
        (np.linspace(0, 1, 384).reshape(2, 8, 8, 3), "if they mean [0, 1], give"),
        (np.zeros((2, 8, 8, 3), np.int64), "is int64 (2, 8, 8, 3): it must be uint8"),
        (np.zeros((2, 3, 8, 8), np.uint8), "is uint8 (2, 3, 8, 8): it must be"),
        (np.zeros((0, 8, 8, 3), np.uint8), "is uint8 (0, 8, 8, 3): it must be"),
    ],
)
def test_arrays_that_are_no_images(array, message, tmp_path):
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(UserError) as error:
        given.open_images(tmp_path / "x.npy")
    assert message in str(error.value) and "x.npy" in str(error.value)


@pytest.mark.quick
def test_folders_and_files_that_are_no_images(tmp_path):
    empty, mixed, broken = (tmp_path / name for name in ("empty", "mixed", "broken"))
    empty.mkdir()
    write_folder(mixed, [images(1)[0], images(1, size=9)[0]])
    write_folder(broken, images(2))
    (broken / "1.png").write_text("pixels")
    (tmp_path / "x.npz").write_text("pixels")
    np.savez(tmp_path / "y.npz", pictures=images(), others=images())
    for path, message in (
        (empty, "no image .* below"),
        (mixed, "several sizes: 0.png has 8 x 8 pixels, 1.png has 9 x 9 pixels"),
        (broken, "1 of 2 images cannot be used: .*1.png is damaged, or no PNG, JPEG, WebP"),
        (tmp_path / "x.npz", "x.npz is no .npy or .npz file of arrays"),
        (tmp_path / "y.npz", "y.npz does not say which of its arrays are the images"),
        (tmp_path / "none", "cannot read .*none: there is no such file"),
    ):
        with pytest.raises(UserError, match=message):
            given.open_images(path)


# ---- the commands


@pytest.fixture
def on_disk(tmp_path, monkeypatch):
    """A cache and a data folder of their own, and the arguments that name the latter."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    return tmp_path


@pytest.fixture
def model(on_disk, monkeypatch):
    """A model of random parameters, which --workdir=FOLDER opens."""
    config = config_of("siddm", sampling__chunk_size=8)
    params = random_params(jax.eval_shape(lambda: models.init_params(config, jax.random.key(0))[0]))
    made = Model(config, params, 7, "ema", {})
    monkeypatch.setattr(evaluate, "open_model", lambda *flags: made)
    return made


PIXELS = ("--features=pixels", "--allow-small")


def run(*argv):
    assert cli.main(list(argv)) == 0


def mistake(capsys, *argv):
    assert cli.main(list(argv)) == 2
    errors = capsys.readouterr().err.splitlines()
    return errors[-1]


def test_samples_are_scored_as_their_images_are(on_disk, model, capsys):
    """Straight from the network, or drawn first, written, and given; the reference from a file."""
    argv = ["evaluate", *PIXELS, "--metrics=frechet,prdc", "--num=40"]
    run(*argv, f"--workdir={on_disk}")
    shown = capsys.readouterr().out
    result = json.loads((on_disk / "evaluations/step_7_in_2_pixels_40.json").read_text())
    keys = "metrics samples features reference model sampling written_by"
    assert list(result) == keys.split()
    assert result["model"]["step"] == 7 and len(result["model"]["sha256"]) == 64
    assert result["samples"]["count"] == 40 and result["reference"]["count"] == 1797
    assert result["sampling"]["network_evaluations_per_image"] == 2
    assert result["sampling"]["seconds_per_100_images"] > 0
    for part in ("frechet_pixels_40", "40 samples of", "digits train: 1,797 images", "8 x 8 x 1"):
        assert part in shown
    assert "not comparable with published numbers" in shown

    np.save(on_disk / "drawn.npy", model.sample(range(40)))
    run("reference", "--dataset=digits", "--features=pixels", f"--out={on_disk / 'digits.npz'}")
    argv += [f"--images={on_disk / 'drawn.npy'}", f"--reference={on_disk / 'digits.npz'}"]
    run(*argv, f"--out={on_disk / 'given.json'}")
    again = json.loads((on_disk / "given.json").read_text())
    assert again["metrics"] == pytest.approx(result["metrics"], rel=1e-9)
    assert again["sampling"] is None


def test_no_result_is_overwritten(on_disk, model, capsys):
    argv = ["evaluate", f"--workdir={on_disk}", *PIXELS, "--metrics=frechet"]
    for _ in range(2):
        run(*argv, "--num=16")
    names = sorted(path.name for path in (on_disk / "evaluations").iterdir())
    assert names == ["step_7_in_2_pixels_16.json", "step_7_in_2_pixels_16_2.json"]
    before = (on_disk / "evaluations" / names[0]).read_bytes()
    out = on_disk / "evaluations" / names[0]
    assert f"{out} exists already" in mistake(capsys, *argv, "--num=16", f"--out={out}")
    assert out.read_bytes() == before


@pytest.mark.parametrize("gray", ["mnist", "digits"])
def test_modes_need_no_feature_network(gray, on_disk, monkeypatch, capsys):
    """Only the classifier of digits; the number is named as papers do, and has its floor."""
    stacks = images(26_000, size=4)
    np.save(on_disk / "stacks.npy", stacks)
    about = {"dataset": gray, "accuracy": 0.99, "held_out": 6000, "weights_sha256": "0"}
    trained = classifier.Trained({}, about)
    monkeypatch.setattr(classifier, "of_stacked_digits", lambda config, report: trained)
    monkeypatch.setattr(
        classifier, "label_stacks", lambda params, x: x[:, 0, 0, 0].astype(int) * 100 % 1000
    )
    argv = [f"--images={on_disk / 'stacks.npy'}", f"--dataset=stacked_{gray}", "--metrics=modes"]
    run("evaluate", *argv, f"--out={on_disk / 'modes.json'}")
    result = json.loads((on_disk / "modes.json").read_text())
    expected = metrics.mode_statistics(stacks[:, 0, 0, 0].astype(int) * 100 % 1000, 1000)
    assert result["metrics"] == {"modes": expected.modes, "modes_kl": expected.kl}
    assert result["modes"]["kl_floor"] == 999 / 52_000
    assert result["features"]["network"] == "digits"
    shown = capsys.readouterr().out
    assert "0.0192; accuracy of the digit classifier 99.00%" in shown
    # Published modes are MNIST's.
    assert ("not comparable" in shown) == (gray == "digits")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--metrics=fdi"], "there is no metric 'fdi'; did you mean fid?"),
        (["--metrics=fid"], "fid is the name of a number from Inception features: with features"),
        (["--metrics=score"], "there is no metric 'score' of features 'pixels'; there are frechet"),
        (["--num=900"], "kernel needs at least 1,000 images, there are 900"),
        (["--metrics=frechet", "--num=0"], "--num=0 is not an integer from 1 to 10,000,000"),
        (["--features=pixel"], "--features: 'pixel' is not known; did you mean pixels?"),
        (["--protocol=clean"], "--protocol: 'clean' is not known"),
        (["--metrics=modes", "--num=9"], "on stacked_mnist and stacked_digits, not on digits"),
        (["--images=x.npy"], "--images are scored without a model"),
        (["--dataset=mnist", "--metrics=frechet", "--num=9"], "mnist is not prepared in"),
        (
            ["--reference=x.npz", "--metrics=frechet", "--num=9"],
            "cannot read x.npz: there is no such file",
        ),
        (["--features=inception", "--metrics=fid", "--num=9"], "there are no Inception weights at"),
    ],
)
def test_mistakes_are_one_line(argv, message, on_disk, model, capsys):
    line = mistake(capsys, "evaluate", f"--workdir={on_disk}", *PIXELS, *argv)
    assert line.startswith("ddgan evaluate: ") and message in line
    assert not (on_disk / "evaluations").exists()


def test_few_images_need_permission(on_disk, model, capsys):
    argv = ["evaluate", f"--workdir={on_disk}", "--features=pixels", "--metrics=frechet"]
    line = mistake(capsys, *argv, "--num=49999")
    assert "published numbers of frechet are of 50,000 images, there are 49,999" in line
    assert "--allow-small" in line


def test_statistics_of_something_else_are_refused(on_disk, model, capsys):
    path = on_disk / "real.npz"
    run("reference", "--dataset=digits", "--features=pixels", "--num=9", f"--out={path}")
    saved = statistics.load(path)
    argv = ["evaluate", *PIXELS, "--metrics=frechet", "--num=9", f"--reference={path}"]
    np.save(on_disk / "larger.npy", images(9, size=10, channels=1))
    line = mistake(capsys, *argv, f"--images={on_disk / 'larger.npy'}")
    assert "cannot be compared: preprocessing 8 x 8 x 1" in line and "and 10 x 10 x 1" in line
    stats = statistics.add(statistics.empty(64), np.random.default_rng(0).random((9, 64)))
    for field, value in (("network", "inception"), ("protocol", "tf1"), ("weights_sha256", "0")):
        statistics.save(path, stats, saved.provenance._replace(**{field: value}))
        assert f"cannot be compared: {field} {value} and " in mistake(
            capsys, *argv, f"--workdir={on_disk}"
        )
    statistics.save(path, stats, saved.provenance)
    line = mistake(capsys, *argv, f"--workdir={on_disk}", "--metrics=prdc")
    assert "the reference keeps 0 features, prdc need 6" in line


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--features=pixels"], "name one data set, with --dataset=NAME or with --config=FILE"),
        (["--features=pixels", "--dataset=mnist"], "mnist is not prepared in"),
        (
            ["--features=pixels", "--dataset=digits", "--num=-1"],
            "--num=-1 is not an integer of 0 or more",
        ),
        (["--dataset=digits"], "there are no Inception weights at"),
    ],
)
def test_reference_without_what_it_needs(argv, message, on_disk, capsys):
    out = on_disk / "real.npz"
    assert message in mistake(capsys, "reference", f"--out={out}", *argv)
    assert not out.exists()


@pytest.mark.quick
def test_a_tiny_negative_distance_is_shown_as_zero():
    values = {"fid_9": -1e-12, "kid_9": -3e-4, "kid_std_9": 1e-3}
    result = {
        "metrics": values,
        "samples": {"count": 9, "images": "x", "comparable_with_published_numbers": False},
        "features": {"network": "inception", "protocol": "pytorch_fid"},
        "reference": None,
        "model": {},
        "sampling": None,
    }
    shown = results.table(result).splitlines()
    assert shown[0].split() == ["fid_9", "0"]
    assert shown[1].split() == ["kid_9", "-0.0003", "+-", "0.001"]
    assert "protocol pytorch_fid" in results.table(result)
