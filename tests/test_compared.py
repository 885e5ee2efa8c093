"""Two sets of images, and published statistics: the same numbers by two ways, and no claim more."""

import json

import jax
import numpy as np
import pytest

from ddgan_jax import metrics
from ddgan_jax.errors import UserError
from ddgan_jax.evaluation import compared, features, results, scorer
from ddgan_jax.evaluation.gather import gather
from ddgan_jax.metrics import published, statistics
from tests.test_evaluate import PIXELS, images, mistake, on_disk, read_all, run, write_folder

__all__ = ["on_disk"]  # a fixture


def test_two_folders_compare_as_a_reference_made_of_one_does(on_disk, capsys):
    """The law of --against: the numbers are those of the statistics of its images."""
    drawn, real = images(30, channels=1), images(40, channels=1, seed=1)
    np.save(on_disk / "drawn.npy", drawn)
    folder, file = write_folder(on_disk / "real", real), on_disk / "real.npz"
    argv = ["evaluate", *PIXELS, "--metrics=frechet,prdc", f"--images={on_disk / 'drawn.npy'}"]
    run(*argv, f"--against={folder}", f"--out={on_disk / 'a.json'}")
    run("reference", f"--images={folder}", "--features=pixels", f"--out={file}")
    run(*argv, f"--reference={file}", f"--out={on_disk / 'b.json'}")
    first, second = (json.loads((on_disk / f"{name}.json").read_text()) for name in "ab")
    assert first["metrics"] == second["metrics"]
    x, y = ((pixels / 127.5 - 1).reshape(len(pixels), -1) for pixels in (real, drawn))
    expected = metrics.frechet_distance(x, y)
    assert first["metrics"]["frechet_pixels_30"] == pytest.approx(expected, 1e-5)
    about = first["reference"]
    assert (about["count"], about["preprocessing"]) == (40, "8 x 8 x 1: as given")
    assert f"images of {folder}: 40 images" in capsys.readouterr().out
    # The other way round, and from arrays, the distance is the same.
    back = ["evaluate", *PIXELS, "--metrics=frechet", f"--images={folder}"]
    run(*back, f"--against={on_disk / 'drawn.npy'}", f"--out={on_disk / 'c.json'}")
    again = json.loads((on_disk / "c.json").read_text())["metrics"]["frechet_pixels_40"]
    assert again == pytest.approx(expected, 1e-5)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            ["--against=large.npy"],
            "are images of 9 x 9 x 1, and images of drawn.npy are of 8 x 8 x",
        ),
        (["--against=one.npy"], "--against=one.npy has 1 images, frechet need 2"),
        (["--against=none"], "cannot read none: there is no such file"),
        (
            ["--against=one.npy", "--reference=x.npz"],
            "--against and --reference both name the real",
        ),
        (["--against=one.npy", "--split=test"], "--split is that of a data set, and --against are"),
        (["--reference=bare.npz"], "mu and sigma alone, which are of Inception features in publi"),
        (
            ["--against=one.npy", "--features=classifier"],
            "--features=classifier learns the classes",
        ),
        ([], "name their set with --dataset=NAME, or images with --against=PATH"),
    ],
)
def test_images_that_cannot_be_compared(argv, message, on_disk, monkeypatch, capsys):
    monkeypatch.chdir(on_disk)
    for name, pixels in (("drawn", images(9, channels=1)), ("one", images(1, channels=1))):
        np.save(f"{name}.npy", pixels)
    np.save("large.npy", images(9, size=9, channels=1))
    np.savez("bare.npz", mu=np.zeros(64), sigma=np.eye(64))
    argv = ["--images=drawn.npy", *PIXELS, "--metrics=frechet", *argv]
    assert message in mistake(capsys, "evaluate", *argv)
    assert not (on_disk / "evaluations").exists()


