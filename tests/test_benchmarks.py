import json
import re
from pathlib import Path

import jax
import pytest

from benchmarks import (
    checkpoint,
    command,
    first_steps,
    input_pipeline,
    measure,
    mog25,
    overhead,
    peak,
    profiling,
    sampler,
    startup,
    tables,
    train_step,
)
from ddgan_jax import build, distributed
from ddgan_jax.cli.arguments import parse_config
from ddgan_jax.config import ConfigDict
from ddgan_jax.config.files import load_config
from ddgan_jax.errors import UserError
from ddgan_jax.inspection import costs
from ddgan_jax.state import num_parameters

DIGITS = str(Path(__file__).parents[1] / "configs" / "digits_ddgan.py") + ":tiny"
BENCHMARKS = {
    "first_steps": first_steps,
    "train_step": train_step,
    "sampler": sampler,
    "input_pipeline": input_pipeline,
    "mog25": mog25,
    "checkpoint": checkpoint,
    "overhead": overhead,
    "profiling": profiling,
}
ROOT = Path(__file__).parents[1]


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
    "--config.generator.attention_resolutions=()",
    "--config.generator.latent_layers=0",
    "--repeats=1",
]


def smallest_config() -> ConfigDict:
    return parse_config(DIGITS, SMALLEST[1:-1])


def test_train_step_report(capsys):
    report = run(capsys, "train_step", *SMALLEST, "--r1=no")
    assert report["overrides"] == {
        "generator.channel_multipliers": [1],
        "generator.attention_resolutions": [],
        "generator.latent_layers": 0,
    }
    assert report["machine"]["device_count"] == jax.device_count()
    [(name, program)] = report["programs"].items()
    assert (name, program["weight"]) == ("without_r1", 1)
    flops = program["flops_per_image"]
    assert flops["counted"] == costs.train_step_flops(smallest_config(), r1=False)
    # The compiler leaves out products with padding and adds what is elementwise; a wrong number
    # of devices or images would be a factor of 4 or more.
    assert 0.5 < flops["xla"] / flops["counted"] < 2


def test_first_step_report(capsys, tmp_path):
    # The step of a run's beginning is that of the benchmark with R1: both compile one program.
    report = run(capsys, "first_steps", *SMALLEST, f"--turn={tmp_path / 'turn'}")
    assert report["r1"] and report["metrics_are_finite"] and "error" not in report
    shapes = jax.eval_shape(lambda: build.initial_state(smallest_config(), jax.random.key(0)))
    networks = (shapes.generator.params, shapes.discriminator.params)
    assert report["parameters"] == sum(map(num_parameters, networks))
    times = report["step_seconds"]
    assert 0 < times["min"] <= times["median"] <= times["max"]
    assert report["compile_seconds"] > 0 and report["first_step_seconds"] > 0


def test_what_the_device_refuses_is_a_finding(capsys, monkeypatch):
    def refuse(*_):
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory\nand a long list")

    monkeypatch.setattr(distributed, "create_state", refuse)
    report = run(capsys, "first_steps", *SMALLEST, "--r1=no")
    assert report["error"] == "RuntimeError: RESOURCE_EXHAUSTED: Out of memory"
    assert report["compile_seconds"] > 0 and "step_seconds" not in report


def test_sampler_report(capsys):
    argv = [*SMALLEST, "--config.diffusion.num_timesteps=2", "--num=8"]
    report = run(capsys, "sampler", *argv, "--baseline=echo 1", "--baseline_images=1")
    assert (report["nfe"], report["batch_size"]) == (2, 8)
    [program] = report["programs"].values()
    forward = costs.network_flops(smallest_config())["generator"]
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


# ------------------------------------------------------------------- peaks, loops, checkpoints


def peak_report(capsys, *argv: str) -> dict:
    assert command.run("peak", peak.__doc__, peak.FLAGS, peak.benchmark, argv) == 0
    return json.loads(capsys.readouterr().out)


def test_peak_and_the_share_of_it(capsys, tmp_path):
    report = peak_report(capsys, "--size=32", "--copy_mib=1", "--repeats=1")
    product = report["matmul"]["bfloat16"]
    assert product["flops_per_second"] == pytest.approx(
        2 * 32**3 / product["seconds_per_call"]["median"], rel=1e-3
    )
    assert report["copy"]["bytes"] == 2 * 2**20  # read and written
    file = tmp_path / "peak.json"
    file.write_text(json.dumps(report))
    found = measure.read_peak(str(file), "bfloat16")
    assert found == (product["flops_per_second"], report["copy"]["bytes_per_second"])
    assert measure.read_peak(None, "float32") is None


@pytest.mark.parametrize("content", ["", "{}", '{"matmul": 3}'])
def test_file_that_is_no_peak_is_refused(content, tmp_path):
    file = tmp_path / "peak.json"
    file.write_text(content)
    with pytest.raises(UserError, match="not a report of benchmarks.peak"):
        measure.read_peak(str(file), "float32")


