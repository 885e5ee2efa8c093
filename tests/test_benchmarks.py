import json
import re
from pathlib import Path

import jax
import pytest

from benchmarks import command, input_pipeline, measure, sampler, train_step
from ddgan_jax import show
from ddgan_jax.arguments import parse_config
from ddgan_jax.config import ConfigDict
from ddgan_jax.config_files import load_config
from ddgan_jax.errors import UserError

DIGITS = str(Path(__file__).parents[1] / "configs" / "digits_ddgan.py") + ":tiny"
BENCHMARKS = {"train_step": train_step, "sampler": sampler, "input_pipeline": input_pipeline}


@pytest.fixture(autouse=True)
def single_calls(monkeypatch):
    monkeypatch.setattr(measure, "MIN_SECONDS", 0.0)


def run(capsys, name: str, *argv: str) -> dict:
    module = BENCHMARKS[name]
    assert command.main(name, module.__doc__, module.FLAGS, module.benchmark, argv) == 0
    return json.loads(capsys.readouterr().out)


def test_programs_and_baseline_take_turns(tmp_path):
    order = tmp_path / "order"

    def program(letter: str) -> measure.Program:
        def call() -> None:
            with order.open("a") as file:
                file.write(letter)

        return measure.Program(call, images=1)

    baseline = measure.Baseline(f"printf B >> {order}; echo '{{\"seconds_per_image\": 2}}'", None)
    report = measure.measure({"x": program("x"), "y": program("y")}, 3, baseline)
    assert re.fullmatch("x{2}y{2}(xyB){3}", order.read_text())
    # One baseline for every repeat, so the ratio's median is that of our own time.
    ratio = report["baseline"]["ratio"]
    assert len(ratio["pairs"]) == 3 and ratio["min"] == min(ratio["pairs"])
    assert ratio["median"] * report["seconds_per_image"] == pytest.approx(2, rel=1e-3)
    assert "cpu_ratio" not in report["baseline"]


def test_figures_follow_from_the_times(monkeypatch):
    walls = {"often": iter([9, 9, 1, 3, 2]), "rarely": iter([9, 9, 4, 4, 4])}

    def time_calls(call, count):
        wall = next(walls[call()])
        return measure.Seconds(wall, 2 * wall)

    monkeypatch.setattr(measure, "time_calls", time_calls)
    programs = {
        "often": measure.Program(lambda: "often", 2, 0.75, {"counted": 10.0, "xla": None}),
        "rarely": measure.Program(lambda: "rarely", 4, 0.25),
    }
    baseline = measure.Baseline('echo \'{"seconds_per_image": 2, "cpu_seconds_per_image": 1}\'', 1)
    report = measure.measure(programs, 3, baseline)
    often = report["programs"]["often"]
    assert often["seconds_per_call"] == {"median": 2, "min": 1, "max": 3}
    assert often["seconds_per_image"] == {"median": 1, "min": 0.5, "max": 1.5}
    assert often["flops_per_second"] == {"counted": 10, "xla": None}
    # Per image 0.75 * (1, 3, 2) / 2 + 0.25 * 4 / 4, and twice that of CPU time.
    assert (report["seconds_per_image"], report["images_per_second"]) == (1, 1)
    assert report["cpu_seconds_per_image"] == 2
    assert report["baseline"]["ratio"]["pairs"] == pytest.approx([3.2, 2 / 1.375, 2], rel=1e-4)
    assert report["baseline"]["cpu_ratio"]["median"] == 0.5


def test_warm_up_finds_how_many_calls_fill_a_repeat(monkeypatch):
    monkeypatch.setattr(measure, "MIN_SECONDS", 0.5)
    monkeypatch.setattr(measure, "time_calls", lambda call, n: measure.Seconds(n * 0.07, 0.0))
    assert measure.warm_up(lambda: None) == 8


@pytest.mark.parametrize(
    ("command_line", "expected"),
    [
        ("echo log; echo '{\"seconds_per_image\": 0.5}'", (0.5, None)),
        ('echo \'{"seconds_per_image": 1, "cpu_seconds_per_image": 3}\'', (1, 3)),
        ('printf \'{\\n"seconds_per_image": 4,\\n"more": {}\\n}\\n\'', (4, None)),
    ],
)
def test_baseline_that_prints_its_figure(command_line, expected):
    assert measure.Baseline(command_line, 100).run() == expected


def test_baseline_whose_time_is_divided_by_its_images():
    seconds = measure.Baseline("sleep 0.2", 4).run()
    assert seconds.wall >= 0.05 and seconds.cpu < seconds.wall


