"""launch/slurm.sh and its job, with stand-ins for the commands of Slurm."""

import shlex
import subprocess

import pytest

from tests.launch.fakes import LAUNCH, ODD, Fakes

SLURM = LAUNCH / "slurm.sh"
JOB = LAUNCH / "slurm_job.sh"
TRAIN = ("train", "--config=c.py:tiny", "--workdir=runs/x")
SBATCH = (
    "sbatch --job-name=ddgan --nodes=1 --ntasks-per-node=8 --gres=gpu:8 --cpus-per-task=8 "
    "--time=24:00:00 "
    "--signal=TERM@300 --requeue --open-mode=append --output=ddgan.log"
)


@pytest.fixture
def cluster(tmp_path):
    fakes = Fakes(
        tmp_path,
        *("sbatch", "srun", "scontrol", "squeue", "scancel", "touch", "rm", "tail"),
        "ddgan",
    )
    (tmp_path / "c.py").write_text("")
    fakes.behave("touch", 'command -p touch "$@"')
    fakes.behave("rm", 'command -p rm "$@"')
    fakes.behave("tail", 'if [[ $* != *-F* ]]; then command -p tail "$@"; fi')
    return fakes


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (
            TRAIN,
            [
                "rm -f {here}/ddgan.stop",
                f"{SBATCH} {JOB} {LAUNCH} {{here}}/ddgan.stop 3 runs/x --config=c.py:tiny",
            ],
        ),
        (
            [
                *TRAIN,
                "--name=a",
                "--nodes=4",
                "--gpus-per-node=2",
                "--cpus-per-task=5",
                "--time=1:0:0",
            ]
            + [
                "--save-seconds=60",
                "--sbatch-flag=--account=x y",
                "--max-crashes=5",
                "--seeds=0-3",
            ],
            [
                "rm -f {here}/a.stop",
                "sbatch --job-name=a --nodes=4 --ntasks-per-node=2 "
                "--gres=gpu:2 --cpus-per-task=5 --time=1:0:0 --signal=TERM@60 --requeue "
                f"--open-mode=append --output=a.%a.log --array=0-3 --account=x\\ y {JOB} {LAUNCH} "
                "{here}/a.stop 5 runs/x --config=c.py:tiny",
            ],
        ),
        (["status"], ["squeue --me --name=ddgan"]),
        (["logs"], ["tail -n 100 -F ddgan.log"]),
        (["stop"], ["touch {here}/ddgan.stop", "scancel --me --name=ddgan --signal=TERM"]),
        (["delete"], ["scancel --me --name=ddgan"]),
    ],
)
def test_verbs(cluster, argv, expected):
    (cluster.folder / "ddgan.log").write_text("")
    expected = [line.format(here=cluster.folder) for line in expected]
    dry = cluster.run(SLURM, *argv, "--dry-run")
    assert (dry.code, cluster.calls()) == (0, [])
    assert dry.lines == expected + (JOB.read_text().splitlines() if argv[0] == "train" else [])
    ended = cluster.run(SLURM, *argv)
    assert ended.code == 0, ended.errors
    assert cluster.calls() == expected


# ------------------------------------------------------------------------------------- the job


def turn(cluster, srun: str, *arguments: str, workdir="runs/x", crashes="2", **variables):
    """What one turn of job 7 does; srun: bash source of the stand-in."""
    cluster.behave("srun", srun)
    stop = cluster.folder / "ddgan.stop"
    variables = {"SLURM_JOB_ID": "7", **variables}
    return cluster.run(JOB, LAUNCH, stop, crashes, workdir, *arguments, **variables)


SAVE = 'mkdir -p runs/x/checkpoints; mkdir "runs/x/checkpoints/$(ls runs/x/checkpoints | wc -l)";'


@pytest.mark.parametrize(
    ("srun", "codes", "requeued"),
    [
        ("exit 0", [0], 0),
        ("exit 2", [2], 0),
        ("exit 130", [130], 0),
        (f"{SAVE} exit 75", [0, 0, 0], 3),
        (f"{SAVE} exit 137", [0, 0, 0], 3),
        ("exit 137", [0, 137], 1),
        ("exit 75", [0, 0, 0], 3),  # another holds the run folder, or a peer did not come
        # The 2 of one process, behind the 75 of its peers.
        ("echo 'srun: error: n1: task 3: Exited with exit code 2' >&2; exit 75", [2], 0),
        ("echo 'srun: error: n1: task 3: Exited with exit code 75' >&2; exit 75", [0], 1),
    ],
)
def test_exit_codes_decide_whether_a_turn_follows(cluster, srun, codes, requeued):
    assert [turn(cluster, srun).code for _ in codes] == codes
    assert cluster.calls("scontrol") == ["scontrol requeue 7"] * requeued
    assert not (codes[-1] and list(cluster.folder.glob("*.crashes")))


def test_progress_forgives_earlier_crashes(cluster):
    codes = [
        turn(cluster, script).code for script in ("exit 1", f"{SAVE} exit 1", "exit 1", "exit 1")
    ]
    assert codes == [0, 0, 0, 1]


def test_checkpoints_in_a_bucket_cannot_be_counted(cluster):
    workdir = "gs://bucket/run"
    assert [turn(cluster, "exit 75", workdir=workdir).code for _ in range(3)] == [0, 0, 0]
    assert [turn(cluster, "exit 1", workdir=workdir).code for _ in range(2)] == [0, 1]


