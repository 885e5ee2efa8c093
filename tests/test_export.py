"""Exports: the same numbers and the same images, whoever reads them, and nothing but whole ones."""

import importlib.util
import json
import os
import re
import subprocess
import sys
import types
from pathlib import Path

import jax
import jax.export
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import ddgan_jax
from ddgan_jax import build, cli, models, pixels
from ddgan_jax.checkpoint import Checkpoints
from ddgan_jax.config import LOCAL_PATHS
from ddgan_jax.errors import UserError
from ddgan_jax.files.atomic import whole_folder
from ddgan_jax.inference import export, export_format, model_card, stablehlo
from ddgan_jax.inference.model import Model
from ddgan_jax.models import parameters
from tests.methods import ROOT, SMALLEST, config_of, random_params

SEEDS = np.arange(9, dtype=np.uint32)
ABOUT = {"provenance": {"trained_with": "a test"}, "licence": "CC0", "metrics": {"fid": 3.75}}


def make_model(method):
    private = {path.replace(".", "__"): "/home/somebody/sets" for path in LOCAL_PATHS}
    config = config_of(method, sampling__chunk_size=4, **private)
    template = jax.eval_shape(lambda: models.init_params(config, jax.random.key(0)))[0]
    return Model(config, random_params(template), 7, "ema", ABOUT)


@pytest.fixture(scope="module", params=SMALLEST)
def model(request):
    """DDGAN, WaveDiff, and SIDDM with classes."""
    return make_model(request.param)


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    out = tmp_path_factory.mktemp("exports") / "export"
    export.write(model, out)
    return out


@pytest.fixture(scope="module")
def drawn(model):
    """The images of SEEDS by this program."""
    return model.sample(SEEDS)


def about(folder) -> dict:
    return json.loads((folder / "config.json").read_text())


# ---- the sampler


def call(sampler, model, seeds, *arrays):
    labels = model.request(seeds).labels
    return np.asarray(sampler.call(*arrays, seeds, *[labels] * (model.config.data.num_classes > 0)))


@pytest.mark.parametrize("batch_size", [1, 7, 9])
def test_program_draws_the_same_bits_in_any_batch_size(model, folder, drawn, batch_size):
    sampler = jax.export.deserialize((folder / "sampler.stablehlo").read_bytes())
    assert set(sampler.platforms) == {"cpu", "cuda", "tpu"}
    parts = [SEEDS[i : i + batch_size] for i in range(0, len(SEEDS), batch_size)]
    ours = np.concatenate([call(sampler, model, part) for part in parts])
    assert ours.dtype == np.uint8 and len(np.unique(ours)) > 20
    np.testing.assert_array_equal(ours, drawn)


def test_parameters_as_an_argument(model, folder, drawn):
    """The arrays of the safetensors file, by name, in a file that holds none of them."""
    arrays = parameters.named(model.params)
    program = stablehlo.export_sampler(model.config, model.params, inside=False)
    largest = max(arrays.values(), key=lambda array: array.size).tobytes()
    assert largest in (folder / "sampler.stablehlo").read_bytes() and largest not in program
    ours = call(jax.export.deserialize(program), model, SEEDS, arrays)
    np.testing.assert_array_equal(ours, drawn)


def test_uint8_on_the_device_is_that_on_the_host():
    """At every place where the level changes, and a few numbers to either side of it."""
    edges = ((np.arange(-3, 258) + 0.5) / 127.5 - 1).astype(np.float32)
    x = [edges]
    for direction in (-np.inf, np.inf):
        near = edges
        for _ in range(4):
            near = np.nextafter(near, np.float32(direction))
            x.append(near)
    x = np.concatenate([*x, np.float32([-1e38, 1e38, -0.0, 1e-30, 1 + 1.2e-7])])
    np.testing.assert_array_equal(jax.jit(pixels.to_uint8_on_device)(x), pixels.to_uint8(x))
    # What the host refuses: the device cannot.
    for x, level in ((np.nan, 0), (-np.inf, 0), (np.inf, 255)):
        assert int(pixels.to_uint8_on_device(jnp.float32(x))) == level


