"""Checkpoints of the DDGAN code: what comes in is what its code computed, and training goes on."""

import contextlib
import json
import os
import pickle
import sys
import types
from pathlib import Path

import jax
import numpy as np
import pytest

from ddgan_jax import build, cli, distributed, models
from ddgan_jax.config import run_config
from ddgan_jax.config.files import load_config
from ddgan_jax.errors import UserError
from ddgan_jax.files.run_folder import RunFolder
from ddgan_jax.inference import export, load
from ddgan_jax.interop import nvlabs, nvlabs_checkpoints, nvlabs_runs, pytorch_files
from ddgan_jax.interop.nvlabs_runs import import_content
from tests import golden_cases as golden
from tests import test_golden_training as trajectories

CONTENT = golden.FOLDER / "content.pth"
GENERATOR = golden.FOLDER / "netG_tiny.pth"
LOSSES, TABLES = trajectories.TOLERANCES[np.float32]


# ---- our own run of the golden checkpoint's three iterations, and a fourth


class GoldenRun:
    """States before and after each iteration, and the losses of each, in float32."""

    def __init__(self):
        case = golden.load("content")
        self.num_steps = case.meta["n_iter"]
        # The times of a fourth iteration are those of the first.
        t = case.arrays["t"]
        self.case = case._replace(arrays=case.arrays | {"t": np.concatenate([t, t[:1]])})
        args = case.meta["config"] | case.meta["extra"] | {"dataset": "cifar10"}
        self.config = nvlabs_runs.config_of_content(
            {
                "args": args,
                "epoch": 1,
                "global_step": self.num_steps,
                "schedulerG": {"eta_min": 1e-5},
            }
        )
        self.states = [trajectories.initial_state(self.case, self.config, np.float32)]
        self.losses = []
        for i in range(self.num_steps + 1):
            state, losses = self.iterate(self.states[-1], i)
            self.states.append(state)
            self.losses.append(losses)

    @property
    def at_checkpoint(self):
        return self.states[self.num_steps]

    def iterate(self, state, i):
        """The state after iteration i from the one before it, and its losses."""
        settings, networks = trajectories.settings_and_networks(self.config)
        batch = {
            "x_0": self.case.uniform(f"real{i}", self.case.image_shape(), np.float32),
            "d_draws": trajectories.given_draws(self.case, i, "D", np.float32),
            "g_draws": trajectories.given_draws(self.case, i, "G", np.float32),
        }
        everywhere = distributed.replicated(trajectories.DEVICE)
        with jax.default_matmul_precision("highest"):
            step = trajectories.step_of(networks, build.r1_is_due(self.config, i))
            state, metrics = step(
                jax.device_put(state, everywhere),
                jax.device_put(batch, distributed.split(trajectories.DEVICE)),
                jax.device_put(settings, everywhere),
            )
        losses = [float(metrics.get(name, np.nan)) for name in trajectories.LOSSES]
        return jax.device_get(state), losses


@pytest.fixture(scope="module")
def run():
    return GoldenRun()


def check_tables(run, state):
    """Parameters, moments and moving average against the tables of the golden checkpoint."""
    for letter, network, names in (
        ("G", state.generator, nvlabs.generator_names(run.config)),
        ("D", state.discriminator, nvlabs.discriminator_names(run.config)),
    ):
        adam = network.opt_state[0]
        tables = {"": network.params, "_exp_avg": adam.mu, "_exp_avg_sq": adam.nu}
        tables = {letter + key: tree for key, tree in tables.items()}
        if letter == "G":
            tables["EMA"] = network.ema_params
        keys = run.case.arrays[f"{letter.lower()}_keys"]
        for table, tree in tables.items():
            ours = dict(zip(jax.tree.leaves(names), jax.tree.leaves(tree), strict=True))
            for row, key in enumerate(keys):
                if key.endswith("NIN_1.b"):
                    continue  # of a key bias, whose gradient is rounding noise
                expected = run.case.arrays[table][row]
                statistics = golden.tensor_statistics(golden.official_layout(key, ours[key]))
                atol = TABLES * max(expected[1], 1e-7 if "avg" in table else 1.0)
                np.testing.assert_allclose(
                    statistics, expected, rtol=0, atol=atol, err_msg=f"{table} {key}"
                )