def test_shares_are_those_of_one_device(monkeypatch):
    monkeypatch.setattr(measure, "time_calls", lambda call, count: measure.Seconds(2.0, 2.0))
    monkeypatch.setattr(measure, "warm_up", lambda call: 1)
    flops = {"counted": 30.0 * jax.device_count(), "xla": None}
    program = measure.Program(lambda: None, 4, 1.0, flops, 5.0 * jax.device_count())
    report = measure.measure({"x": program}, 1, None, measure.Peak(100.0, 40.0))["programs"]["x"]
    # 2 images a second: 60 of 100 FLOP/s and 10 of 40 bytes/s.
    assert report["share_of_matrix_peak"] == 0.6
    assert report["share_of_memory_bandwidth"] == 0.25


def test_mixture_report(capsys):
    argv = [
        *(f"--config={ROOT / 'configs' / 'mog25.py'}:tiny", "--seeds=2", "--steps_per_call=3"),
        *("--repeats=1", "--baseline=echo 1", "--baseline_images=1"),
    ]
    report = run(capsys, "mog25", *argv)
    points = 8 * 2  # of an iteration: the tiny batch of two seeds
    assert report["programs"]["many_steps"]["images_per_call"] == 3 * points
    assert report["iterations_per_second"] * points == pytest.approx(
        report["images_per_second"], rel=1e-3
    )


def test_mixture_needs_its_data(capsys):
    argv = [f"--config={DIGITS}"]
    assert command.main("mog25", mog25.__doc__, mog25.FLAGS, mog25.benchmark, argv) == 2
    assert "data.name='digits' is not one of mog25" in capsys.readouterr().err


def test_checkpoint_report(capsys):
    argv = [f"--config={ROOT / 'configs' / 'mog25.py'}:tiny", "--repeats=1"]
    report = run(capsys, "checkpoint", *argv)
    parameters = 4 * (4 * report["generator_parameters"] + 3 * report["discriminator_parameters"])
    # Five counters besides: the step, and two in the state of each optimiser.
    assert report["state_bytes"] == parameters + 5 * 4
    assert report["bytes_on_disk"] > parameters / 2
    blocks, durable = (report[f"save_{k}_seconds"]["median"] for k in ("blocks", "durable"))
    assert 0 < blocks <= durable


def test_overhead_report(capsys):
    mixture = f"--config={ROOT / 'configs' / 'mog25.py'}:tiny"
    argv = [mixture, "--config.log.every_steps=10", "--repeats=1"]
    report = run(capsys, "overhead", *argv)
    step = report["seconds_per_step"]["constant_batch"]["median"]
    log = report["seconds_each_time"]["metrics"]["median"]
    shares = report["share_of_step_time"]
    assert shares["metrics"] == pytest.approx(log / 10 / step, rel=1e-2)
    together = sum(value for name, value in shares.items() if name != "together")
    assert shares["together"] == pytest.approx(together, rel=1e-3)


def test_first_step_of_a_run_is_the_line_that_names_it(monkeypatch, tmp_path):
    lines = [("step 10/10  loss 1", 9.0), ("step 1/10", 2.0), ("step 1/10", 3.0)]

    def run_process(argv, environment, note):
        assert environment["JAX_COMPILATION_CACHE_DIR"] == str(tmp_path)
        for line in lines:
            note(*line)

    monkeypatch.setattr(startup, "_run", run_process)
    assert startup._first_step([], tmp_path, tmp_path, 1) == 2.0
    with pytest.raises(UserError, match="did not tell of step 3"):
        startup._first_step([], tmp_path, tmp_path, 3)


# ------------------------------------------------------------------------------------ profiles

HLO = """\
%convolution.1 = f32[4,8]{1,0} convolution(%a, %b), metadata={op_name="jit(f)/Net/block_0/conv"}
ROOT %fusion.2 = (f32[4], s32[]) fusion(%x), metadata={op_name="jit(f)/transpose(jvp(Net))/b_1/mul"}
add.3 = f32[] add(%p, %q)
"""


def test_operations_of_a_program():
    found = profiling.operations(HLO)
    assert found["convolution.1"] == ("convolution", "Net/block_0", "conv")
    assert found["fusion.2"] == ("fusion", "Net/b_1, backwards", "mul")
    assert found["add.3"].source == "(outside of the networks)"


# --------------------------------------------------------------------------------------- pages


def test_gaps_of_a_page_are_filled_from_the_results(tmp_path):
    (tmp_path / "a.json").write_text('{"x": {"y": [0.5, 2000000000.0]}, "name": "n"}')
    (tmp_path / "b.json").write_text('{"z": 0.25}')
    page = "{{a:name}} {{a:x.y.0|.0%}} {{a:x.y.1|*1e-9 .1f}} {{a:x.y.0 / b:z|.2f}} {one}"
    assert tables.render(page, tmp_path) == "n 50% 2.0 2.00 {one}"


@pytest.mark.parametrize(
    "gap",
    ["{{a:y}}", "{{b:x}}", "{{a:x|.1q}}", "{{table speed c*}}", "{{table no a}}", "{{a:x.y}}"],
)
def test_gap_that_nothing_fills_is_an_error(gap, tmp_path):
    (tmp_path / "a.json").write_text('{"x": 1}')
    with pytest.raises(UserError, match="{{"):
        tables.render(gap, tmp_path)


def test_page_about_performance_is_the_rendering_of_the_results():
    template = ROOT / "docs" / "performance.template.md"
    assert (ROOT / "docs" / "performance.md").read_text() == tables.page(
        template, ROOT / "docs" / "results"
    )