def program_of(card: str) -> str:
    (program,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    return program


def test_example_of_the_card_runs_with_nothing_but_jax(model, folder, tmp_path):
    """In a Python without site-packages, beside what `pip install jax flatbuffers` installs."""
    alone = tmp_path / "site"
    alone.mkdir()
    for name in ("flatbuffers", "jax", "jaxlib", "ml_dtypes", "numpy", "opt_einsum", "scipy"):
        package = Path(importlib.util.find_spec(name).origin).parent
        for path in (package, package.with_name(f"{name}.libs")):  # shared libraries of wheels
            if path.exists():
                (alone / path.name).symlink_to(path)
    program = program_of((folder / "README.md").read_text())
    assert len(program.splitlines()) <= 15 and "sys.path" not in program
    program = program.replace('folder = "."', f"folder = {str(folder)!r}")
    start = f"import sys; sys.path.append({str(alone)!r})\n"
    end = f"\nassert 'ddgan_jax' not in sys.modules\nnp.save({str(tmp_path / 'x.npy')!r}, images)"
    result = subprocess.run(
        [sys.executable, "-S", "-I", "-c", start + program + end],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "(64, 8, 8, 1) uint8"
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), model.sample(range(64)))


def test_readme_shows_the_program_of_the_card(folder):
    """Its folder apart, the README's example is the one that the test above runs."""
    readme = (ROOT / "README.md").read_text()
    if not about(folder)["data"]["num_classes"]:
        lines = model_card.standalone_example(about(folder), "exports/digits")
        assert "\n".join(lines) in readme


# ---- the parameters


def read_by_hand(path: Path) -> dict[str, np.ndarray]:
    """A safetensors file with nothing but numpy: a length, a JSON header, the numbers."""
    content = path.read_bytes()
    length = int(np.frombuffer(content[:8], "<u8")[0])
    header = json.loads(content[8 : 8 + length])
    header.pop("__metadata__")
    return {
        name: np.frombuffer(
            content[8 + length :][slice(*entry["data_offsets"])],
            {"F32": np.float32, "BF16": ml_dtypes.bfloat16}[entry["dtype"]],
        ).reshape(entry["shape"])
        for name, entry in header.items()
    }


def test_numpy_alone_reads_the_parameters(model, folder):
    arrays = read_by_hand(folder / "model.safetensors")
    for path, leaf in jax.tree.leaves_with_path(model.params):
        np.testing.assert_array_equal(arrays.pop("/".join(k.key for k in path)), leaf)
    assert arrays == {}


def test_what_is_read_is_what_was_written(model, folder, drawn):
    back = ddgan_jax.load(folder)
    assert jax.tree.structure(back.params) == jax.tree.structure(model.params)
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, back.params, model.params)))
    assert (back.step, back.kind, back.about) == (7, "ema", ABOUT)
    np.testing.assert_array_equal(back.sample(SEEDS), drawn)


def test_written_again_it_is_the_same_bytes(folder, tmp_path):
    """In another process with other callers, through the command."""
    command = ["export", f"--export={folder}", f"--out={tmp_path / 'again'}"]
    subprocess.run([sys.executable, "-m", "ddgan_jax", *command], cwd=ROOT, check=True)
    names = {path.name for path in folder.iterdir()}
    assert names == {path.name for path in (tmp_path / "again").iterdir()}
    for name in names:
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes(), name


def test_bfloat16(model, folder, drawn, tmp_path):
    """Rounded once, drawn in float32, and the difference that this makes is stated."""
    export.write(model, tmp_path / "x", dtype="bfloat16", grid_seeds=SEEDS)
    half, whole = (path / "model.safetensors" for path in (tmp_path / "x", folder))
    for name, array in read_by_hand(whole).items():
        np.testing.assert_array_equal(read_by_hand(half)[name], array.astype(ml_dtypes.bfloat16))
    ours = export.read(tmp_path / "x").sample(SEEDS)
    sampler = jax.export.deserialize((tmp_path / "x" / "sampler.stablehlo").read_bytes())
    np.testing.assert_array_equal(call(sampler, model, SEEDS), ours)
    difference = np.abs(ours.astype(float) - drawn)
    stated = about(tmp_path / "x")["rounding"]
    assert stated["images"] == len(SEEDS) and 0 < stated["mean_difference"] < 2
    np.testing.assert_allclose(stated["mean_difference"], difference.mean(), atol=1e-4)
    assert stated["largest_difference"] == difference.max()
    assert str(stated["mean_difference"]) in (tmp_path / "x" / "README.md").read_text()


def test_export_tells_what_it_is_but_not_of_the_machine(model, folder):
    found = about(folder)
    config = model.config
    wavediff = config.diffusion.space == "haar"
    pairs = "WaveDiff" if wavediff else "DDGAN"
    assert found["method"] == (pairs if config.objective.joint else "SIDDM")
    assert found["data"]["num_classes"] == config.data.num_classes
    assert (found["step"], found["denoising_steps"]) == (7, config.diffusion.num_timesteps)
    assert {name: found[name] for name in ABOUT} == ABOUT
    for path in folder.iterdir():
        for private in (b"/home/somebody", os.fsencode(ROOT), b"test_export"):
            assert private not in path.read_bytes(), path


