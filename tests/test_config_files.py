"""What --config may name: shipped configs, files with neighbours, the JSON of runs and exports."""

import json
import os
import random
import sys
from pathlib import Path

import pytest

from ddgan_jax import cli, compiler
from ddgan_jax.config import base_config, files, run_config
from ddgan_jax.config.files import from_json, leaves, shipped_configs, to_json
from ddgan_jax.config.finding import SHIPPED
from ddgan_jax.errors import UserError
from ddgan_jax.files.run_folder import RunFolder

pytestmark = pytest.mark.quick

# A config that says by which of its neighbours it was made.
MINE = "from base import seed\nfrom ddgan_jax.config import base_config\n\n\ndef get_config():\n"
MINE += "    c = base_config()\n    c.train.seed = seed\n    return c\n"


@pytest.fixture(autouse=True)
def here(monkeypatch, tmp_path):
    """The current folder, which is empty."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def load_config(path: str):
    """As the function of that name; and nothing of the file stays behind in the process."""
    before = (list(sys.path), sys.dont_write_bytecode, dict(sys.modules))
    try:
        return files.load_config(path)
    finally:
        assert (list(sys.path), sys.dont_write_bytecode) == before[:2]
        new = sys.modules.keys() - before[2].keys()
        assert not [name for name in new if os.getcwd() in str(vars(sys.modules[name]))]
        assert all(sys.modules.get(name) is module for name, module in before[2].items())


def write(path: str, text: str) -> str:
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return path


def message_of(path: str) -> str:
    with pytest.raises(UserError) as error:
        load_config(path)
    return str(error.value)


# ------------------------------------------------------------------------------ names


def test_a_name_is_the_file_that_ships():
    assert shipped_configs().keys() >= {"digits_ddgan", "cifar10_siddm", "mog25"}
    for name, summary in shipped_configs().items():
        assert summary.endswith(".") and f'"""{summary}' in (SHIPPED / f"{name}.py").read_text()
        assert to_json(load_config(name)) == to_json(load_config(f"{SHIPPED}/{name}.py"))
    assert load_config("digits_ddgan:tiny").train.num_steps == 2
    # A folder or a file of that name is no config.
    os.mkdir("digits_ddgan")
    assert load_config("digits_ddgan").train.num_steps > 2


def test_a_changed_copy_of_a_shipped_config_is_not_passed_over(here):
    copy = here / "digits_ddgan.py"
    copy.write_bytes((SHIPPED / copy.name).read_bytes())
    assert load_config("digits_ddgan").train.seed == 0
    write("digits_ddgan.py", "from ddgan_jax.config import siddm_config as get_config\n")
    assert "write ./digits_ddgan.py for this file" in message_of("digits_ddgan:tiny")
    assert load_config("./digits_ddgan.py") == load_config("digits_ddgan.py")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("digits_dgan", "neither a file here nor one that ships; did you mean digits_ddgan?"),
        ("digits_dgan:tiny", "did you mean digits_ddgan?"),
        ("qqqq", "these ship: celebahq1024_wavediff, "),
        ("configs/digits_ddgan.py", "did you mean digits_ddgan, which ships with this program?"),
        ("configs/digits_ddgan.py:tiny", "did you mean digits_ddgan, which ships"),
        ("digits_ddgan.py", "did you mean digits_ddgan, which ships"),
        ("configs/digts_ddgan.py", "did you mean digits_ddgan?"),
        ("photo", "did you mean photos.py?"),
        ("run", "run is a folder; its config is run/config.json"),
        ("run/config.json:tiny", "is JSON and takes no argument"),
        ("run/confg.json", "run/confg.json cannot be read"),
        ("", "is empty"),
        ("~\0", "holds a zero byte"),
    ],
)
def test_what_is_not_there_suggests_what_is(path, message):
    write("photos.py", MINE)
    write("run/config.json", "{}")
    assert message in message_of(path)


def test_any_path_is_a_config_or_one_line():
    draw = random.Random(0)
    parts = ["digits_ddgan", "digits", ":", "/", "~", "..", ".py", ".json", "\0", "\n", " ", "é"]
    parts += [
        "gs://",
        "s3://",
        "*",
        "[",
        "-",
        "=",
        "\udc80",
        "\x1b[31m",
        "tiny",
        "x" * 300,
        "mine.py",
    ]
    write("mine.py", MINE)
    for _ in range(300):
        path = "".join(draw.choices(parts, k=draw.randint(0, 5)))
        try:
            assert dict(leaves(load_config(path)))
        except UserError as error:
            assert str(error).isprintable() and len(str(error)) < 1000, path


# -------------------------------------------------------------------------- neighbours


