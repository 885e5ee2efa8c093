"""Config files and JSON: what ships, what survives, what a user is told of a broken file."""

import copy
import os
import re
from pathlib import Path

import jax
import pytest

from ddgan_jax import losses, models
from ddgan_jax.config import POINT_SETS, STACKED_SETS, checks, reference
from ddgan_jax.config.defaults import SECTIONS
from ddgan_jax.config.files import from_json, leaves, load_config, shipped_configs, to_json
from ddgan_jax.config.networks import NETWORKS
from ddgan_jax.data import mixture, stacks
from ddgan_jax.errors import UserError
from ddgan_jax.models import registry

CONFIGS = Path(__file__).parents[1] / "configs"
SHIPPED = sorted(shipped_configs())

pytestmark = pytest.mark.quick


@pytest.mark.parametrize("variant", ["", ":tiny"])
@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_configs_are_valid_and_survive_json(name, variant, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # config files work from any directory
    config = load_config(f"{CONFIGS / name}.py{variant}")
    for num_devices in (1, 2, 4, 8):
        checks.validate(config, num_devices)
    restored = from_json(to_json(config))
    assert dict(leaves(restored)) == dict(leaves(config))
    assert {k: type(v) for k, v in leaves(restored)} == {k: type(v) for k, v in leaves(config)}
    for locked in (config, restored):
        with pytest.raises(AttributeError):
            locked.train.bach_size = 1


@pytest.mark.parametrize("name", SHIPPED)
def test_tiny_keeps_the_kinds_of_networks_and_data(name):
    full, small = load_config(f"{CONFIGS / name}.py"), load_config(f"{CONFIGS / name}.py:tiny")
    for path, value in leaves(full):
        section, _, field = path.partition(".")
        if path == "objective.r1_interval":
            assert small.objective.r1_interval == 1  # one program to compile
        elif isinstance(value, str | bool) or section in ("diffusion", "objective"):
            assert small[section][field] == value
    generator, discriminator = jax.eval_shape(lambda: models.init_params(small, jax.random.key(0)))
    # The normalisation of a U-Net needs 32 channels, where NCSN++ makes do with 8.
    limit = 1_000_000 if small.generator.name == "unet" else 200_000
    assert sum(p.size for p in jax.tree.leaves((generator, discriminator))) < limit


@pytest.mark.parametrize(
    ("name", "steps", "batch_size"),
    [
        # (epochs + 1) times the whole batches in an epoch
        ("cifar10_ddgan", 1801 * 195, 4 * 64),
        ("lsun_church256_ddgan", 501 * 1875, 8 * 8),
        ("celebahq256_ddgan", 801 * 843, 8 * 4),
    ],
)
def test_published_schedules(name, steps, batch_size):
    config = load_config(f"{CONFIGS / name}.py")
    assert (config.train.num_steps, config.train.batch_size) == (steps, batch_size)
    epoch = config.optimizer.decay_interval_steps
    assert config.optimizer.decay_steps == config.train.num_steps - epoch


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("folder_ddgan:32", 32),
        ("folder_ddgan:64", 64),
        ("folder_ddgan:128", 128),
        ("folder_ddgan:tiny", 32),
        ("mnist_ddgan", 32),
        ("mnist_ddgan:tiny", 32),
    ],
)
def test_the_cosine_is_as_long_as_the_training(name, size):
    """Also when the command line sets the length, which happens after the file has run."""
    file, _, argument = name.partition(":")
    config = load_config(f"{CONFIGS / file}.py:{argument}".removesuffix(":"))
    assert config.data.image_size == size
    config.train.num_steps = 123
    assert config.optimizer.decay_steps == 123
    for later in (from_json(to_json(config)), copy.deepcopy(config)):
        assert (later.train.num_steps, later.optimizer.decay_steps) == (123, 123)
        checks.validate(later)
    config.optimizer.decay_steps = 100
    assert (config.train.num_steps, config.optimizer.decay_steps) == (123, 100)
    # A run that goes on has the numbers, so that a longer training keeps its cosine.
    resumed = from_json(to_json(config))
    resumed.train.num_steps = 200
    assert resumed.optimizer.decay_steps == 100


