"""Quality against sampling time: every result in the plot, and only those that mean the same."""

import json

import pytest

from ddgan_jax import cli
from ddgan_jax.errors import UserError
from ddgan_jax.viz import tradeoff

pytestmark = pytest.mark.quick


def write_result(path, *, value=3.9, seconds=0.2, metric="fid", **changes):
    """A result file; changes are spelled group__field=value."""
    content = {
        "metrics": {metric: value},
        "samples": {"count": 50_000, "images": f"samples of {path.stem}"},
        "features": {"network": "inception", "protocol": "pytorch_fid", "weights_sha256": "67"},
        "reference": {"dataset": "cifar10", "count": 50_000, "file": str(path)},
        "model": {"folder": f"runs/{path.stem}"},
        "sampling": {"denoising_steps": 4, "seconds_per_100_images": seconds, "device": "V100"},
    }
    for name, new in changes.items():
        group, _, field = name.partition("__")
        content[group][field] = new
    path.write_text(json.dumps(content))
    return tradeoff.read(path, metric)


def test_a_plot_holds_every_result_and_the_papers_where_asked(tmp_path):
    results = [write_result(tmp_path / "a.json"), write_result(tmp_path / "b.json", seconds=2.5)]
    plain, published = (tradeoff.chart(results, "fid", published=p) for p in (False, True))
    for chart in (plain, published):
        assert "a, 4 steps: 0.2, 3.9" in chart and "b, 4 steps: 2.5, 3.9" in chart
    for point in tradeoff.PUBLISHED:
        tip = f"{point.name}: {point.seconds:g}, {point.fid:g}"
        assert tip in published and tip not in plain
    assert tradeoff.find(f"{tmp_path}/a.json,{tmp_path}") == [
        tmp_path / name for name in ("a.json", "a.json", "b.json")
    ]
    of_one_run = [
        write_result(tmp_path / f"{n}.json", model__folder="runs/x", model__step=n)
        for n in (1000, 2000)
    ]
    chart = tradeoff.chart(of_one_run, "fid")
    assert "x, 4 steps after 1,000: " in chart and "x, 4 steps after 2,000: " in chart
    (tmp_path / "run" / "evaluations").mkdir(parents=True)
    (tmp_path / "run" / "config.json").write_text("{}")
    of_run = tmp_path / "run" / "evaluations" / "c.json"
    write_result(of_run)
    assert tradeoff.find(f"{tmp_path}/run") == [of_run]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"samples__count": 5_000}, "samples.count is 50000 in .*a.json and 5000 in .*b.json"),
        ({"features__protocol": "tf1"}, "features.protocol is pytorch_fid in .* and tf1 in"),
        ({"features__weights_sha256": "0"}, "features.weights_sha256 is 67 in .* and 0 in"),
        ({"reference__dataset": "stl10"}, "reference.dataset is cifar10 in .* and stl10 in"),
    ],
)
def test_numbers_that_do_not_mean_the_same_are_not_mixed(tmp_path, change, message):
    results = [write_result(tmp_path / "a.json"), write_result(tmp_path / "b.json", **change)]
    with pytest.raises(UserError, match=message):
        tradeoff.chart(results, "fid")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metric": "frechet_classifier"}, "is of the FID, not of frechet_classifier"),
        ({"features__protocol": "tf1"}, "features.protocol is pytorch_fid in the paper, tf1 in"),
        ({"samples__count": 10_000}, "samples.count is 50000 in the paper, 10000 in these"),
        ({"reference__dataset": "digits"}, "numbers are of cifar10"),
    ],
)
def test_the_papers_numbers_stand_only_beside_their_like(tmp_path, change, message):
    result = write_result(tmp_path / "a.json", **change)
    with pytest.raises(UserError, match=message):
        tradeoff.chart([result], change.get("metric", "fid"), published=True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff{", "a.json is not JSON"),
        (b"[1]", "a.json: Expected `object`, got `array`"),
        (b"{}", "a.json: Object missing required field `metrics`"),
        (b'{"metrics": {"is": 9.0}}', "has no metric 'fid'; `metric`: is"),
        (b'{"metrics": {"fid": 9.0}, "sampling": null}', "has no sampling time"),
    ],
)
def test_files_that_are_no_results(tmp_path, content, message):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UserError, match=message):
        tradeoff.read(tmp_path / "a.json", "fid")


def test_a_metric_that_all_results_have_is_chosen(tmp_path, capsys):
    """The FID before all others, whatever its name says of features and numbers of images."""
    paths = [tmp_path / "a.json", tmp_path / "b.json"]
    for path, others in zip(paths, (["recall_pixels_9"], ["modes"]), strict=True):
        write_result(path)
        content = json.loads(path.read_text())
        names = [*others, "kernel_std_pixels_9", "kernel_pixels_9", "frechet_pixels_9"]
        content["metrics"] = dict.fromkeys(names, 1.5)
        path.write_text(json.dumps(content))
    assert tradeoff.common_metric(paths) == "frechet_pixels_9"
    assert tradeoff.common_metric(paths[:1]) == "frechet_pixels_9"
    assert cli.main(["figure", "tradeoff", f"--results={tmp_path}", f"--out={tmp_path}/x.png"]) == 0
    shown = capsys.readouterr().out
    assert "metric frechet_pixels_9, the first that all of them have: --metric takes oth" in shown
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    write_result(paths[1], metric="is")
    with pytest.raises(
        UserError, match="no metric in common: .*a.json has frechet_pixels_9, .* has is: name"
    ):
        tradeoff.common_metric(paths)


def test_the_command_writes_an_svg_file(tmp_path, capsys):
    write_result(tmp_path / "a.json", metric="frechet_pixels_1000")
    out = tmp_path / "out.svg"
    argv = [f"--results={tmp_path}/a.json", "--metric=frechet_pixels_1000", f"--out={out}"]
    assert cli.main(["figure", "tradeoff", *argv]) == 0
    assert out.read_text().startswith("<svg") and f"1 results in {out}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--results=none"], "there is no result file at 'none'"),
        (
            ["--results=none", "--out=a.gif"],
            "cannot write a.gif: end its name in .png, .svg or .pdf",
        ),
        ([], "--results is missing"),
    ],
)
def test_mistakes_are_one_line(argv, message, capsys):
    assert cli.main(["figure", "tradeoff", *argv]) == 2
    output, errors = capsys.readouterr()
    assert message in errors and errors.count("\n") == 1 and output == ""