# ---- what is not an export, or not a whole one


def change_byte(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def change(**entries):
    def apply(path):
        found = json.loads(path.read_text()) | entries
        path.write_text(json.dumps({k: v for k, v in found.items() if v is not None}))

    return apply


def change_config(path):
    found = json.loads(path.read_text())
    found["config"]["diffusion"]["beta_max"] = 21.0
    path.write_text(json.dumps(found))


def of_another_network(path):
    found = json.loads(path.read_text())
    found["config"]["generator"]["base_channels"] = 64
    found["sha256"]["config"] = export_format.config_sha256(found["config"])
    path.write_text(json.dumps(found))


def halve(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


BAD = [
    ("model.safetensors", change_byte, "model.safetensors is damaged, it does not match its check"),
    ("model.safetensors", halve, "model.safetensors is damaged, it does not match its checksum"),
    ("sampler.stablehlo", change_byte, "sampler.stablehlo is damaged, it does not match its check"),
    ("model.safetensors", Path.unlink, "cannot read .*model.safetensors: there is no such file"),
    ("samples.png", Path.unlink, "cannot read .*samples.png: there is no such file"),
    ("config.json", Path.unlink, "cannot read .*config.json: there is no such file"),
    ("config.json", halve, "config.json is not JSON"),
    ("config.json", change(sha256=None), "config.json: Object missing required field `sha256`"),
    ("config.json", change_config, 'config.json, the part "config", is damaged, it does not match'),
    (
        "config.json",
        change(format_version=2),
        "format 2, this program knows those up to 1: use a n",
    ),
    (
        "config.json",
        change(format=None),
        "is not that of an export; for a run folder use `workdir`",
    ),
    ("config.json", of_another_network, r"of another network than its config: .* and \d+ more dif"),
]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """An export to be damaged."""
    out = tmp_path_factory.mktemp("small") / "export"
    export.write(make_model("ddgan"), out, grid_seeds=[0])
    return out


@pytest.mark.parametrize(("name", "damage", "message"), BAD)
def test_damage_is_named(small, tmp_path, name, damage, message):
    out = tmp_path / "x"
    out.mkdir()
    for path in small.iterdir():
        (out / path.name).write_bytes(path.read_bytes())
    damage(out / name)
    with pytest.raises(UserError, match=message) as caught:
        export.read(out)
    assert "\n" not in str(caught.value)


def test_no_export_at_all(tmp_path):
    with pytest.raises(UserError, match="there is no export at .*nothing"):
        ddgan_jax.load(tmp_path / "nothing")


# ---- whole or not at all


def test_failure_leaves_nothing(monkeypatch, tmp_path):
    def fails(*args):
        raise UserError("no card today")

    monkeypatch.setattr(model_card, "render", fails)
    with pytest.raises(UserError, match="no card today"):
        export.write(make_model("ddgan"), tmp_path / "x", grid_seeds=[0])
    assert list(tmp_path.iterdir()) == []


def fill(out, content, **options):
    with whole_folder(out, **options) as folder:
        (folder / "file").write_text(content)


def test_what_is_there_stays_unless_it_may_go(tmp_path):
    out = tmp_path / "x"
    fill(out, "1")
    with pytest.raises(UserError, match="exists already: name another folder"):
        fill(out, "2")
    with pytest.raises(UserError, match="is something else, which would be lost"):
        fill(out, "2", replace=export.is_export)
    assert (out / "file").read_text() == "1"
    (out / "config.json").write_text(json.dumps({"format": export.FORMAT}))
    fill(out, "2", replace=export.is_export)
    assert [(path.name, path.read_text()) for path in out.iterdir()] == [("file", "2")]
    assert list(tmp_path.iterdir()) == [out]


def test_files_of_somebody_else_in_an_export_are_kept(monkeypatch, tmp_path):
    """Its own are those that it lists, of whatever version, and those that are written here."""
    monkeypatch.setattr(export, "fill", lambda _, folder, **__: (folder / "new").touch())
    out, listed = tmp_path / "x", {"later.bin": "", "config": ""}
    out.mkdir()
    (out / "config.json").write_text(json.dumps({"format": export.FORMAT, "sha256": listed}))
    for name in ("later.bin", "README.md", "sampler.stablehlo", "notes.txt", "more"):
        (out / name).touch()
    before = sorted(out.iterdir())
    with pytest.raises(UserError, match="files that are not of its .* lost: more, notes.txt: move"):
        export.write(None, out, force=True)
    assert sorted(out.iterdir()) == before and list(tmp_path.iterdir()) == [out]
    (out / "more").unlink()
    (out / "notes.txt").unlink()
    export.write(None, out, force=True)
    assert [path.name for path in out.iterdir()] == ["new"]


def test_left_over_from_a_kill(tmp_path):
    """What was about to be replaced comes back."""
    (tmp_path / ".unfinished-old-x").mkdir()
    (tmp_path / ".unfinished-old-x" / "file").write_text("before")
    with pytest.raises(UserError, match="exists already"):
        fill(tmp_path / "x", "2")
    assert (tmp_path / "x" / "file").read_text() == "before"
    fill(tmp_path / "x", "2", replace=lambda folder: True)
    assert (tmp_path / "x" / "file").read_text() == "2"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write .*file/x: "):
        fill(tmp_path / "file" / "x", "1")


# ---- other places that models come from


def test_run_folder(tmp_path):
    """Its moving average by default, its raw parameters on request, metrics of that step."""
    config = config_of("ddgan")
    state = jax.jit(lambda: build.initial_state(config, jax.random.key(0)))()
    raw = random_params(state.generator.params, seed=1)
    averaged = random_params(state.generator.params, seed=2)
    generator = state.generator._replace(params=raw, ema_params=averaged)
    state = jax.device_get(state._replace(step=np.int32(4), generator=generator))
    with Checkpoints(tmp_path / "checkpoints", keep_latest=1, keep_every_steps=0) as checkpoints:
        checkpoints.save(4, state, config.to_dict())
    lines = [{"step": step, "time": 1.0, "g_loss": step / 2} for step in (2, 4, 6)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = ddgan_jax.load(tmp_path)
    assert found.about["metrics"] == {"source": "metrics.jsonl of the run", "step": 4, "g_loss": 2}
    assert (found.step, found.kind) == (4, "ema")
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, found.params, averaged)))
    command = ["export", f"--workdir={tmp_path}", f"--out={tmp_path / 'x'}", "--seeds=0"]
    assert cli.main([*command, "--weights=raw", "--dtype=f32", "--chunk_size=2"]) == 0
    back = export.read(tmp_path / "x")
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, back.params, raw)))
    assert (back.kind, back.config.sampling.chunk_size) == ("raw", 2)