FIELDS = [
    pytest.param(name, key, field, id=f"{name} {key}")
    for name, section in [
        *SECTIONS.items(),
        *(
            (f"{role} {kind}", fields)
            for role in NETWORKS
            for kind, fields in NETWORKS[role].items()
        ),
    ]
    for key, field in section.items()
]


@pytest.mark.parametrize(("section", "name", "field"), FIELDS)
def test_each_field_is_declared_in_full(section, name, field):
    """A sentence; a default that it may have; for numbers the same bounds in checks and docs."""
    assert re.fullmatch(r"[A-Z0-9].*\.", field.sentence) and ". " not in field.sentence
    assert len(field.unit.split()) <= 1 and "|" not in field.sentence
    field.check(name, field.default)
    star = " *" * field.may_change
    assert f"| `{name}`{star} |" in reference.page() and field.sentence in reference.page()
    if not isinstance(field.default, int | float | tuple) or isinstance(field.default, bool):
        return
    outside = [field.at_most + 1]
    outside += [field.above] if field.above is not None else []
    outside += [field.at_least - 1] if field.at_least is not None else []
    outside += [field.below] if field.below is not None else []
    for value in outside:
        value = float(value) if isinstance(field.default, float) else value
        with pytest.raises(UserError, match=re.escape(f"{name}=")):
            field.check(name, (value,) if isinstance(field.default, tuple) else value)


def test_the_reference_of_the_fields_is_current():
    page = (Path(__file__).parents[1] / "docs" / "config.md").read_text()
    assert page == reference.page(), "python -m ddgan_jax.config.reference > docs/config.md"


def test_choices_are_what_the_code_knows():
    assert tuple(mixture.SETS) == POINT_SETS
    assert tuple(stacks.SETS) == STACKED_SETS
    assert set(SECTIONS["objective"]["afd_form"].choices) == losses.AFD_FORMS.keys()
    assert NETWORKS["generator"].keys() == registry._GENERATORS.keys()
    assert NETWORKS["discriminator"].keys() == registry._DISCRIMINATORS.keys()


def write(tmp_path: Path, text: str) -> str:
    file = tmp_path / "mine.py"
    file.write_text(text)
    return str(file)


@pytest.mark.parametrize(
    ("text", "argument", "message"),
    [
        ("x = 1\n", "", "it does not define get_config"),
        ("def get_config(:\n", "", "line 1: invalid syntax"),
        ("def get_config():\n    return 3\n", "", "get_config must return a ConfigDict"),
        ("\ndef get_config():\n    return 1 / 0\n", "", "line 3: ZeroDivisionError: division by"),
        ("def get_config():\n    return 1\n", ":tiny", "TypeError: get_config\\(\\) takes 0"),
    ],
)
def test_a_broken_config_file_is_named_with_the_line(tmp_path, text, argument, message):
    file = write(tmp_path, text)
    with pytest.raises(UserError, match=f"{re.escape(file)}: .*{message}"):
        load_config(file + argument)


def test_a_missing_config_file_or_argument_suggests_the_nearest():
    with pytest.raises(UserError, match=r"cannot be read .*did you mean .*cifar10_ddgan\.py\?"):
        load_config(f"{CONFIGS}/cifar_ddgan.py")
    with pytest.raises(UserError, match="'tny' is not known; did you mean tiny"):
        load_config(f"{CONFIGS}/digits_ddgan.py:tny")
    with pytest.raises(UserError, match="'x' is not known; known: tiny"):
        load_config(f"{CONFIGS}/digits_ddgan.py:x")


CONFIG = "from ddgan_jax.config import *\ndef get_config(arg=''):\n    c = base_config()\n"


