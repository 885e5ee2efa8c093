"""Checkpoints from strangers: what torch.save wrote is read, whatever else comes is one line."""

import argparse
import collections
import io
import json
import pickle
import random
import shlex
import sys
import time
import zipfile

import jax
import numpy as np
import pytest

from ddgan_jax import cli
from ddgan_jax.errors import UserError
from ddgan_jax.inference import export
from ddgan_jax.interop import (
    adm,
    nvlabs,
    nvlabs_checkpoints,
    nvlabs_runs,
    pytorch_files,
    state_dicts,
)
from ddgan_jax.interop.nvlabs_programs import DDGAN, PROGRAMS, WAVEDIFF
from tests import golden_cases as golden
from tests import wavediff_checkpoints

CONTENT = golden.FOLDER / "content.pth"
GENERATOR = golden.FOLDER / "netG_tiny.pth"
TINY = golden.load("netG_tiny").meta["config"] | {"use_ema": True}


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


def saved(torch, value, **options):
    content = io.BytesIO()
    torch.save(value, content, **options)
    return content.getvalue()


FORMS = pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}])


def check_one_line(error):
    message = str(error)
    assert message.isprintable() and len(message) < 2500, message


# -------------------------------------------------------------------------- files of torch.save


@FORMS
def test_what_pytorch_wrote_is_read_without_it(torch, options):
    """Types, views, shared memory, options, the state of an optimizer: as PyTorch itself reads."""
    x = torch.arange(24.0).reshape(2, 3, 4)
    layer = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(layer.parameters())
    layer(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    value = {
        "views": [x, x.permute(2, 0, 1), x[1:, ::2, 1], x[0, 0, 0], x[:0]],
        "types": [
            x.to(getattr(torch, t)) for t in ("float64", "float16", "int64", "int8", "uint8")
        ],
        "bfloat16": x.bfloat16(),
        "boolean": x > 3,
        "parameter": torch.nn.Parameter(x),
        "layer": layer.state_dict(),
        "optimizer": optimizer.state_dict(),
        "args": argparse.Namespace(seed=3, widths=[1, 2], name=None),
        "ordered": collections.OrderedDict(b=1, a=2.5),
        "size": torch.Size([1, 2]),
        3: (True, -(2**70), "ü"),
    }
    found = pytorch_files.load(saved(torch, value, **options), "x.pth")

    def compare(ours, theirs):
        if isinstance(theirs, torch.Tensor):
            expected = theirs.detach()
            expected = (expected.float() if theirs.dtype == torch.bfloat16 else expected).numpy()
            assert ours.dtype == expected.dtype and ours.shape == expected.shape
            np.testing.assert_array_equal(ours, expected)
        elif isinstance(theirs, argparse.Namespace):
            compare(ours, vars(theirs))
        elif isinstance(theirs, dict):
            assert list(ours) == list(theirs)
            for key in theirs:
                compare(ours[key], theirs[key])
        elif isinstance(theirs, list | tuple):
            assert len(ours) == len(theirs)
            for one, other in zip(ours, theirs, strict=True):
                compare(one, other)
        else:
            assert ours == theirs and type(ours) is type(theirs)

    compare(found, value)


@FORMS
@pytest.mark.parametrize(
    "kind", ["sparse", "quantized", "meta", "complex", "float8", "bool", "nested", "text", "set"]
)
def test_entries_that_are_no_plain_tensors_are_named(torch, options, kind):
    x = torch.zeros(3)
    value = {
        "sparse": lambda: torch.sparse_coo_tensor([[0]], [1.0], (3,)),
        "quantized": lambda: torch.quantize_per_tensor(x, 0.1, 0, torch.qint8),
        "meta": lambda: torch.zeros(3, device="meta"),
        "complex": lambda: x.to(torch.complex64),
        "float8": lambda: x.to(torch.float8_e4m3fn),
        "bool": lambda: x > 0,
        "nested": lambda: torch.nested.nested_tensor([x]),
        "text": lambda: "weights",
        "set": lambda: {1, 2},
    }[kind]()
    with pytest.raises(UserError) as caught:
        content = pytorch_files.load(saved(torch, {"some.weight": value}, **options), "x.pth")
        state_dicts.plain_arrays(content, "that network")
    check_one_line(caught.value)
    assert "some.weight" in str(caught.value) or "type that is not read" in str(caught.value)


def nested(depth, twice):
    node = [1]
    for _ in range(depth):
        node = [node, node] if twice else [node]
    return node


def cycle():
    node = []
    node.append(node)
    return node


@FORMS
@pytest.mark.parametrize(
    "make",
    [
        lambda torch: torch.zeros(1).expand(10**6, 10**6),
        lambda torch: [torch.zeros(1).expand(10**4) for _ in range(10)],
        lambda torch: nested(40, twice=True),
        lambda torch: nested(200, twice=False),
        lambda torch: cycle(),
    ],
    ids=["10^12 numbers of one", "many of one", "2^40 lists", "200 levels", "in itself"],
)
def test_what_would_unfold_is_refused_in_no_time(torch, options, make):
    content, begin = saved(torch, {"a": make(torch)}, **options), time.monotonic()
    with pytest.raises(UserError) as caught:
        pytorch_files.load(content, "x.pth")
    check_one_line(caught.value)
    assert time.monotonic() - begin < 30


def rebuilt(change, compression=zipfile.ZIP_STORED):
    """The golden file with its members changed."""
    whole, content = zipfile.ZipFile(GENERATOR), io.BytesIO()
    with zipfile.ZipFile(content, "w", compression) as archive:
        for name in whole.namelist():
            if (new := change(name, whole.read(name))) is not None:
                archive.writestr(name, new)
    return content.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda: rebuilt(lambda name, old: old, zipfile.ZIP_DEFLATED), "compressed|unfolds"),
        (lambda: rebuilt(lambda name, old: None if "/data.pkl" in name else old), "no data.pkl"),
        (lambda: rebuilt(lambda name, old: old[:-4] if "/data/" in name else old), "not all there"),
        (lambda: rebuilt(lambda name, old: None if "/data/" in name else old), "There is no item"),
        (lambda: b"PK", "not a zip file"),
        (lambda: b"", "pickle exhausted"),
    ],
)
def test_archives_that_torch_save_does_not_write(content, message):
    with pytest.raises(UserError, match=message) as caught:
        pytorch_files.load(content(), "x.pth")
    check_one_line(caught.value)