def test_hub(monkeypatch, small):
    calls = []
    hub = types.ModuleType("huggingface_hub")

    def snapshot_download(name, revision):
        calls.append((name, revision))
        if name == "user/private":
            raise OSError("401 Client Error.\n\nInvalid credentials")
        return str(small)

    hub.snapshot_download = snapshot_download
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    assert ddgan_jax.load("hf://user/digits").step == 7
    assert ddgan_jax.load("hf://user/digits@v2", num_steps=2).num_steps == 2
    assert calls == [("user/digits", None), ("user/digits", "v2")]
    with pytest.raises(UserError, match="cannot fetch hf://user/private: 401 Client Error.$"):
        ddgan_jax.load("hf://user/private")


def test_hub_is_an_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r'pip install "ddgan-jax\[hub\]"'):
        ddgan_jax.load("hf://user/digits")


def test_package_imports_without_jax():
    check = "import sys, ddgan_jax; ddgan_jax.load; assert not {'jax', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", check], cwd=ROOT, check=True)


# ---- the command


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "name one model, with --workdir=FOLDER or with --export=FOLDER"),
        (["--workdir=w", "--export=e"], "name one model, with --workdir=FOLDER or with --export="),
        (["--export=e", "--step=3"], "--step belongs to --workdir: an export holds one of each"),
        (["--export=e", "--weights=raw"], "--weights belongs to --workdir: an export holds"),
        (["--export={small}", "--dtype=f16"], "--dtype=f16 is not f32 or bf16"),
        (["--export={small}", "--sampler_weights=out"], "--sampler-weights=out is not inside,"),
        (["--export={small}", "--weights=best"], "--weights: 'best' is not known; known: ema, raw"),
        (["--export={small}", "--out={small}"], "exists already: name another folder, or use --fo"),
    ],
)
def test_mistakes_are_one_line(flags, message, small, tmp_path, capsys):
    flags = [flag.format(small=small) for flag in flags]
    assert cli.main(["export", f"--out={tmp_path / 'x'}", *flags]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
