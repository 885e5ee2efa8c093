"""launch/tpu_pod.sh and tpu_worker.sh against a stand-in cloud of two workers.

The cloud is tests/launch/gcloud.sh: ssh really runs the commands, in a home folder for each worker.
"""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.launch.fakes import LAUNCH, ODD, SCRIPTS, Ended, Fakes, wait_for

ZONE = "--zone=us-central1-a"
WORKDIR = "--workdir=gs://bucket/run"
TRAIN = ("train", ZONE, "--config=configs/x.py:tiny", WORKDIR)

# Time passes in `sleep`: it lasts until the runs on all workers have ended or hang.
SLEEP = """
for lock in "$FAKES"/cloud/worker*/ddgan/run/lock; do
    worker=${lock%/ddgan/run/lock}
    until [[ ! -e $lock || -e $FAKES/${worker##*/}.hangs ]] || flock --nonblock "$lock" true; do
        command -p sleep 0.05
    done
done
"""
PROCESSES = '$(cat "$FAKES"/cloud/worker*/ddgan/run/pid)'
END = f'kill -TERM {PROCESSES}; rm "$FAKES"/*.hangs'
KILL = f'kill -KILL {PROCESSES}; rm "$FAKES"/*.hangs'
SUSPEND = 'echo SUSPENDED >"$FAKES/cloud/request"; rm "$FAKES/cloud/node"'
PREEMPT = 'echo PREEMPTED >"$FAKES/cloud/node"'  # the queued resource does not know yet


class Pod(Fakes):
    """The stand-in cloud, and a repository whose scripts and config are committed."""

    def __init__(self, folder: Path, repository: Path) -> None:
        super().__init__(folder, "gcloud", "git", "sleep", "ddgan")
        (folder / "worker").mkdir()
        shutil.copy(SCRIPTS / "worker_uv.sh", folder / "worker" / "uv")
        shutil.copy(SCRIPTS / "worker_ddgan.sh", folder / "worker" / "ddgan")
        shutil.copy(SCRIPTS / "gcloud.sh", folder)
        self.behave("git", f'{shutil.which("git")} "$@"')
        self.behave("sleep", SLEEP)
        self.plan("0 0 0")
        self.repository = folder / "repository"
        shutil.copytree(repository, self.repository)
        self.commit = git(self.repository, "rev-parse", "HEAD")

    def __call__(self, *argv: str) -> Ended:
        return self.run(self.repository / "launch" / "tpu_pod.sh", *argv)

    def plan(self, words: str) -> None:
        """How the runs on every worker end, in turn: see worker_ddgan.sh."""
        (self.folder / "plan").write_text(words + "\n")

    def when_hanging(self, script: str) -> None:
        """What happens during a `sleep` in which the runs hang."""
        self.behave("sleep", f"{SLEEP}if [[ -e $FAKES/worker1.hangs ]]; then\n{script}\nfi\n")

    def make(self) -> None:
        """A pod that is set up, and has forgotten how."""
        assert self("setup", ZONE).code == 0
        (self.folder / "calls").unlink()

    def received(self, worker: int = 0) -> list[str]:
        """The arguments of the last run on a worker."""
        return (self.folder / f"worker{worker}.arguments").read_text().split("\0")[:-1]

    def marker(self) -> str:
        """The content of the file `marker` in the code that ran last."""
        return (self.folder / "worker0.marker").read_text()

    def runs(self) -> int:
        file = self.folder / "worker0.runs"
        return len(file.read_text().splitlines()) if file.exists() else 0

    def story(self) -> list[str]:
        """The calls in short."""
        words = ("create", "delete", "setup", "start", "poll")
        calls = [call.replace("\\", "") for call in self.calls("gcloud")]
        return [word for call in calls for word in words if f" {word}" in call]


def git(repository: Path, *argv: str) -> str:
    author = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    command = ("git", "-C", repository, *author, *argv)
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tpu_pod") / "repository"
    shutil.copytree(LAUNCH, folder / "launch", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "configs").mkdir()
    (folder / "configs" / "x.py").write_text("")
    (folder / "marker").write_text("first")
    git(folder, "init", "--quiet", "--template=")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message=first")
    return folder


@pytest.fixture
def pod(tmp_path, repository):
    return Pod(tmp_path, repository)


@pytest.fixture(scope="module")
def untouched(tmp_path_factory, repository):
    """For tests after which everything must be as before."""
    return Pod(tmp_path_factory.mktemp("untouched"), repository)


# ------------------------------------------------------------------- dry runs, and what is run