def test_our_iterations_are_those_of_the_golden_checkpoint(run):
    check_tables(run, run.at_checkpoint)


# ---- a whole checkpoint


def as_content(run, state):
    """The state as the original would have saved it."""
    names = {
        "generator": nvlabs.generator_names(run.config),
        "discriminator": nvlabs.discriminator_names(run.config),
    }
    shapes = golden.SHAPES["content"]
    content = {
        "epoch": 1,
        "global_step": int(state.step),
        "args": run.case.meta["config"] | run.case.meta["extra"] | {"dataset": "cifar10"},
    }
    for letter, network in (("G", "generator"), ("D", "discriminator")):

        def official(tree, network=network):
            by_name = zip(jax.tree.leaves(names[network]), jax.tree.leaves(tree), strict=True)
            arrays = {name: golden.official_layout(name, leaf) for name, leaf in by_name}
            return {name: arrays[name].reshape(shape) for name, shape in shapes[network].items()}

        saved = getattr(state, network)
        adam = saved.opt_state[0]
        parts = {"exp_avg": official(adam.mu), "exp_avg_sq": official(adam.nu)}
        if letter == "G":
            parts["ema"] = official(saved.ema_params)
        values = official(saved.params)
        content[f"net{letter}_dict"] = {f"module.{name}": value for name, value in values.items()}
        content[f"optimizer{letter}"] = {
            "state": {
                i: {"step": int(adam.count)} | {part: parts[part][name] for part in parts}
                for i, name in enumerate(values)
            }
        }
        content[f"scheduler{letter}"] = {"eta_min": 1e-5}
    return content


def test_import_is_the_inverse_of_the_originals_saving(run):
    state = import_content(as_content(run, run.at_checkpoint), run.config)
    assert jax.tree.structure(state) == jax.tree.structure(run.at_checkpoint)
    expected = jax.tree.leaves_with_path(run.at_checkpoint)
    for (path, leaf), ours in zip(expected, jax.tree.leaves(state), strict=True):
        np.testing.assert_array_equal(ours, leaf, err_msg=jax.tree_util.keystr(path))
        assert ours.dtype == leaf.dtype


def test_parameter_that_never_had_a_gradient(run):
    """It has no moments, and its moving average is itself."""
    content = as_content(run, run.at_checkpoint)
    names = list(content["netG_dict"])
    entry = names.index("module.z_transform.1.bias")
    del content["optimizerG"]["state"][entry]
    state = import_content(content, run.config).generator
    moments = state.opt_state[0]
    for tree, expected in (
        (moments.mu, 0 * state.params["latent_mapping"]["dense_0"]["bias"]),
        (moments.nu, 0 * state.params["latent_mapping"]["dense_0"]["bias"]),
        (state.ema_params, state.params["latent_mapping"]["dense_0"]["bias"]),
    ):
        np.testing.assert_array_equal(tree["latent_mapping"]["dense_0"]["bias"], expected)
    assert int(moments.count) == run.num_steps


def test_learning_rates_go_on_where_they_were(run):
    ours = [
        build.learning_rate(run.config, network)(run.num_steps)
        for network in ("generator", "discriminator")
    ]
    np.testing.assert_allclose(ours, run.case.arrays["lr_next"], rtol=1e-6)
    epochs = run.case.meta["extra"]["num_epoch"]
    assert run.config.train.num_steps == (epochs + 1) * run.num_steps


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"args": None}, "has no options: give `args`"),
        ({"epoch": 2}, r"lies within an epoch \(step 3, epoch 2\)"),
        ({"netD_dict": None}, "not whole: it lacks netD_dict"),
        (
            {"netG_dict": {"module.x": np.zeros(1)}},
            "this state dict is not that generator: missing",
        ),
    ],
)
def test_content_that_is_not_whole(run, changes, message):
    content = {k: v for k, v in (as_content(run, run.at_checkpoint) | changes).items() if v}
    with pytest.raises(UserError, match=message):
        import_content(content, nvlabs_runs.config_of_content(content))