@pytest.mark.parametrize("name", ["my.py", "a:b.py", "my.py:x", "T10:00:00/my.py", "x:/:y/z"])
@pytest.mark.parametrize("argument", ["", "tiny", "a:b", ".py"])
def test_colons_in_paths_and_arguments(tmp_path, name, argument):
    """The longest part of the path that exists is the file."""
    file = tmp_path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(CONFIG + "    c.data.name = arg\n    return c\n")
    config = load_config(f"{file}:{argument}" if argument else str(file))
    assert config.data.name == argument


def test_a_missing_file_below_a_folder_with_colons_is_named(tmp_path):
    folder = tmp_path / "2026-01-01T10:00:00"
    folder.mkdir()
    (folder / "mine.py").write_text(CONFIG + "    return c\n")
    for path in (f"{folder}/mune.py", f"{folder}/mune.py:tiny"):
        with pytest.raises(UserError) as error:
            load_config(path)
        assert f"config file {folder}/mune.py cannot" in str(error.value)
        assert f"did you mean {folder}/mine.py?" in str(error.value)


RAISES = {
    "import sys; sys.exit(3)": "SystemExit: 3",
    "raise MemoryError": "MemoryError",
    "def f(): f()\nf()": "RecursionError",
    "raise BaseException('a\\nb\\x1b')": "BaseException: a b",
    "raise UnicodeDecodeError('utf-8', b'x', 0, 1, 'no')": "UnicodeDecodeError",
    "class E(Exception):\n    def __str__(self): return 1 / 0\nraise E": "E: a value of type E",
    "x = 1\0": "null bytes",
    "raise GeneratorExit": "GeneratorExit",
    "raise ModuleNotFoundError('no', name=3)": "ModuleNotFoundError: no",
    "raise SyntaxError('no', (3, 4, 5, 'x'))": "no",
    "import sys; sys.modules['no module'] = 3; 1 / 0": "ZeroDivisionError",
    "__file__ = __name__ = 3; 1 / 0": "ZeroDivisionError",
    "get_config = 3": "TypeError: 'int' object is not callable",
    "(" * 300: "",
    "def get_config(): return {}": "get_config must return a ConfigDict",
    "from ml_collections import ConfigDict\ndef get_config():\n  c = ConfigDict()\n  c.c = c\n"
    "  return c": "RecursionError",
    "from ml_collections import ConfigDict\ndef get_config(): return ConfigDict({'a': 1, 2: 3})": (
        "TypeError"
    ),
}


@pytest.mark.parametrize(("text", "message"), RAISES.items(), ids=range(len(RAISES)))
def test_whatever_a_config_file_raises_is_one_line(tmp_path, text, message):
    file = write(tmp_path, text)
    with pytest.raises(UserError) as error:
        load_config(file)
    assert message in str(error.value) and file in str(error.value)
    assert str(error.value).isprintable()


def test_ctrl_c_in_a_config_file_is_no_mistake(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        load_config(write(tmp_path, "raise KeyboardInterrupt"))


def test_a_config_file_that_is_not_utf_8(tmp_path):
    file = tmp_path / "mine.py"
    file.write_bytes(b"x = '\xff\xfe'\n")
    with pytest.raises(UserError, match="can't decode byte 0xff"):
        load_config(str(file))


def test_what_is_no_regular_file_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.py")
    (tmp_path / "huge.py").touch()
    os.truncate(tmp_path / "huge.py", 2**40)
    for path in (
        tmp_path,
        tmp_path / "pipe.py",
        "/dev/zero",
        tmp_path / "huge.py",
        "\0",
        "~x/y.py",
    ):
        with pytest.raises(UserError) as error:
            load_config(str(path))
        assert str(error.value).isprintable()


@pytest.mark.parametrize("text", ["{", "[1, 2]", ""])
def test_json_that_is_no_config(text):
    with pytest.raises(UserError, match="not a config in JSON"):
        from_json(text)