def bash_quoted(text: str) -> str:
    """As bash's printf %q writes it, which is not how shlex does."""
    command = ["bash", "-c", 'printf %q "$1"', "bash", text]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def ssh(command: str, worker: str = "all") -> str:
    ssh = f"gcloud compute tpus tpu-vm ssh ddgan {ZONE} --worker={worker}"
    return f"{ssh} --command={bash_quoted(command)}"


ON_WORKER = "bash ddgan/current/launch/tpu_worker.sh"
FILTER = "--filter=name~/ddgan\\$"
STATE = f"gcloud compute tpus queued-resources list {ZONE} {FILTER} --format=value\\(state.state\\)"
NODE = f"gcloud compute tpus tpu-vm list {ZONE} {FILTER} --format=value\\(state\\)"
CREATE = (
    f"gcloud compute tpus queued-resources create ddgan --node-id=ddgan {ZONE} "
    "--accelerator-type=v5litepod-16 --runtime-version=v2-alpha-tpuv5-lite --quiet"
)
DELETE = f"gcloud compute tpus queued-resources delete ddgan {ZONE} --force --quiet"


def setup(pod: Pod, prepare: str = "''") -> list[str]:
    archive = f"ddgan-{pod.commit}.tar.gz"
    return [
        f"git -C {pod.repository} archive --format=tar.gz --output={pod.folder}/{archive} "
        f"{pod.commit}",
        f"gcloud compute tpus tpu-vm scp {pod.folder}/{archive} ddgan:{archive} {ZONE} "
        "--worker=all",
        ssh(
            f"mkdir -p ddgan/{pod.commit} && tar -xzf {archive} -C ddgan/{pod.commit} && "
            f"bash ddgan/{pod.commit}/launch/tpu_worker.sh setup {prepare}"
        ),
    ]


def test_train_from_nothing(pod):
    start = ssh(f"{ON_WORKER} start train --config=configs/x.py:tiny {WORKDIR}")
    poll = ssh(f"{ON_WORKER} poll")
    made = [STATE, CREATE, "sleep 60", STATE, NODE, *setup(pod)]
    expected = [*made, start, "sleep 60", poll, DELETE]
    dry = pod(*TRAIN, "--delete-after", "--dry-run")
    assert (dry.code, dry.lines, pod.calls()) == (0, expected, [])
    ended = pod(*TRAIN, "--delete-after")
    assert ended.code == 0 and "the run is complete" in ended.errors
    assert pod.calls() == expected


def test_verbs_on_a_pod(pod):
    pod.make()
    for argv, expected in (
        (["status"], [STATE, NODE, ssh(f"{ON_WORKER} poll")]),
        (["stop"], [ssh(f"{ON_WORKER} stop")]),
        (["ssh"], [ssh("", "0").removesuffix(" --command=''")]),
        (["ssh", "--worker=all", "--", "echo", "a b"], [ssh("echo a\\ b")]),
        (["delete"], [DELETE]),
        (["logs", "--worker=1"], [ssh("tail -n 100 -F ddgan/run/log", "1")]),
    ):
        dry = pod(argv[0], "--dry-run", ZONE, *argv[1:])
        assert (dry.code, dry.lines, pod.calls()) == (0, expected, [])
        if argv[0] == "logs":  # which would follow for ever
            pod.behave("gcloud", "")
        assert pod(argv[0], ZONE, *argv[1:]).code == 0
        assert pod.calls() == expected
        (pod.folder / "calls").unlink()


def test_create_and_setup(pod):
    flags = (ZONE, "--name=a-1", "--spot", "--create-flag=--labels=a=b c")
    create = CREATE.replace(" ddgan", " a-1").replace("=ddgan", "=a-1") + " --spot --labels=a=b\\ c"
    assert pod("create", *flags, "--dry-run").lines == [create]
    assert pod("create", *flags).code == 0
    assert pod.calls() == [create]
    (pod.folder / "calls").unlink()
    prepare = "echo 'a  b' >~/prepared"
    expected = [STATE, NODE, *setup(pod, bash_quoted(prepare))]
    dry = pod("setup", ZONE, f"--prepare={prepare}", "--dry-run").lines
    assert dry == [STATE, CREATE, "sleep 60", *expected]
    assert pod("setup", ZONE, f"--prepare={prepare}").code == 0
    assert pod.calls() == expected
    for worker in ("worker0", "worker1"):
        assert (pod.folder / "cloud" / worker / "prepared").read_text() == "a  b\n"