def test_a_key_that_takes_for_ever_to_hash(torch):
    """A tuple that holds a tuple twice, forty levels deep, as the key of a dict."""
    key = b"K\x01\x85" + b"2\x86" * 40  # DUP and TUPLE2
    program = b"\x80\x02}" + key + b"K\x01s."
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("x/data.pkl", program)
    with pytest.raises(UserError, match="a key of a dict is neither text nor an integer"):
        pytorch_files.load(content.getvalue(), "x.pth")


NAMESPACE, DICT = b"cargparse\nNamespace\n", b"ccollections\nOrderedDict\n"
MANY = 2000
NUMBERED = b"".join(b"U\4%04dN" % k for k in range(MANY))  # keys and values
STORAGE = b"(X\7\0\0\0storagectorch\nByteStorage\nX\1\0\0\x000X\3\0\0\0cpuK\x10"
PAIRS = b"".join(b"U\4%04dN\x86" % k for k in range(MANY))


@pytest.mark.parametrize(
    "program",
    [
        # One dict, copied by the state of namespace after namespace, and one list by dicts.
        b"}(" + NUMBERED + b"uq\1" + NAMESPACE + b"q\2(" + b"h\2)\x81h\1b" * MANY + b"l.",
        b"](" + PAIRS + b"e\x85q\1" + DICT + b"q\2(" + b"h\2h\1R" * MANY + b"l.",
        # A list of one long list again and again, which is no list of pairs.
        DICT + b"](" + b"N" * MANY + b"eq\1](" + b"h\1" * MANY + b"e\x85R.",
        # One long identity, looked at by tensor after tensor.
        STORAGE + b"N" * MANY + b"tq\1(" + b"h\1Q" * MANY + b"l.",
        b"ctorch\n" + b"a" * 100_000 + b"Tensor\n.",
    ],
)
def test_calls_do_not_multiply_what_they_share(program):
    with pytest.raises(UserError, match="calls unfold to more|made of pairs|too long"):
        pytorch_files.load(rebuilt_with(b"\x80\2" + program), "x.pth")


