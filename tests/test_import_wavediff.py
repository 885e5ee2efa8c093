"""Checkpoints of WaveDiff's code: what comes in is what its code computed, and training goes on."""

import argparse
import io
import json
import math
import os
import pickle
import re
import zipfile

import jax
import numpy as np
import pytest

from ddgan_jax import build, cli, models
from ddgan_jax.config import run_config
from ddgan_jax.config.checks import validate
from ddgan_jax.config.files import load_config
from ddgan_jax.data import catalog
from ddgan_jax.files.run_folder import RunFolder
from ddgan_jax.inference import export, load
from ddgan_jax.interop import nvlabs, nvlabs_checkpoints, nvlabs_runs, pytorch_files
from ddgan_jax.interop import wavediff_options as options
from ddgan_jax.interop.nvlabs_programs import WAVEDIFF
from ddgan_jax.training import loop
from tests import golden_cases as golden
from tests import torch_files, wavediff_checkpoints
from tests.methods import ROOT
from tests.wavediff_checkpoints import GENERATOR, GENERATOR_OPTIONS

quick = pytest.mark.quick
STEPS = 2  # of the made-up run

# ---- options


@quick
@pytest.mark.parametrize("kind", [dict, lambda args: argparse.Namespace(**args)])
@pytest.mark.parametrize("name", options.PUBLISHED)
def test_published_commands_are_the_shipped_configs(name, kind):
    """Everything that the method consists of, and either of them can be trained anew."""
    ours = load_config(f"{ROOT}/configs/{name}_wavediff.py")
    theirs = options.config_from_args(kind(nvlabs_checkpoints.read_args(name, WAVEDIFF)))
    for section in ("diffusion", "objective", "generator", "discriminator", "optimizer"):
        assert theirs[section].to_dict() == ours[section].to_dict(), section
    for field in ("name", "image_size", "channels", "flip"):
        assert theirs.data[field] == ours.data[field], field
    for field in ("batch_size", "num_steps"):
        assert theirs.train[field] == ours.train[field], field
    validate(theirs)


@quick
@pytest.mark.parametrize("name", options.PUBLISHED)
def test_data_sets_of_published_commands_are_known(name, tmp_path):
    config = options.config_from_args(options.PUBLISHED[name])
    catalog.tfds_builder(config.data.name, tmp_path)


BASE = {"image_size": 64, "current_resolution": 32, "net_type": "wavelet"}


@quick
@pytest.mark.parametrize(
    ("args", "field", "value"),
    [
        ({"use_pytorch_wavelet": True}, "diffusion.haar_order", "hl_lh"),
        ({"use_pytorch_wavelet": False}, "diffusion.haar_order", "lh_hl"),
        ({}, "diffusion.haar_order", "lh_hl"),
        ({}, "diffusion.space", "haar"),
        ({}, "data.channels", 3),
        ({"num_channels": 4}, "data.channels", 1),
        ({"rec_loss": True}, "objective.reconstruction_weight", 1.0),
        ({}, "objective.reconstruction_weight", 0.0),
        ({"no_use_fbn": True}, "generator.wavelet_middle", False),
        ({"no_use_freq": True}, "generator.wavelet_blocks", False),
        ({"no_use_residual": True}, "generator.wavelet_pyramid", False),
        ({"net_type": "normal"}, "generator.name", "ncsnpp"),
        # The network of patches is ours for both types.
        ({"net_type": "normal", "patch_size": 2}, "generator.name", "wavelet"),
        ({"net_type": "normal", "patch_size": 2}, "generator.wavelet_blocks", False),
        ({"patch_size": 2}, "generator.patch_size", 2),
        # What no level has is no attention; levels are those of the bands, and of their patches.
        ({"attn_resolutions": 0}, "generator.attention_resolutions", ()),
        ({"attn_resolutions": ["64", "32"]}, "generator.attention_resolutions", (32,)),
        ({"attn_resolutions": [32], "patch_size": 2}, "generator.attention_resolutions", ()),
        ({"num_disc_layers": 3}, "discriminator.num_blocks", 3),
        ({"num_disc_layers": 1}, "discriminator.num_blocks", 3),
        ({"num_disc_layers": 9}, "discriminator.num_blocks", 0),
        ({}, "discriminator.name", "small"),
        ({"image_size": 128, "current_resolution": 64}, "discriminator.name", "large"),
        ({"dataset": "stackmnist"}, "discriminator.name", "large"),
        ({"dataset": "stl10"}, "discriminator.name", "small"),
        ({"dataset": "stl10"}, "data.split", "unlabelled"),
        ({"dataset": "lsun"}, "data.max_examples", 120_000),
        ({"image_size": 32, "ori_image_size": 64}, "data.image_size", 64),
        ({"an_option_of_a_fork": 1}, "data.image_size", 64),
    ],
)
def test_one_option(args, field, value):
    section, name = field.split(".")
    assert options.config_from_args(BASE | args)[section][name] == value