@pytest.mark.parametrize("front", [None, "", "."], ids=["ddgan", "notebook", "python -m"])
def test_each_config_has_its_own_neighbours(monkeypatch, front):
    """The file's folder first, then the current one, wherever Python itself would look first."""
    if front is not None:
        monkeypatch.syspath_prepend(os.path.abspath(front) if front else "")
    for folder, seed in [("a", 1), ("b", 2), (".", 3)]:
        write(f"{folder}/base.py", f"seed = {seed}\n")
        write(f"{folder}/mine.py", MINE)
    write("c/mine.py", MINE)
    found = [load_config(f"{folder}/mine.py").train.seed for folder in "ab.cba"]
    assert found == [1, 2, 3, 3, 2, 1]
    write("a/base.py", "seed = 9\n")  # as long as before, and in the same second
    assert load_config("a/mine.py").train.seed == 9
    assert not list(Path().rglob("*.pyc"))


def test_what_the_process_has_imported_stays_and_is_not_seen(here, monkeypatch):
    write("base.py", "seed = 5\n")
    monkeypatch.syspath_prepend(str(here))
    import base  # pyright: ignore[reportMissingImports]

    write("a/base.py", "seed = 1\n")
    assert load_config(write("a/mine.py", MINE)).train.seed == 1
    assert sys.modules["base"] is base and base.seed == 5
    del sys.modules["base"]


def test_a_neighbour_replaces_no_library():
    for library in ("json", "numpy", "ml_collections", "ddgan_jax"):
        write(f"{library}.py", "raise SystemExit(f'{__name__} was replaced')\n")
    file = write("base.py", "import json, numpy\nseed = len(json.dumps(numpy.pi.hex()))\n")
    assert load_config(write("mine.py", MINE)).train.seed == 22, file


def test_packages_late_imports_and_own_places():
    write("lib/parts/__init__.py", "from .rates import seed\n")
    write("lib/parts/rates.py", "from . import more\nseed = more.seed\n")
    write("lib/parts/more.py", "seed = 6\n")
    write("lib/loose/part.py", "seed = 1\n")  # a folder without __init__.py
    write(
        "lib/base.py",
        "from parts import seed as more\nimport loose.part as p\nseed = more + p.seed\n",
    )
    late = "    from base import seed\n"
    text = MINE.replace("from base import seed\n", "").replace("config():\n", f"config():\n{late}")
    assert load_config(write("lib/mine.py", text)).train.seed == 7
    # A file may name another place, which is forgotten after it.
    other = "import sys\nsys.path.insert(0, 'lib')\n"
    assert load_config(write("mine.py", other + MINE)).train.seed == 7


def test_a_config_begins_from_others():
    write("near.py", "from dataclasses import dataclass\n" + MINE.replace("from base import", "#"))
    text = "from __future__ import annotations\nfrom dataclasses import dataclass\n"
    text += "from ddgan_jax.config.files import load_config\nfrom ddgan_jax.configs import mog25\n"
    # Decorators ask for the module of a class, also after another config has been read.
    text += "c = load_config('digits_ddgan:tiny')\n@dataclass\nclass Size:\n    seed: int = 4\n"
    text += "def get_config(arg='siddm'):\n    c = mog25.get_config(arg)\n"
    text += "    c.train.seed = Size().seed\n    return c\n"
    config = load_config(write("mine.py", text) + ":tiny")
    assert (config.train.seed, config.data.name, config.train.num_steps) == (4, "mog25", 2)


@pytest.mark.parametrize(
    ("base", "message"),
    [
        ("x = 1\nseed = 1 / 0\n", "base.py, line 2: ZeroDivisionError: division by zero"),
        ("seed = (\n", "base.py, line 1: '(' was never closed"),
        ("import more\n", "more.py, line 3: ValueError: no"),
        ("import bsae\n", "base.py, line 1: ModuleNotFoundError: No module named 'bsae'; did you"),
        ("from digits_ddgan import y\n", "; the config that ships is ddgan_jax.configs.digits_dd"),
        ("from configs.mog25x import y\n", "; the configs that ship are in ddgan_jax.configs"),
        ("exec('1 / 0')\n", "base.py, line 1: ZeroDivisionError"),
        ("compile('x(', 'no file', 'exec')\n", "base.py, line 1: SyntaxError"),
        ("import os\nos.fspath(3)\n", "base.py, line 2: TypeError"),
        ("seed = 0\ndel seed\n", "mine.py: line 1: ImportError: cannot import name 'seed'"),
        ("seed = 'x'\n", "mine.py: line 7: TypeError"),
        ("import sys; sys.exit(1)\n", "base.py, line 1: SystemExit: 1"),
    ],
)
def test_a_mistake_in_a_neighbour_is_found_there(base, message):
    write("a/base.py", base)
    write("a/more.py", "\n\nraise ValueError('no')\n")
    path = write("a/mine.py", MINE)
    assert message in message_of(path) and message_of(path).startswith(f"config file {path}: ")


# ------------------------------------------------------------------------------- JSON


def stored(**changes) -> str:
    config = base_config()
    config.data.name, config.data.path, config.train.seed = "folder", "/data/photos", 3
    config.update_from_flattened_dict(changes)
    return to_json(config)