@pytest.mark.parametrize("place", ["/dev/zero", "/dev/null", "fifo", "."])
def test_only_regular_files(tmp_path, monkeypatch, place):
    import os

    monkeypatch.chdir(tmp_path)
    os.mkfifo("fifo")
    with pytest.raises(UserError, match="cannot read "):
        nvlabs_checkpoints.import_command(place, "out", args="cifar10")
    assert not (tmp_path / "out").exists()


# -------------------------------------------------------------------------------- state dicts


@pytest.mark.parametrize(
    "wrap",
    [
        "module.{}",
        "_orig_mod.{}",
        "module._orig_mod.{}",
        "_orig_mod.module.{}",
        lambda name: name.replace(".", "._orig_mod.", 1),
    ],
)
def test_wrappers_are_taken_off_the_names(wrap):
    case = golden.load("g01_default")
    config, state_dict = case.config(), case.state_dict("generator", np.float32)
    rename = wrap.format if isinstance(wrap, str) else wrap
    plain = nvlabs.import_generator(state_dict, config)
    wrapped = nvlabs.import_generator({rename(k): v for k, v in state_dict.items()}, config)
    assert jax.tree.all(jax.tree.map(np.array_equal, plain, wrapped))


def test_wrapped_run_is_the_run():
    """In both networks and in the order by which the optimizers count."""
    content = pytorch_files.read(CONTENT)
    config = nvlabs_runs.config_of_content(content)
    plain = nvlabs_runs.import_content(content, config)
    for key in ("netG_dict", "netD_dict"):
        content[key] = {
            f"_orig_mod.{name.removeprefix('module.')}": v for name, v in content[key].items()
        }
    wrapped = nvlabs_runs.import_content(content, config)
    assert jax.tree.all(jax.tree.map(np.array_equal, plain, wrapped))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"all_modules.3.Conv_0.bias": np.full(8, np.nan)}, "entry .*Conv_0.bias holds numbers"),
        ({"all_modules.3.Conv_0.bias": np.full(8, 1e300)}, "not finite in float32"),
        ({"all_modules.3.Conv_0.bias": None}, "entry .*Conv_0.bias is a NoneType"),
        (
            {"module.all_modules.3.Conv_0.bias": np.zeros(8)},
            "all_modules.3.Conv_0.bias is there tw",
        ),
        ({3: np.zeros(8)}, "a name is 3"),
        ({"\x1b[2J": np.zeros(8)}, "unused"),
    ],
)
def test_state_dicts_that_are_none(change, message):
    case = golden.load("g01_default")
    config, state_dict = case.config(), case.state_dict("generator", np.float32)
    with pytest.raises(UserError, match=message) as caught:
        nvlabs.import_generator(state_dict | change, config)
    check_one_line(caught.value)


@pytest.mark.parametrize("content", [None, [], 3, "x", np.zeros(3)])
def test_no_state_dict_at_all(content):
    for read in (nvlabs.import_generator, nvlabs.import_discriminator):
        with pytest.raises(UserError, match="this is not a state dict of that"):
            read(content, golden.load("g01_default").config())


def test_numbers_of_other_types_are_imported(torch, tmp_path):
    """A checkpoint in float64 or float16 is an export in float32."""
    state = pytorch_files.read(GENERATOR)
    (tmp_path / "a.json").write_text(json.dumps(TINY))
    for name in ("float64", "float16"):
        arrays = {key: torch.tensor(value.astype(name)) for key, value in state.items()}
        torch.save(arrays, tmp_path / f"{name}.pth")
        nvlabs_checkpoints.import_command(
            str(tmp_path / f"{name}.pth"), str(tmp_path / name), args=str(tmp_path / "a.json")
        )
        back = jax.tree.leaves(export.read(tmp_path / name).params)
        assert all(leaf.dtype == np.float32 for leaf in back)