def test_published_statistics_say_what_is_not_known(on_disk, monkeypatch, capsys):
    """mu and sigma alone: the same distance as from a file of ours, and no claim beyond that."""
    pixels = features.pixels(jax.devices())
    identity = {"network": "inception", "protocol": "pytorch_fid", "weights_sha256": "0"}
    network = pixels._replace(name="inception", identity=identity)
    monkeypatch.setattr(scorer, "open_network", lambda *args, **names: network)
    monkeypatch.setattr(published, "DIMENSION", 64)
    drawn, real = images(30, channels=1), images(40, channels=1, seed=1)
    np.save(on_disk / "drawn.npy", drawn)
    found = gather([real], pixels, total=40, keep=0)
    mu, sigma = statistics.mean_and_covariance(found.stats)
    # As guided diffusion writes them, of which pytorch-fid's files are a part.
    more = {"mu_s": mu[:9], "sigma_s": sigma[:9, :9], "arr_0": real}
    np.savez(on_disk / "adm.npz", mu=mu, sigma=sigma, **more)
    argv = ["evaluate", "--allow-small", f"--images={on_disk / 'drawn.npy'}"]
    argv += ["--protocol=pytorch_fid", f"--reference={on_disk / 'adm.npz'}"]
    run(*argv, "--metrics=fid", f"--out={on_disk / 'a.json'}")
    result = json.loads((on_disk / "a.json").read_text())
    x, y = ((pixels / 127.5 - 1).reshape(len(pixels), -1) for pixels in (real, drawn))
    assert result["metrics"]["fid_30"] == pytest.approx(metrics.frechet_distance(x, y), 1e-5)
    about = result["reference"]
    assert about["count"] is None and about["preprocessing_known"] is False
    shown = capsys.readouterr().out
    assert "reference  adm.npz: unknown number of images" in shown
    assert "not known: another program's file; protocol pytorch_fid is taken for its" in shown
    line = mistake(capsys, *argv, "--metrics=prdc")
    assert "holds mu and sigma alone: prdc compare single images" in line
    # Without --metrics those are left out that the file has no data for.
    asked = compared.default_metrics("inception", str(on_disk / "adm.npz"))
    assert asked == ["fid", "is"]
    # The images in such a file are its `arr_0`.
    np.testing.assert_array_equal(read_all(on_disk / "adm.npz"), real)


@pytest.mark.quick
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mu": np.zeros(2)}, r"mu \(2,\), sigma \(3, 3\) are not of one dimension"),
        ({"mu": np.arange(3)}, "mu holds what is no finite number"),
        ({"sigma": np.full((3, 3), np.nan)}, "sigma holds what is no finite number"),
        ({"sigma": -np.eye(3)}, "some direction has a negative variance"),
        ({"sigma": np.triu(np.ones((3, 3)))}, "sigma is not symmetric"),
        ({}, "is of features of 3 numbers, and those of Inception have 2,048"),
    ],
)
def test_published_files_that_are_none(tmp_path, change, message):
    np.savez(tmp_path / "x.npz", **({"mu": np.zeros(3), "sigma": np.eye(3)} | change))
    with pytest.raises(UserError, match=message):
        published.load(tmp_path / "x.npz", "tf1")


@pytest.mark.quick
def test_sizes_that_differ_are_told():
    result = {
        "metrics": {"fid_9": 1.0},
        "samples": {"count": 9, "images": "x", "size": "8 x 8 x 3"},
        "features": {"network": "inception", "protocol": "pytorch_fid"},
        "reference": {"dataset": "y", "count": 9, "features_kept": 0},
        "model": {},
        "sampling": None,
    }
    result["samples"]["comparable_with_published_numbers"] = False
    for size, told in (("8 x 8 x 3", False), ("9 x 9 x 3", True)):
        result["reference"]["preprocessing"] = f"{size}: as given"
        line = f"{size}: as given, and the samples are 8 x 8 x 3; each is resized to 299 x 299"
        assert (line in results.table(result)) == told