def test_the_config_of_a_run_or_an_export_is_taken():
    config = load_config(write("run/config.json", stored()))
    assert to_json(config) == stored() and config.is_locked
    tree = json.loads(stored())
    del tree["train"]["mapping"]  # an older version's
    assert to_json(load_config(write("old.json", json.dumps(tree)))) == stored()
    # The places of somebody else's machine are no part of an export's config.
    export = load_config(write("e/config.json", json.dumps({"format": "x", "config": tree})))
    assert to_json(export) == stored(**{"data.path": ""})


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "{",
            "[]",
            "3",
            "null",
            "\0",
            "{" * 5000,
            "[" * 5000,
            '{"a": 1e999}',
            "NaN",
            "é\ud800",
        ),
        '{"config": 3}',
        '{"train": {"seed": 1}, "train": {}}',
        stored()[:-40],
        stored().replace('"seed": 3', '"seed": "3"'),
        stored().replace('"seed"', '"sed"'),
        stored().replace('"base_channels": 128', '"base_channels": 1e9'),
        stored().replace('"name": "ncsnpp"', '"name": "nothing"'),
    ],
    ids=range(18),
)
def test_what_is_no_config_in_json_is_one_line(text):
    Path("config.json").write_bytes(text.encode(errors="surrogatepass"))
    message = message_of("config.json")
    assert message.isprintable() and "config.json" in message


# ----------------------------------------------------------------------------- resuming


@pytest.fixture
def ddgan(monkeypatch, capsys):
    """Runs a command in this process; returns its exit code, its errors and the trained config."""
    trained = []
    monkeypatch.setattr(compiler, "keep_programs", lambda workdir: None)
    monkeypatch.setattr("ddgan_jax.training.hosts.join", lambda *a, **k: None)

    def begin(config, **_):
        # Whatever comes later belongs to training: data, compiling, steps.
        trained.append(config)
        raise UserError("begins")

    monkeypatch.setattr("ddgan_jax.training.loop.data.open_dataset", begin)

    def run(*argv):
        trained.clear()
        code = cli.main(argv)
        return code, capsys.readouterr().err, trained[0] if trained else None

    return run


@pytest.fixture
def run(here):
    """A run folder that has nothing but its config."""
    folder = RunFolder.at(here / "runs" / "x")
    config = load_config("digits_ddgan:tiny")
    config.train.seed = 3
    run_config.write_config(folder, config)
    return folder


def test_a_run_goes_on_without_its_config(ddgan, run):
    longer = ["--config.train.num_steps=9"]
    for flags in ([], longer, [f"--config={run.config}"]):
        code, error, config = ddgan("train", f"--workdir={run.path}", *flags)
        assert (code, error) == (2, "ddgan train: begins\n")
        assert (config.train.seed, config.train.num_steps) == (3, 9 if flags == longer else 2)
    # A name is compared with the run as a file is.
    flags = ("--config=digits_ddgan:tiny", "--config.train.seed=3")
    assert ddgan("train", f"--workdir={run.path}", *flags)[1] == "ddgan train: begins\n"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--config.train.batch_size=4"], "(train.batch_size: 8 in the run folder, 4 now)"),
        (["--config.train.batch_sise=4"], "did you mean --config.train.batch_size?"),
        (["--config.train.seed=x"], "is not an integer"),
        (["--config=digits_ddgan:tiny"], "(train.seed: 3 in the run folder, 0 now)"),
        (["--config="], "--config is empty"),
    ],
)
def test_what_a_run_cannot_change_is_refused(ddgan, run, flags, message):
    before = run.config.read_bytes()
    code, error, config = ddgan("train", f"--workdir={run.path}", *flags)
    assert code == 2 and message in error and error.count("\n") == 1 and config is None
    assert run.config.read_bytes() == before and os.listdir(run.path) == ["config.json"]


def test_a_place_without_a_run_names_the_configs_that_ship(ddgan, here):
    (here / "empty").mkdir()
    for place in ("empty", "nowhere", "nowhere/at/all"):
        code, error, config = ddgan("train", f"--workdir={place}")
        assert code == 2 and config is None
        assert f"{place} holds no run to go on with" in error and "digits_ddgan, " in error
    assert os.listdir(here) == ["empty"]


def test_a_damaged_config_is_that_of_the_newest_checkpoint(ddgan, run):
    whole = run.config.read_text()
    run.config.write_text(whole[:-9])
    code, error, config = ddgan("train", f"--workdir={run.path}")
    assert code == 2 and "config.json: this is not a config in JSON" in error and config is None
    copy = run.checkpoints / "2" / "config" / "metadata"
    copy.parent.mkdir(parents=True)
    copy.write_text(whole)
    code, error, config = ddgan("train", f"--workdir={run.path}")
    assert error.count("took the config of the newest checkpoint instead") == 1
    assert to_json(config) == to_json(from_json(whole))