def test_published_network_with_fourier_embedding(tmp_path, torch, capsys):
    """It comes in; that it cannot be drawn is said."""
    case = golden.load("g06_fourier")
    arrays = {k: torch.tensor(v) for k, v in case.state_dict("generator", np.float32).items()}
    torch.save(arrays, tmp_path / "netG_3.pth")
    (tmp_path / "a.json").write_text(json.dumps(case.meta["config"]))
    out = tmp_path / "it's here"
    argv = ["import", "nvlabs", f"--checkpoint={tmp_path / 'netG_3.pth'}", f"--out={out}"]
    assert cli.main([*argv, f"--args={tmp_path / 'a.json'}"]) == 0
    printed = capsys.readouterr().out
    assert "no image can be drawn from it: its time embedding is of log(t)" in printed
    assert not (out / "samples.png").exists()
    found = export.read(out).params
    expected = nvlabs.import_generator(case.state_dict("generator", np.float32), case.config())
    assert jax.tree.all(jax.tree.map(np.array_equal, found, expected))


def test_commands_to_copy_are_quoted(tmp_path, capsys):
    (tmp_path / "a.json").write_text(json.dumps(TINY))
    out = tmp_path / "it's $HOME; `x`"
    argv = ["import", "nvlabs", f"--checkpoint={GENERATOR}", f"--args={tmp_path / 'a.json'}"]
    assert cli.main([*argv, f"--out={out}"]) == 0
    command = capsys.readouterr().out.partition("draw with ")[2]
    assert f"--export={out}" in shlex.split(command)


# ------------------------------------------------------------------------------------- options

VALUES = [
    *(
        None,
        -1,
        0,
        0.5,
        1,
        10**9,
        10**30,
        float("nan"),
        float("inf"),
        True,
        "",
        "x",
        "1,2",
        "False",
    ),
    *([], [1] * 1000, [[1]], [None], {}, {"a": 1}, b"x", nested(20, twice=True), object()),
]
OPTIONS = [(name, option) for name, p in PROGRAMS.items() for option in p.read_options({})]
# With which any single option may be tried.
POSSIBLE = {"nvlabs": {"dataset": "cifar10"}, "wavediff": WAVEDIFF.published["stl10"]}
ADM = {
    **{"image_size": 64, "num_channels": 128, "num_res_blocks": 2, "dropout": 0.0, "dims": 2},
    **{"attention_resolutions": "16,8", "channel_mult": "", "num_heads": 4, "learn_sigma": False},
    **{"num_head_channels": -1, "num_heads_upsample": -1, "class_cond": False},
    **{"use_checkpoint": False, "resblock_updown": False, "num_classes": None, "in_channels": 3},
}


@pytest.mark.parametrize(("name", "option"), OPTIONS)
def test_any_value_of_an_option_is_read_or_one_line_that_names_it(name, option):
    program = PROGRAMS[name]
    for value in VALUES:
        try:
            config = program.config_from_args({**POSSIBLE[name], option: value})
            program.check_config(config)
        except UserError as error:
            check_one_line(error)
            assert f"official option {option}" in str(error) or not _simple(value), str(error)


def _simple(value):
    """Whether nothing but the option itself can be the cause."""
    return not isinstance(value, int | float | str) or isinstance(value, bool)


@pytest.mark.parametrize("option", ADM)
def test_any_value_of_guided_diffusion_is_read_or_one_line(option):
    for value in VALUES:
        try:
            adm.config_from_args(ADM | {option: value})
        except UserError as error:
            check_one_line(error)


@pytest.mark.parametrize("value", ["False", "false", "0", 0, False, "no"])
def test_false_is_false(value):
    assert nvlabs.config_from_args({"fir": value}).generator.fir is False


@pytest.mark.parametrize("args", [None, 3, [1], "x", np.zeros(3)])
def test_no_options_at_all(args):
    for read in (DDGAN.config_from_args, WAVEDIFF.config_from_args, adm.config_from_args):
        with pytest.raises(UserError, match="options are not options by name"):
            read(args)