# ---- the published networks


PUBLISHED_NETWORKS = {  # modules, tensors and parameters; tensors and parameters of D
    "cifar10": (29, 272, 33_370_124, 31, 7_630_593),
    "stl10": (40, 390, 55_585_292, 38, 12_743_937),
    "celebahq256": (48, 474, 31_485_452, 45, 22_626_177),
    "lsun_church256": (48, 474, 31_485_452, 45, 22_626_177),
    "celebahq512": (56, 558, 44_853_004, 52, 27_739_521),
    "celebahq1024": (53, 528, 44_186_416, 52, 27_739_521),
}
# Parameters of modules of the official list, by their place in it.
MODULES = {
    "cifar10": {2: 13_952, 6: 13_952, 28: 13_836},
    "stl10": {
        **{2: 13_952, 6: 55_424, 12: 1_179_904, 16: 2_359_552, 39: 13_836},
        **{25: 3_410_688, 29: 3_410_688, 34: 2_525_952},
    },
    "celebahq256": dict(
        enumerate(
            [
                *(16_640, 65_792, 6_976, 156_096, 156_096, 160_256, 27_712, 361_344, 459_648),
                *(476_160, 295_040, 459_648, 459_648, 476_160, 589_952, 459_648, 66_304, 459_648),
                *(66_304, 476_160, 589_952, 1_181_440, 1_509_120, 1_509_120, 263_680, 1_509_120),
                *(2_361_856, 2_361_856, 1_968_384, 2_460_416, 935_424, 705_792, 705_792, 66_304),
                *(918_912, 705_792, 705_792, 705_792, 918_912, 705_792, 705_792, 590_976, 697_728),
                *(307_968, 234_112, 234_112, 128, 6_924),
            ]
        )
    ),
    "lsun_church256": {29: 2_460_416, 47: 6_924},
    "celebahq512": {
        **{2: 6_976, 6: 27_712, 10: 147_520, 14: 295_040, 18: 589_952, 24: 1_179_904},
        **{33: 3_345_152, 38: 2_460_416, 42: 918_912, 46: 697_728, 50: 271_040, 55: 6_924},
    },
    "celebahq1024": {2: 27_712, 6: 110_656, 52: 27_696},
}


@pytest.mark.parametrize("name", PUBLISHED_NETWORKS)
def test_published_networks_have_the_official_tensors(name):
    """Names and sizes of all entries that the published files have, module by module."""
    config = options.config_from_args(options.PUBLISHED[name])
    networks = models.abstract_params(config)
    names = nvlabs.generator_names(config), nvlabs.discriminator_names(config)
    generator, discriminator = (
        {
            entry: math.prod(leaf.shape)
            for entry, leaf in zip(jax.tree.leaves(tree), jax.tree.leaves(params), strict=True)
        }
        for tree, params in zip(names, networks, strict=True)
    )
    modules = {}
    for entry, size in generator.items():
        if found := re.match(r"all_modules\.(\d+)\.", entry):
            modules[int(found[1])] = modules.get(int(found[1]), 0) + size
    assert PUBLISHED_NETWORKS[name] == (
        max(modules) + 1,
        len(generator),
        sum(generator.values()),
        len(discriminator),
        sum(discriminator.values()),
    )
    assert {place: modules[place] for place in MODULES[name]} == MODULES[name]


