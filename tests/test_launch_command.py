"""`ddgan launch`, which finds the launchers, and completion in a real shell."""

import subprocess
import sys

import pytest

from ddgan_jax import cli
from ddgan_jax.cli import completion, launchers, program
from ddgan_jax.config.files import shipped_configs
from tests.launch.fakes import LAUNCH

pytestmark = pytest.mark.quick


@pytest.fixture
def replaced(monkeypatch):
    """What the process would be replaced by."""
    calls = []
    monkeypatch.setattr(launchers.os, "execv", lambda program, argv: calls.append(argv))
    return calls


def test_every_launcher_is_listed(capsys):
    assert cli.main(["launch"]) == 0
    output = capsys.readouterr().out
    for name, (file, words) in launchers.LAUNCHERS.items():
        assert (launchers.FOLDER / file).samefile(LAUNCH / file)
        assert f"  {name} " in output and words in output


@pytest.mark.parametrize("typed", ["slurm", "slurm.sh", "gke_jobset", "gke-jobset", "local_pod.py"])
def test_launcher_gets_its_arguments_as_they_are(typed, replaced):
    arguments = ["train", "--help", "--config.data.name=a b", "--", "-x"]
    assert cli.main(["launch", typed, *arguments]) == 0
    [(interpreter, script, *rest)] = replaced
    assert rest == arguments and script.startswith(str(LAUNCH))
    assert (interpreter == sys.executable) == script.endswith(".py")


def test_exit_code_is_that_of_the_launcher():
    command = [sys.executable, "-m", "ddgan_jax", "launch", "slurm", "submit"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("slurm.sh: unknown verb 'submit'")


def test_unknown_launcher_is_a_mistake(capsys, replaced):
    assert cli.main(["launch", "slrm"]) == 2
    assert capsys.readouterr().err == "ddgan launch: no launcher 'slrm'; did you mean slurm?\n"
    assert replaced == []


# -------------------------------------------------------------------------------- completion


def completed(line: str) -> list[str]:
    """What bash offers at the end of a line."""
    script = 'source /dev/stdin <<<"$1"; COMP_LINE=$2 COMP_POINT=${#2}; _ddgan 2>/dev/null; '
    script += 'printf "%s\\n" "${COMPREPLY[@]}"'
    command = ["bash", "-c", script, "bash", completion.SHELLS["bash"](), line]
    ended = subprocess.run(command, check=True, capture_output=True, text=True)
    return ended.stdout.split()


FIRST_WORDS = [*dict.fromkeys(name.split()[0] for name in program.COMMANDS), "help"]


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("ddgan ", FIRST_WORDS),
        ("ddgan tra", ["train"]),
        ("ddgan figure den", ["denoising"]),
        ("ddgan figure denoising --wo", ["--workdir="]),
        ("ddgan train --allow", ["--allow-changed-data"]),
        ("ddgan train --config=", list(shipped_configs())),
        ("ddgan show --json --config=stacked_mn", ["stacked_mnist_ddgan"]),
        ("ddgan train --config=x --config.train.batch", ["--config.train.batch_size="]),
        ("ddgan train --config.generator.head", ["--config.generator.head_channels="]),
        ("ddgan sample --workdir=ru", []),
        ("ddgan launch sl", ["slurm"]),
        ("ddgan completion ", list(completion.SHELLS)),
        ("ddgan help fig", ["figure"]),
        ("ddgan nothing ", []),
        ("ddgan sample --workdir='my runs' --exp", ["--export="]),
        ('ddgan "figure" --x ', []),
        ('ddgan sample --workdir="my ', []),
        ("ddgan sample --workdir='my --se", []),
        ("ddgan sample --workdir=my\\ --se", []),
        ('ddgan sample --workdir="my \\" --se', []),
        ('ddgan sample --workdir="my \\', []),
        ("ddgan sample --workdir=my\\", []),
    ],
)
def test_bash_completes(line, offered):
    assert completed(line) == offered


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_scripts_name_every_flag(shell, capsys):
    assert cli.main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for name, command in program.COMMANDS.items():
        for flag in command.flags:
            assert flag.spelling.removeprefix("--") in script, (name, flag)
    assert all(name in script for name in (*FIRST_WORDS, *shipped_configs()))
    if shell == "bash":
        assert subprocess.run(["bash", "-n"], input=script, text=True).returncode == 0


@pytest.mark.parametrize(
    ("argv", "message"), [([], "no shell; name one of bash, zsh, fish"), (["bsh"], "mean bash?")]
)
def test_other_shells_are_mistakes(argv, message, capsys):
    assert cli.main(["completion", *argv]) == 2
    assert message in capsys.readouterr().err
