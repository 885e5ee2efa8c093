"""`ddgan check`: what it says is right, and what it refuses before a machine is asked for."""

import pytest

from ddgan_jax import cli
from ddgan_jax.config.files import load_config
from ddgan_jax.errors import UserError
from ddgan_jax.inspection import run_check
from ddgan_jax.inspection.memory import Memory
from tests.methods import config_file

pytestmark = pytest.mark.quick

# A device then needs 3 GiB, and 1 GiB for each image that it works on at once.
MEMORY = Memory(state=2 * run_check.GIB, divided=0, gradients=run_check.GIB, activations=2**30)


@pytest.fixture
def config(monkeypatch, tmp_path):
    monkeypatch.setattr(run_check, "estimate", lambda config: MEMORY)
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    config = load_config("cifar10_ddgan")
    config.data.dir = str(tmp_path)
    return config


def lines(config, workdir="", **options):
    options = {"opens_data": False, "report": lambda line: None} | options
    return list(run_check.check_run(config, workdir, **options))


def refused(config, match, **options):
    with pytest.raises(UserError, match=match):
        lines(config, **options)


def test_batch_is_that_of_all_devices(config):
    assert "256 images, 16 on each of 16 devices" in lines(config, devices=16)[1]
    refused(config, "train.batch_size=256 .*24 devices; use", devices=24)
    assert not any("batch " in line for line in lines(config))


def test_memory_of_a_device_and_what_would_fit(config):
    """256 images on 16 devices are 16 at once: 19 GiB, and 11 GiB in two parts."""
    assert "about 19.0 GiB of 24 GiB" in lines(config, devices=16, memory_gib=24)[-1]
    refused(config, "about 19.0 GiB .*microbatches=2 would fit", devices=16, memory_gib=16)
    refused(config, "3.0 GiB for state and gradients", devices=16, memory_gib=16)
    # Four images form a group of the discriminator, and no part may be smaller.
    config.discriminator.stddev_groups = "neighbours"
    refused(config, "microbatches=4 would fit", devices=16, memory_gib=8)
    refused(config, "a smaller model would fit", devices=16, memory_gib=6)
    config.train.microbatches = 4
    assert "about 7.0 GiB of 8 GiB" in lines(config, devices=16, memory_gib=8)[-1]


def test_data_is_opened_where_it_can_be_seen(config, tmp_path, monkeypatch):
    """A set of a missing folder is no mistake of a run for other machines, any other is."""
    assert "not looked at" in lines(config)[-1]
    refused(config, "cifar10 is not prepared", opens_data=True)
    refused(config, "cifar10 is not prepared", opens_data=True, elsewhere=True)
    config.data.dir = str(tmp_path / "none")
    refused(config, "cifar10 is not prepared", opens_data=True)
    assert lines(config, opens_data=True, elsewhere=True)[-1].endswith("is not on this machine")
    config.data.dir = ""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    refused(config, "cifar10 is not prepared", opens_data=True, elsewhere=True)


def test_place_that_no_run_could_read_is_refused_unseen(config):
    config.data.dir = "s3://bucket/sets"
    for options in ({}, {"elsewhere": True}):
        refused(config, "copy or mount s3://bucket/sets", **options)
    config.data.dir = "gs://bucket/sets"
    assert "gs://bucket/sets is a bucket" in lines(config, opens_data=True, elsewhere=True)[-1]
    assert "not looked at" in lines(config)[-1]


def test_set_that_is_there_is_counted(tmp_path):
    config = load_config("digits_ddgan")
    config.data.dir = str(tmp_path)
    assert lines(config, opens_data=True)[-1] == "data     1,797 images, 10 classes"


def test_run_folder_of_another_config_is_refused(config, tmp_path):
    from ddgan_jax.config.run_config import write_config
    from ddgan_jax.files.run_folder import RunFolder

    workdir = str(tmp_path / "run")
    assert "begins in" in lines(config, workdir)[1]
    write_config(RunFolder.at(workdir), config)
    assert "goes on in" in lines(config, workdir)[1]
    changed = load_config("cifar10_ddgan")
    changed.train.batch_size = 8
    refused(changed, "is a run of another config .*train.batch_size", workdir=workdir)
    # Buckets are not looked at: the machine that only launches may have no right to.
    assert len(lines(config, "gs://bucket/run")) == 2


def test_command_takes_the_flags_of_train(capsys, tmp_path):
    argv = ["check", f"--config={config_file('ddgan')}", "--no-data", "--allow-changed-data"]
    assert cli.main([*argv, f"--workdir={tmp_path}"]) == 0
    assert "data     not looked at" in capsys.readouterr().out
    for more, message in (
        ("--config.train.batchsize=3", "did you mean --config.train.batch_size?"),
        ("--alow-changed-data", "did you mean --allow-changed-data?"),
        ("--config.train.batch_size=0", "train.batch_size=0 must be positive"),
    ):
        assert cli.main([*argv, more]) == 2
        output, errors = capsys.readouterr()
        assert (output, errors.count("\n")) == ("", 1) and message in errors
    assert cli.main(["check"]) == 2
    assert "--config is missing" in capsys.readouterr().err