@pytest.mark.parametrize(
    ("accelerator", "runtime"),
    [
        ("v6e-16", "v2-alpha-tpuv6e"),
        ("v5p-8", "v2-alpha-tpuv5"),
        ("v5litepod-4", "v2-alpha-tpuv5-lite"),
        ("v4-8", "tpu-ubuntu2204-base"),
    ],
)
def test_runtime_follows_from_the_type(untouched, accelerator, runtime):
    dry = untouched("create", ZONE, f"--type={accelerator}", "--reserved", "--dry-run")
    assert f" --accelerator-type={accelerator} --runtime-version={runtime} " in dry.output
    assert dry.output.endswith(" --reserved\n")


def test_odd_overrides_reach_the_program_unchanged(pod):
    overrides = [f"--config.data.name={text}" for text in ODD]
    assert pod(*TRAIN, *overrides, "--", "--step=1").code == 0
    assert pod.received(1) == ["train", *TRAIN[2:], *overrides, "--step=1"]


def test_workers_get_a_commit_and_not_the_changes(pod):
    (pod.repository / "marker").write_text("second")
    refused = pod(*TRAIN)
    assert refused.code == 2 and "uncommitted changes" in refused.errors and not pod.calls()
    ended = pod(*TRAIN, "--allow-dirty")
    assert ended.code == 0 and " M marker" in ended.errors and "without them" in ended.errors
    assert pod.marker() == "first"
    # A commit that is named is taken whatever the tree looks like.
    git(pod.repository, "commit", "--quiet", "--all", "--message=second")
    (pod.repository / "marker").write_text("third")
    assert pod(*TRAIN, "--commit=HEAD").code == 0
    assert pod.marker() == "second"


# --------------------------------------------------------------------------------- what follows


@pytest.mark.parametrize("preempt", [SUSPEND, PREEMPT])
def test_preemption_leads_to_a_new_pod_and_resume(pod, preempt):
    pod.plan("hang hang 0")
    pod.when_hanging(f"{preempt}; {KILL}")
    ended = pod(*TRAIN, "--max-crashes=1")
    assert ended.code == 0 and ended.errors.count("preempted") == 2
    once = ["create", "setup", "start", "poll"]
    assert pod.story() == [*once, "delete", *once, "delete", *once]
    assert pod.runs() == 3
    starts = [call for call in pod.calls() if "\\ start\\ " in call]
    assert len(starts) == 3 and len(set(starts)) == 1


def test_new_pod_gets_the_commit_of_the_first(pod):
    """Although the repository has moved on while the run went on."""
    pod.plan("hang 0")
    author = "-c user.name=t -c user.email=t@example.org"
    moved_on = f'git -C "$FAKES/repository" {author} commit --quiet --all --message=second'
    pod.when_hanging(f"{moved_on}; {SUSPEND}; {KILL}")
    (pod.repository / "marker").write_text("second")
    assert pod(*TRAIN, "--allow-dirty").code == 0
    assert git(pod.repository, "rev-parse", "HEAD") != pod.commit
    assert (pod.runs(), pod.marker()) == (2, "first")


def test_preemption_during_setup(pod):
    first_copy = f"""
if [[ $* == *' scp '* && ! -e $FAKES/once ]]; then
    touch "$FAKES/once"
    {PREEMPT}
    exit 1
fi
"""
    pod.behave("gcloud", first_copy + (SCRIPTS / "gcloud.sh").read_text())
    assert pod(*TRAIN, "--max-crashes=1").code == 0
    assert pod.story() == ["create", "delete", "create", "setup", "start", "poll"]


def test_request_that_fails_is_not_repeated_for_ever(pod):
    failing = (SCRIPTS / "gcloud.sh").read_text().replace("echo ACTIVE", "echo FAILED")
    pod.behave("gcloud", failing)
    ended = pod(*TRAIN, "--max-crashes=2")
    assert ended.code == 1 and "gave up" in ended.errors
    assert pod.story() == ["create", "delete"] * 2


@pytest.mark.parametrize(
    ("plan", "code", "runs"),
    [
        ("75 75 0", 0, 3),  # "run me again" may be said for ever
        ("2 0", 2, 1),
        ("130 0", 75, 1),
        ("134 137 0", 1, 2),
        ("1 1+saved 1 0", 1, 3),  # progress forgives the first
    ],
)
def test_exit_codes_decide(pod, plan, code, runs):
    pod.plan(plan)
    ended = pod(*TRAIN, "--max-crashes=2")
    assert (ended.code, pod.runs()) == (code, runs), ended.errors
    assert "delete" not in pod.story()
    assert f"the pod still bills; end that with: {pod.repository}/launch/tpu_pod.sh delete" in (
        ended.errors
    )