# ---- a generator


def imported(folder, *, checkpoint=GENERATOR, args="", data=""):
    """The exit code of the command on a file, and the folder that it should write.

    args: a name of options, or the options.
    """
    out = folder / "out"
    if isinstance(args, dict):
        (folder / "args.json").write_text(json.dumps(args))
        args = folder / "args.json"
    given = [f"--args={args}", f"--data={data}"]
    code = cli.main(["import", "wavediff", f"--checkpoint={checkpoint}", f"--out={out}", *given])
    return code, out


def test_golden_generator_gives_the_golden_output(tmp_path):
    case = golden.load("wavediff/wnetG_tiny")
    code, out = imported(tmp_path, args=GENERATOR_OPTIONS)
    assert code == 0
    brought = export.read(out)
    x, t, z = case.arrays["x"].transpose(0, 2, 3, 1), case.arrays["t"], case.arrays["z"]
    with jax.default_matmul_precision("highest"):
        ours = jax.jit(models.generator(brought.config))(brought.params, x, t, z)
    error = 10 * case.meta["f32_max_abs_dev"]
    np.testing.assert_allclose(golden.channels_first(ours), case.arrays["out"], rtol=0, atol=error)
    assert (brought.kind, brought.config.diffusion.haar_order) == ("ema", "lh_hl")
    about = brought.about
    assert about["provenance"]["imported_from"] == "wnetG_tiny.pth of VinAIResearch/WaveDiff"
    assert "AGPL" in about["licence"] and "AGPL" in (out / "README.md").read_text()
    images = tmp_path / "images.npy"
    assert cli.main(["sample", f"--export={out}", "--seeds=0-3", f"--out={images}"]) == 0
    assert np.load(images).shape == (4, 32, 32, 3)


# ---- a whole run


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    """The file of a run after STEPS steps."""
    path = tmp_path_factory.mktemp("content") / "content.pth"
    torch_files.save(wavediff_checkpoints.made_up_content(STEPS), path)
    return path


def test_what_tests_write_is_what_pytorch_reads(content):
    torch = pytest.importorskip("torch")
    there = torch.load(content, weights_only=False)
    made_up = wavediff_checkpoints.made_up_content(STEPS)
    assert (there["args"], there["epoch"]) == (made_up["args"], made_up["epoch"])
    for name, value in made_up["netG_dict"].items():
        np.testing.assert_array_equal(there["netG_dict"][name].numpy(), value)


def test_every_entry_of_a_run_arrives_at_its_place(content):
    read = pytorch_files.read(content)
    config = nvlabs_runs.config_of_content(read, program=WAVEDIFF)
    state = nvlabs_runs.import_content(read, config)
    for letter, network, names in (
        ("G", state.generator, nvlabs.generator_names(config)),
        ("D", state.discriminator, nvlabs.discriminator_names(config)),
    ):
        adam, schedule = network.opt_state
        trees = {"raw": network.params, "exp_avg": adam.mu, "exp_avg_sq": adam.nu}
        trees |= {"ema": network.ema_params} if letter == "G" else {}
        saved = read[f"net{letter}_dict"]
        for i, (name, raw) in enumerate(saved.items()):
            entry = {"raw": raw} | read[f"optimizer{letter}"]["state"][i]
            for part, tree in trees.items():
                ours = dict(zip(jax.tree.leaves(names), jax.tree.leaves(tree), strict=True))
                plain = name.removeprefix("module.")
                found = golden.official_layout(plain, ours[plain])
                np.testing.assert_array_equal(found.ravel(), entry[part].ravel(), f"{part} {name}")
        assert len(saved) == len(jax.tree.leaves(names))
        assert (int(adam.count), int(schedule.count)) == (STEPS, STEPS)
    assert int(state.step) == STEPS