@pytest.mark.parametrize(
    ("command_line", "message"),
    [
        ("exit 3", "exit code 3"),
        ("true", "--baseline_images"),
        ("echo 5", "--baseline_images"),
        ("echo '{\"seconds_per_image\": 0}'", "--baseline_images"),
    ],
)
def test_baseline_without_a_figure(command_line, message):
    with pytest.raises(UserError, match=message):
        measure.Baseline(command_line, None).run()


@pytest.mark.parametrize("name", BENCHMARKS)
def test_help_page_names_every_flag(name, capsys):
    module = BENCHMARKS[name]
    assert command.main(name, module.__doc__, module.FLAGS, module.benchmark, ["--help"]) == 0
    page = capsys.readouterr().out
    assert f"python -m benchmarks.{name} --config=" in page
    for flag in (*module.FLAGS, command.REPEATS_FLAG):
        assert f"  --{flag.name}=" in page


@pytest.mark.parametrize(
    ("name", "flag", "message"),
    [
        ("train_step", "--r1=maybe", "--r1=maybe is not one of yes, no, both"),
        ("train_step", "--repeats=0", "--repeats=0 must be positive"),
        ("train_step", "--config.train.batch_size=6", "not divisible by the 4 devices"),
        ("sampler", "--num=6", "--num=6 must be a positive multiple of the number of devices, 4"),
        ("sampler", "--baseline_images=0", "--baseline_images=0 must be positive"),
        ("input_pipeline", "--baseline=true", "unknown flag --baseline"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(name, flag, message, capsys):
    module = BENCHMARKS[name]
    argv = [f"--config={DIGITS}", flag]
    assert command.main(name, module.__doc__, module.FLAGS, module.benchmark, argv) == 2
    output, errors = capsys.readouterr()
    assert output == "" and errors.count("\n") == 1
    assert errors.startswith(f"benchmarks.{name}: ") and message in errors


@pytest.mark.parametrize(("gamma", "interval", "share"), [(0.1, 4, 0.25), (0.1, 1, 1), (0, 4, 0)])
def test_programs_are_weighted_as_training_runs_them(gamma, interval, share):
    config = load_config(DIGITS)
    config.objective.r1_gamma, config.objective.r1_interval = float(gamma), interval
    assert train_step.r1_share(config, True) == share
    assert train_step.r1_share(config, False) == 1 - share


# One resolution and a short latent mapping: what takes time here is compilation.
SMALLEST = [
    f"--config={DIGITS}",
    "--config.generator.channel_multipliers=(1,)",
    "--config.generator.latent_layers=0",
    "--repeats=1",
]


def smallest_config() -> ConfigDict:
    return parse_config(DIGITS, SMALLEST[1:-1])


def test_train_step_report(capsys):
    report = run(capsys, "train_step", *SMALLEST, "--r1=no")
    assert report["overrides"] == {
        "generator.channel_multipliers": [1],
        "generator.latent_layers": 0,
    }
    assert report["machine"]["device_count"] == jax.device_count()
    [(name, program)] = report["programs"].items()
    assert (name, program["weight"]) == ("without_r1", 1)
    flops = program["flops_per_image"]
    assert flops["counted"] == show.train_step_flops(smallest_config(), r1=False)
    # The compiler leaves out products with padding and adds what is elementwise; a wrong number
    # of devices or images would be a factor of 4 or more.
    assert 0.5 < flops["xla"] / flops["counted"] < 2


def test_sampler_report(capsys):
    argv = [*SMALLEST, "--config.diffusion.num_timesteps=2", "--num=8"]
    report = run(capsys, "sampler", *argv, "--baseline=echo 1", "--baseline_images=1")
    assert (report["nfe"], report["batch_size"]) == (2, 8)
    [program] = report["programs"].values()
    forward = show.network_flops(smallest_config())["generator"]
    assert program["flops_per_image"]["counted"] == 2 * forward
    assert program["images_per_second"] * program["seconds_per_image"]["median"] == pytest.approx(
        1, rel=1e-3
    )
    assert len(report["baseline"]["ratio"]["pairs"]) == 1


def test_input_pipeline_report(capsys, tmp_path):
    argv = [f"--config={DIGITS}", f"--config.data.dir={tmp_path}", "--repeats=1"]
    assert run(capsys, "input_pipeline", *argv)["source"] == "memory"
    argv.append("--config.data.memory_limit_mib=0")
    report = run(capsys, "input_pipeline", *argv)
    assert (report["source"], report["num_examples"]) == ("files", 1797)