@pytest.mark.parametrize(
    ("words", "outcome"),
    [
        ("0 0", "complete"),
        ("0 running", "running"),
        ("2 running", "running"),  # its peers must end first
        ("75 2", "mistake"),
        ("75 137", "crashed"),
        ("75 none", "crashed"),
        ("0 75", "again"),
        ("75 stopped", "stopped"),
        ("", "silent"),
    ],
)
def test_the_worst_worker_decides(words, outcome):
    script = (LAUNCH / "tpu_pod.sh").read_text()
    judge = script[script.index("judge() {") : script.index("watch_run() {")]
    said = "\n".join(["Welcome to Ubuntu", *(f"run: {word}" for word in words.split())])
    command = ["bash", "-euc", f'{judge}\njudge "$1"', "bash", said]
    assert subprocess.run(command, capture_output=True, text=True).stdout == f"{outcome}\n"


def test_stop_saves_and_is_not_undone(pod):
    pod.plan("hang 0")
    # The next run does not hang, and must not be stopped as well.
    stop = f'"$FAKES/repository/launch/tpu_pod.sh" stop {ZONE}'
    pod.when_hanging(f'{stop}\nrm "$FAKES"/*.hangs')
    ended = pod(*TRAIN, "--delete-after")
    assert (ended.code, pod.runs()) == (75, 1) and "was stopped" in ended.errors
    assert "delete" not in pod.story()
    assert pod("status", ZONE).lines == ["pod: ready", "run: stopped", "run: stopped"]
    assert (pod(*TRAIN).code, pod.runs()) == (0, 2)


def test_watching_again_does_not_start_again(pod):
    pod.plan("hang 0")
    pod.when_hanging('kill -INT "$PPID"; exit 130')  # Ctrl-C in the launcher's terminal
    ended = pod(*TRAIN)
    assert ended.code == 130 and "the run goes on" in ended.errors
    # Nothing is installed where the run reads it, or this preparation would fail.
    refused = pod(*TRAIN, "--prepare=exit 1", "--config.train.seed=1")
    assert refused.code == 2 and "another run is going on: ddgan train" in refused.errors
    assert pod.runs() == 1
    pod.when_hanging(END)
    assert (pod(*TRAIN).code, pod.runs()) == (0, 2)


def test_lost_connection_is_not_a_lost_pod(pod):
    pod.plan("hang 0")
    lost = 'touch "$FAKES/once" "$FAKES/cloud/unreachable"'
    pod.when_hanging(f"if [[ -e $FAKES/once ]]; then {END}; else {lost}; fi")
    ended = pod(*TRAIN)
    assert ended.code == 0 and "do not answer" in ended.errors
    assert pod.runs() == 2 and pod.story().count("create") == 1 and "delete" not in pod.story()


def test_worker_that_lost_its_processes_says_so(pod):
    """As after a reboot: there is no exit code, and nobody holds the lock."""
    pod.make()
    pod.plan("hang")
    assert pod("ssh", ZONE, "--", "bash", "-c", f"{ON_WORKER} start train").code == 0
    wait_for((pod.folder / "worker0.hangs").exists)
    assert pod("status", ZONE).lines[1:] == ["run: running", "run: none"]
    program = int((pod.folder / "cloud" / "worker0" / "ddgan" / "run" / "pid").read_text())
    keeper = int(subprocess.check_output(["ps", "-o", "ppid=", "-p", str(program)]))
    for process in (keeper, program):
        os.kill(process, signal.SIGKILL)
    wait_for(lambda: pod("status", ZONE).lines[1:] == ["run: none", "run: none"])


# ---------------------------------------------------------------------------- mistakes of the user


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "no verb"),
        (["launch"], "unknown verb 'launch'"),
        (["create"], "--zone is missing"),
        (["create", ZONE, "--type=v9-16"], "--type=v9-16: add --runtime"),
        (["create", ZONE, "--name=A b"], "--name=A b"),
        (["create", "--zone", "x"], "unknown argument '--zone'; flags are given as --name=value"),
        (["create", ZONE, "--config=configs/x.py"], "create takes no '--config"),
        ([*TRAIN, "--poll=soon"], "--poll=soon is not a whole number"),
        ([*TRAIN, "--spto"], "unknown argument '--spto'"),
        ([*TRAIN[:-1], "--workdir=runs/x"], "the workers share no disk"),
        ([*TRAIN[:-1]], "the workers share no disk"),
        (["train", ZONE, WORKDIR], "--config is missing"),
        ([*TRAIN, "--config=configs/y.py"], "has no file configs/y.py"),
        ([*TRAIN, "--commit=nowhere"], "--commit=nowhere names no commit"),
    ],
)
def test_mistakes_are_one_line_and_code_2(untouched, argv, message):
    ended = untouched(*argv)
    assert (ended.code, ended.output, untouched.calls()) == (2, "", [])
    assert ended.errors.count("\n") == 1 and message in ended.errors