def test_config_of_a_run_is_that_of_its_options(content):
    """The size of the images is the one that the official loop overwrote."""
    config = nvlabs_runs.config_of_content(pytorch_files.read(content), program=WAVEDIFF)
    assert (config.data.name, config.data.split, config.data.image_size) == (
        *("stl10", "unlabelled"),
        32,
    )
    assert config.diffusion.haar_order == "hl_lh"
    assert config.objective.reconstruction_weight == 1.0
    assert (config.discriminator.name, config.discriminator.num_blocks) == ("small", 3)
    assert (config.train.batch_size, config.train.num_steps) == (8, 2 * STEPS)
    rates = [build.learning_rate(config, "generator")(step) for step in (0, STEPS)]
    np.testing.assert_allclose(rates, [1.5e-4, 1e-5], rtol=1e-6)


def test_training_goes_on_from_an_imported_run(content, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "data"))
    images = np.random.default_rng(0).integers(0, 256, (16, 32, 32, 3), np.uint8)
    np.save(tmp_path / "images.npy", images)
    assert cli.main(["prepare", "--dataset=mine", f"--arrays={tmp_path / 'images.npy'}"]) == 0
    code, run = imported(tmp_path, checkpoint=content, data="mine")
    assert code == 0
    assert f"--config={run}/config.py --workdir={run}" in capsys.readouterr().out
    config = load_config(f"{run}/config.py")
    run_config.check_same_run(RunFolder.at(run), config, report=print)
    before = {kind: load.from_run(run, kind=kind, report=print) for kind in ("raw", "ema")}
    assert before["ema"].step == STEPS
    state = loop.train(config, run)
    after = load.from_run(run, report=print)
    assert int(state.step) == after.step == config.train.num_steps == 2 * STEPS
    assert int(state.generator.opt_state[0].count) == 2 * STEPS
    raw, ema = (jax.tree.leaves(before[kind].params) for kind in ("raw", "ema"))
    for old, new in zip(raw, jax.tree.leaves(state.generator.params), strict=True):
        # Two steps of Adam at the last rate of the schedule, 1e-5: all move, and none far.
        assert 0 < np.abs(new - old).max() < 1e-4
    decay = wavediff_checkpoints.OPTIONS["ema_decay"] ** 2
    for old, average, new in zip(raw, ema, jax.tree.leaves(after.params), strict=True):
        np.testing.assert_allclose(new, decay * average + (1 - decay) * old, rtol=0, atol=2e-5)
    assert "content.pth of VinAI" in after.about["provenance"]["continued_from"]["imported_from"]


# ---- what does not fit


def without(options, name):
    return {option: value for option, value in options.items() if option != name}


REFUSED = {
    "another net_type": ({"net_type": "normal"}, "unused .*convH_0"),
    "another number of levels": ({"ch_mult": [1, 2, 2]}, "missing"),
    "an ablation": ({"no_use_freq": True}, "unused .*convH_0"),
    "no pyramid of bands": ({"no_use_residual": True}, "missing .*Conv2d_0"),
    "patches": ({"patch_size": 2, "attn_resolutions": [4]}, "has shape"),
    "patches that do not divide": ({"patch_size": 3}, "option image_size=32.*a multiple of 24"),
    "an unknown net_type": ({"net_type": "wavelets"}, "option net_type: 'wavelets' is not one"),
    "an unknown library": ({"use_pytorch_wavelet": "pw"}, "option use_pytorch_wavelet: 'pw' is no"),
    "odd images": ({"image_size": 33}, "image_size=33 is not twice .*current_resolution=16"),
    "odd bands": (
        {"image_size": 34, "current_resolution": 17},
        "option image_size=34.* cannot be halved .*levels of official option ch_mult",
    ),
    "images of the size of bands": ({"image_size": 16}, "image_size=16 is not twice"),
    "images of four times the size": ({"image_size": 64}, "image_size=64 is not twice"),
    "two colours": ({"num_channels": 8}, "option num_channels: 8 is neither 4, .* nor 12"),
    "a middle of one pixel": ({"ch_mult": [1, 1, 1, 1, 1]}, "its middle"),
    "blocks that have no form with bands": (
        {"resblock_type": "biggan_oneadagn"},
        "official option resblock_type='biggan_oneadagn' has no form with Haar transforms; use "
        "'biggan', or official option no_use_freq=True",
    ),
}