def test_stop_ends_the_turns(cluster):
    stop = f"{shlex.quote(str(SLURM))} stop; exit 75"
    assert turn(cluster, stop).code == 75
    assert cluster.calls("scontrol") == []
    # Nor does one begin that was still waiting; a new `train` does.
    srun = len(cluster.calls("srun"))
    assert turn(cluster, "exit 0").code == 0 and len(cluster.calls("srun")) == srun
    assert cluster.run(SLURM, *TRAIN).code == 0
    assert turn(cluster, "exit 0").code == 0 and len(cluster.calls("srun")) == srun + 1


# Counts its signals and ends a moment after the first, but not before the job's shell had some.
STEP = """
trap 'echo TERM >>"$FAKES/signals"' TERM
echo "progress" >&2
kill -s {name} "$PPID"
for _ in {{1..50}}; do [[ -e $FAKES/signals ]] || command -p sleep 0.02; done
echo "saved" >&2
exit 75
"""


@pytest.mark.parametrize("name", ["TERM", "USR1", "HUP"])
def test_signalled_job_still_judges_its_step(cluster, name):
    """TERM reaches the processes from Slurm, what is for the shell alone from the shell: once."""
    cluster.behave("scancel", 'kill -s "${1#--signal=}" "$(<"$FAKES/step")"')
    ended = turn(cluster, 'echo $$ >"$FAKES/step"\n' + STEP.format(name=name))
    assert ended.code == 0 and ended.errors.startswith("progress\nsaved\n")
    assert cluster.calls("scontrol") == ["scontrol requeue 7"]
    assert cluster.calls("scancel") == ["scancel --signal=TERM 7"] * (name != "TERM")
    signals = cluster.folder / "signals"
    assert (signals.read_text() if signals.exists() else "") == "TERM\n" * (name != "TERM")


def test_odd_overrides_reach_the_program_unchanged(cluster):
    """Through sbatch, which hands its arguments to the job, and srun."""
    cluster.behave("sbatch", 'while [[ $1 == --* ]]; do shift; done; SLURM_JOB_ID=7 bash "$@"')
    cluster.behave("srun", 'while [[ $1 == --* ]]; do shift; done; "$@"')
    cluster.behave("ddgan", 'printf "%s\\0" "$@" >"$FAKES/received"')
    overrides = [f"--config.data.name={text}" for text in ODD]
    ended = cluster.run(SLURM, *TRAIN, *overrides, "--", "--step=1")
    assert ended.code == 0, ended.errors
    received = (cluster.folder / "received").read_text().split("\0")[:-1]
    assert received == ["train", "--config=c.py:tiny", *overrides, "--step=1", "--workdir=runs/x"]


def test_array_gives_each_seed_a_run_of_its_own(cluster):
    variables = {"SLURM_ARRAY_TASK_ID": "3", "SLURM_CPUS_PER_TASK": "12"}
    turn(cluster, 'echo "$SRUN_CPUS_PER_TASK" >"$FAKES/cpus"', "--config=c.py", **variables)
    (call,) = cluster.calls("srun")
    assert call.endswith("ddgan train --config=c.py --config.train.seed=3 --workdir=runs/x/seed_3")
    assert (cluster.folder / "cpus").read_text() == "12\n"


# ---------------------------------------------------------------------------- mistakes of the user


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "no verb"),
        (["submit"], "unknown verb 'submit'"),
        (["train", "--workdir=runs/x"], "--config is missing"),
        (["train", "--config=c.py"], "--workdir is missing"),
        ([*TRAIN, "--nodes=0"], "--nodes=0 is not a whole number above 0"),
        ([*TRAIN, "--partition=gpu"], "unknown argument '--partition=gpu'"),
        ([*TRAIN, "--name=a b"], "--name=a b: use letters"),
        (["stop", "--config=c.py"], "stop takes no '--config=c.py'"),
    ],
)
def test_mistakes_are_one_line_and_code_2(cluster, argv, message):
    ended = cluster.run(SLURM, *argv)
    assert (ended.code, ended.output, cluster.calls()) == (2, "", [])
    assert ended.errors.count("\n") == 1 and message in ended.errors


def test_missing_program_is_told_before_the_queue(cluster):
    (cluster.folder / "bin" / "ddgan").unlink()
    ended = cluster.run(SLURM, *TRAIN, PATH=f"{cluster.folder / 'bin'}:/usr/bin:/bin")
    assert ended.code == 2 and "no ddgan on PATH" in ended.errors
    assert cluster.calls("sbatch") == []
    assert subprocess.run(["bash", "-n", JOB]).returncode == 0


def test_stop_without_slurm_leaves_nothing_behind(cluster):
    """The file that keeps a job from the queue would keep the next one, too."""
    (cluster.folder / "bin" / "scancel").unlink()
    ended = cluster.run(SLURM, "stop", PATH=f"{cluster.folder / 'bin'}:/usr/bin:/bin")
    assert ended.code == 2 and "no scancel on PATH" in ended.errors
    assert cluster.calls() == [] and not list(cluster.folder.glob("*.stop"))


def test_run_goes_on_without_a_config(cluster):
    (cluster.folder / "runs" / "x").mkdir(parents=True)
    (cluster.folder / "runs" / "x" / "config.json").write_text("{}")
    assert cluster.run(SLURM, "train", "--workdir=runs/x").code == 0
    assert cluster.calls("sbatch")[0].endswith(" 3 runs/x")