# ---- the files themselves; PyTorch only writes some here


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


def test_golden_checkpoint_goes_on_as_the_golden_run(run):
    content = pytorch_files.read(CONTENT)
    config = nvlabs_runs.config_of_content(content)
    assert config.to_dict() == run.config.to_dict()
    state = import_content(content, config)
    check_tables(run, state)
    assert (int(state.step), int(state.generator.opt_state[0].count)) == (3, 3)
    _, losses = run.iterate(state, run.num_steps)
    np.testing.assert_allclose(losses, run.losses[run.num_steps], rtol=LOSSES)


def generator_output(config, params, x, t, z):
    with jax.default_matmul_precision("highest"):
        x = x.transpose(0, 2, 3, 1)
        return golden.channels_first(jax.jit(models.generator(config))(params, x, t, z))


def test_moving_average_of_the_golden_checkpoint(run):
    state = import_content(pytorch_files.read(CONTENT), run.config)
    n, h, w, c = (2, *run.case.image_shape()[1:])
    x = golden.rule_fill.normal(run.case.meta["seed"], "x", (n, c, h, w))
    z = golden.rule_fill.normal(run.case.meta["seed"], "z", (n, run.config.generator.latent_dim))
    t = np.array([0, run.config.diffusion.num_timesteps - 1], np.int32)
    ours = generator_output(run.config, state.generator.ema_params, x, t, z)
    np.testing.assert_allclose(ours, run.case.arrays["ema_out"], atol=2e-5)


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """The export of the golden generator checkpoint, made by the command."""
    folder = tmp_path_factory.mktemp("imported")
    args = folder / "args.json"
    args.write_text(json.dumps(golden.load("netG_tiny").meta["config"] | {"use_ema": True}))
    command = ["import", "nvlabs", f"--checkpoint={GENERATOR}", f"--args={args}"]
    assert cli.main([*command, f"--out={folder / 'export'}"]) == 0
    return folder / "export"


def test_golden_generator_gives_the_golden_output(imported):
    case = golden.load("netG_tiny")
    brought = export.read(imported)
    ours = generator_output(
        brought.config, brought.params, case.arrays["x"], case.arrays["t"], case.arrays["z"]
    )
    np.testing.assert_allclose(
        ours, case.arrays["out"], rtol=0, atol=10 * case.meta["f32_max_abs_dev"]
    )
    assert brought.kind == "ema"
    assert "non-commercial" in brought.about["licence"]
    assert brought.about["provenance"]["imported_from"].startswith("netG_tiny.pth of NVlabs")


def test_imported_run_folder_is_one_from_which_training_goes_on(run, tmp_path, capsys):
    out = tmp_path / "run"
    assert cli.main(["import", "nvlabs", f"--checkpoint={CONTENT}", f"--out={out}"]) == 0
    assert f"--config={out}/config.py --workdir={out}" in capsys.readouterr().out
    config = load_config(f"{out}/config.py")
    run_config.check_same_run(RunFolder.at(out), config, report=print)
    brought = load.from_run(out, report=print)
    assert brought.step == run.num_steps
    raw = load.from_run(out, kind="raw", report=print)
    state = import_content(pytorch_files.read(CONTENT), run.config).generator
    for ours, expected in ((brought.params, state.ema_params), (raw.params, state.params)):
        assert all(jax.tree.leaves(jax.tree.map(np.array_equal, ours, expected)))
    # Where it came from goes into its exports.
    assert "content.pth" in brought.about["provenance"]["continued_from"]["imported_from"]
    with pytest.raises(UserError, match="exists already"):
        nvlabs_checkpoints.import_command(str(CONTENT), str(out))


def test_no_file_is_changed_by_a_failed_import(tmp_path):
    with pytest.raises(UserError, match="this state dict is not that generator: "):
        nvlabs_checkpoints.import_command(str(GENERATOR), str(tmp_path / "x"), args="cifar10")
    assert list(tmp_path.iterdir()) == []


