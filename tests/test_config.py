"""Config files and JSON: what ships, what survives, what a user is told of a broken file."""

import re
from pathlib import Path

import jax
import pytest

from ddgan_jax import models, validation
from ddgan_jax.config_files import from_json, leaves, load_config, to_json
from ddgan_jax.errors import UserError

CONFIGS = Path(__file__).parents[1] / "configs"
SHIPPED = sorted(path.stem for path in CONFIGS.glob("*.py"))

pytestmark = pytest.mark.quick


@pytest.mark.parametrize("variant", ["", ":tiny"])
@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_configs_are_valid_and_survive_json(name, variant, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # config files work from any directory
    config = load_config(f"{CONFIGS / name}.py{variant}")
    for num_devices in (1, 2, 4, 8):
        validation.validate(config, num_devices)
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


@pytest.mark.parametrize("text", ["{", "[1, 2]", ""])
def test_json_that_is_no_config(text):
    with pytest.raises(UserError, match="not a config in JSON"):
        from_json(text)