def check_refused(capsys, folder, code, out, message):
    """Exit code 2, one line, and no file of the import."""
    error = capsys.readouterr().err
    assert code == 2, error
    assert re.search(message, error), error
    assert error.count("\n") == 1 and len(error) < 2500 and error[:-1].isprintable(), error
    assert not out.exists()
    assert not [p for p in folder.iterdir() if p.name.startswith((".", "out"))]


@pytest.mark.parametrize("reason", REFUSED)
def test_options_that_do_not_fit(tmp_path, capsys, reason):
    change, message = REFUSED[reason]
    code, out = imported(tmp_path, args=GENERATOR_OPTIONS | change)
    check_refused(capsys, tmp_path, code, out, message)


def test_options_have_to_say_the_order_of_the_bands(tmp_path, capsys):
    """Without it, or under a misspelled name, a picture would be almost right."""
    args = without(GENERATOR_OPTIONS, "use_pytorch_wavelet")
    code, out = imported(tmp_path, args=args)
    check_refused(capsys, tmp_path, code, out, "lacks official option use_pytorch_wavelet")
    code, out = imported(tmp_path, args=args | {"use_pytorch_wavelets": True})
    check_refused(capsys, tmp_path, code, out, r"did you mean use_pytorch_wavelets\?")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("cifar", r"--args=cifar is neither published nor a .json file; did you mean cifar10\?"),
        ("", "--args is missing: cifar10, stl10, celebahq256, lsun_church256, celebahq512, celeb"),
        ("celebahq256", "this state dict is not that generator: missing all_modules"),
    ],
)
def test_names_of_options_that_do_not_fit(tmp_path, capsys, args, message):
    code, out = imported(tmp_path, args=args)
    check_refused(capsys, tmp_path, code, out, message)


def test_another_programs_checkpoints(tmp_path, capsys, content):
    """DDGAN's generator and run, and a run of WaveDiff given to the import of DDGAN."""
    generator, run = (golden.FOLDER / name for name in ("netG_tiny.pth", "content.pth"))
    code, out = imported(tmp_path, checkpoint=generator, args=GENERATOR_OPTIONS)
    check_refused(capsys, tmp_path, code, out, "netG_tiny.pth: this state dict is not that gen")
    code, out = imported(tmp_path, checkpoint=run)
    check_refused(capsys, tmp_path, code, out, "option num_channels: 3 is less than 4")
    code = cli.main(["import", "nvlabs", f"--checkpoint={content}", f"--out={out}"])
    check_refused(capsys, tmp_path, code, out, "option num_channels: 12 is more than 3")


def test_code_in_a_file_is_not_run(tmp_path, capsys):
    trace = tmp_path / "it_ran"
    program = pickle.dumps({"netG_dict": Runs(f"touch {trace}")}, protocol=2)
    for content in (program, zipped(program)):
        (tmp_path / "x.pth").write_bytes(content)
        code, out = imported(tmp_path, checkpoint=tmp_path / "x.pth", args="cifar10")
        check_refused(capsys, tmp_path, code, out, r"x.pth is refused: it holds code, \w+\.system,")
        assert not trace.exists()
    # A reader that trusts the same program does run it.
    pickle.loads(program)
    assert trace.exists()


class Runs:
    """An object whose unpickling would run a command."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def zipped(program):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("x/data.pkl", program)
    return content.getvalue()


def test_weights_without_the_details(tmp_path, capsys):
    """An entry that DDGAN's blocks do not have."""
    state = pytorch_files.read(GENERATOR)
    (name,) = [name for name in state if name.endswith("convH_0.weight")]
    torch_files.save(without(state, name), tmp_path / "netG_1.pth")
    code, out = imported(tmp_path, checkpoint=tmp_path / "netG_1.pth", args=GENERATOR_OPTIONS)
    missing = re.escape(f"generator: missing {name.removeprefix('module.')}")
    check_refused(capsys, tmp_path, code, out, f"^.*netG_1.pth: this state dict.*{missing}$")