# ---- files that are not what they should be


@pytest.mark.parametrize("part", [0.0, 0.001, 0.5, 0.99])
def test_truncated_file(tmp_path, part):
    whole = GENERATOR.read_bytes()
    path = tmp_path / "netG.pth"
    path.write_bytes(whole[: int(part * len(whole))])
    with pytest.raises(UserError, match="netG.pth is damaged, or no file of torch.save"):
        pytorch_files.read(path)


class MakesAFolder:
    """An object whose unpickling would run code."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


CODE = r"x.pth is refused: it holds code, \w+\.mkdir, and was not run"


@pytest.mark.parametrize(
    ("save", "message"),
    [
        (lambda torch, x, path: torch.save(x, path), CODE),
        (lambda torch, x, path: torch.save(x, path, _use_new_zipfile_serialization=False), CODE),
        (lambda torch, x, path: path.write_bytes(pickle.dumps(x, protocol=2)), CODE),
        (lambda torch, x, path: path.write_bytes(pickle.dumps(x, protocol=4)), CODE),
    ],
    ids=["zip", "old", "plain pickle", "newer pickle"],
)
def test_code_in_a_file_is_not_run(torch, tmp_path, save, message):
    path, trace = tmp_path / "x.pth", tmp_path / "it_ran"
    save(torch, {"netG_dict": MakesAFolder(trace)}, path)
    with pytest.raises(UserError, match=message):
        pytorch_files.read(path)
    assert not trace.exists()
    # A reader that trusts the same file does run it.
    with contextlib.suppress(pickle.UnpicklingError, RuntimeError):
        torch.load(path, weights_only=False)
    assert trace.exists()


def test_tensors_own_their_memory(torch, tmp_path):
    """The original's moving average shares storage: a row must not keep all of them alive."""
    rows = torch.arange(12.0).reshape(3, 4)
    torch.save({"a": rows[0], "b": rows[2, 1:], "half": rows[1].bfloat16()}, tmp_path / "x.pth")
    read = pytorch_files.read(tmp_path / "x.pth")
    np.testing.assert_array_equal(read["a"], [0, 1, 2, 3])
    np.testing.assert_array_equal(read["b"], [9, 10, 11])
    assert read["half"].dtype == np.float32 and list(read["half"]) == [4, 5, 6, 7]
    assert all(array.base is None for array in read.values())


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match="cannot read .*no.pth: there is no such file"):
        pytorch_files.read(tmp_path / "no.pth")


def test_pytorch_is_not_needed(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert len(pytorch_files.read(GENERATOR)) > 100


# ---- options


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("cifar", None, "neither published nor a .json file; did you mean cifar10?"),
        ("none.json", None, "cannot read .*none.json: there is no such file"),
        ("torn.json", '{"nz": 1', "torn.json is not JSON"),
        ("list.json", "[1]", "list.json: Expected `object`, got `array`"),
    ],
)
def test_options_that_are_none(tmp_path, name, content, message):
    path = name if name == "cifar" else str(tmp_path / name)
    if content:
        Path(path).write_text(content)
    with pytest.raises(UserError, match=message):
        nvlabs_checkpoints.read_args(path)


def test_generator_without_options(monkeypatch):
    monkeypatch.setattr(pytorch_files, "read", lambda path: {"module.x": np.zeros(1)})
    with pytest.raises(UserError, match="`args` is missing: cifar10, lsun_church256, celebahq256"):
        nvlabs_checkpoints.import_command(str(GENERATOR), "out")


def test_import_inception_receives_its_files(monkeypatch):
    calls = []
    stand_in = types.ModuleType("ddgan_jax.interop.inception")
    stand_in.convert = lambda *files: calls.append(files)
    monkeypatch.setitem(sys.modules, "ddgan_jax.interop.inception", stand_in)
    assert cli.main(["import", "inception", "--from=a.pth", "--out=b.npz"]) == 0
    assert [tuple(map(str, files)) for files in calls] == [("a.pth", "b.npz")]