# ------------------------------------------------------------------------------------ generator


@pytest.fixture(scope="module")
def contents():
    made_up = wavediff_checkpoints.made_up_content()
    made_up["args"] = vars(made_up["args"])
    return {"nvlabs": pytorch_files.read(CONTENT), "wavediff": made_up}


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("seed", range(2))
def test_any_content_is_a_state_or_one_line(contents, seed, name):
    """A value in the place of another, anywhere but deep within the arrays."""
    content = contents[name]
    rng = random.Random(seed)
    values = [*VALUES[:-2], np.zeros(3), np.full((), np.nan), np.zeros(0), "x" * 5000]
    for _ in range(100):
        changed = {k: dict(v) if isinstance(v, dict) else v for k, v in content.items()}
        key = rng.choice(list(changed))
        node = changed
        if isinstance(changed[key], dict) and rng.random() < 0.7 and changed[key]:
            node, key = changed[key], rng.choice(list(changed[key]))
            if key == "state" and rng.random() < 0.8:
                node[key] = {i: dict(entry) for i, entry in node[key].items()}
                node = node[key][rng.choice(list(node[key]))]
                key = rng.choice(list(node))
        if rng.random() < 0.2:
            del node[key]
        else:
            node[key] = rng.choice(values)
        try:
            config = nvlabs_runs.config_of_content(changed, program=PROGRAMS[name])
            nvlabs_runs.import_content(changed, config)
        except UserError as error:
            check_one_line(error)


PIECES = [
    *(b"cos\nsystem\n", b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch\nFloatStorage\n"),
    *(b"ccollections\nOrderedDict\n", b"cargparse\nNamespace\n", b"cbuiltins\nbytearray\n"),
    *(
        b"X\x07\0\0\0storage",
        b"X\x01\0\0\x000",
        b"K\x03",
        b"J\xff\xff\xff\xff",
        b"\x8a\x09" + b"\x7f" * 9,
    ),
    *(b"(", b")", b"}", b"]", b"t", b"\x85", b"\x86", b"\x87", b"R", b"Q", b"b", b"s", b"u", b"a"),
    *(b"e", b"q\x00", b"h\x00", b"2", b"0", b"\x81", b"N", b"\x88", b"\x89", b"r\xff\xff\xff\xff"),
]


@pytest.mark.parametrize("seed", range(4))
def test_any_bytes_are_plain_values_or_one_line(seed):
    """Damaged files and programs of the right pieces; nothing is imported, called or opened."""
    rng = random.Random(seed)
    whole = GENERATOR.read_bytes()
    pickled = zipfile.ZipFile(GENERATOR).read("netG_tiny/data.pkl")
    asked = []
    watched = ("pickle.find_class", "exec", "os.system", "subprocess.Popen", "open", "import")
    sys.addaudithook(lambda event, args: asked.append((event, args)) if event in watched else None)
    for k in range(100):
        if k % 3 == 0:
            file = bytearray(whole)
            for _ in range(rng.randint(1, 8)):
                file[rng.randrange(len(file))] = rng.randrange(256)
            file = bytes(file)
        elif k % 3 == 1:
            program = bytearray(pickled)
            for _ in range(rng.randint(1, 8)):
                start = rng.randrange(len(program))
                program[start : start + rng.randint(0, 4)] = rng.choice(PIECES)
            file = rebuilt_with(bytes(program))
        else:
            file = rebuilt_with(b"\x80\x02" + b"".join(rng.choices(PIECES, k=40)) + b".")
        asked.clear()
        try:
            pytorch_files.load(file, "x.pth")
        except UserError as error:
            check_one_line(error)
        assert not [event for event in asked if event[0] != "import"]


def rebuilt_with(program):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("x/data.pkl", program)
        archive.writestr("x/data/0", bytes(16))
    return content.getvalue()


def test_pickle_itself_would_run_it():
    """The generator's programs are such that an unpickler calls what they name."""
    with pytest.raises(ImportError):
        pickle.loads(b"\x80\x02cno_such_module\nf\n.")
