"""launch/gke_jobset.py: the manifest, what it makes the cluster do, and what kubectl is told."""

import re
import sys

import pytest
import yaml

from tests.launch.fakes import LAUNCH, ODD, Fakes, load

GKE = (sys.executable, str(LAUNCH / "gke_jobset.py"), "--skip-check")
RUN = ("--image=registry/ddgan:1a2b", "--config=configs/x.py:tiny", "--workdir=gs://bucket/run")
CRASHES = [1, 134, 137]


@pytest.fixture
def cluster(tmp_path):
    fakes = Fakes(tmp_path, "kubectl")
    fakes.behave("kubectl", 'if [[ $1 == apply ]]; then cat >"$FAKES/applied"; fi')
    return fakes


@pytest.fixture
def manifest(capsys):
    """What `render` prints for more flags, as Kubernetes reads it."""

    def render(*argv: str) -> dict:
        assert load("gke_jobset").main(["--skip-check", "render", *RUN, *argv]) == 0
        return yaml.safe_load(capsys.readouterr().out)

    return render


def job_of(jobset: dict) -> dict:
    (replicated,) = jobset["spec"]["replicatedJobs"]
    return replicated["template"]["spec"]


def container_of(jobset: dict) -> dict:
    (container,) = job_of(jobset)["template"]["spec"]["containers"]
    return container


# --------------------------------------------------------------------------------- the manifest


@pytest.mark.parametrize(
    ("topology", "hosts", "chips"), [("4x4", 4, 4), ("2x2", 1, 4), ("1x1", 1, 1), ("2x2x4", 4, 4)]
)
def test_one_pod_for_each_host_of_the_slice(manifest, topology, hosts, chips):
    jobset = manifest(f"--topology={topology}", "--tpu=tpu-v6e-slice")
    job, tpu = job_of(jobset), {"google.com/tpu": chips}
    assert (job["parallelism"], job["completions"], job["completionMode"]) == (
        hosts,
        hosts,
        "Indexed",
    )
    assert container_of(jobset)["resources"] == {"requests": tpu, "limits": tpu}
    selector = {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v6e-slice",
        "cloud.google.com/gke-tpu-topology": topology,
    }
    assert job["template"]["spec"]["nodeSelector"] == selector


def test_flags_reach_the_manifest(manifest):
    flags = ("--name=a-1", "--spot", "--service-account=writer", "--max-crashes=7")
    jobset = manifest(*flags)
    pod = job_of(jobset)["template"]["spec"]
    assert jobset["metadata"]["name"] == "a-1" and jobset["spec"]["suspend"] is False
    assert jobset["spec"]["failurePolicy"]["maxRestarts"] == 7
    assert pod["nodeSelector"]["cloud.google.com/gke-spot"] == "true"
    assert (pod["serviceAccountName"], container_of(jobset)["image"]) == ("writer", RUN[0][8:])


def as_kubernetes_expands(argument: str) -> str:
    """$$ is $, and $(NAME) the value of a variable of the container."""
    return re.sub(
        r"\$\$|\$\((\w+)\)", lambda match: "$" if match[0] == "$$" else "changed", argument
    )


def test_odd_overrides_reach_the_program_unchanged(manifest):
    overrides = [f"--config.data.name={text}" for text in ODD]
    container = container_of(manifest(*overrides))
    expanded = [as_kubernetes_expands(argument) for argument in container["args"]]
    assert [*container["command"], *expanded] == ["ddgan", "train", *RUN[1:], *overrides]


def action(jobset: dict, *, exit_code: int, disrupted: bool = False) -> str:
    """What the controllers of Job and JobSet do when a pod ends so, by the manifest's rules."""
    job, policy = job_of(jobset), jobset["spec"]["failurePolicy"]
    assert job["backoffLimit"] == 0 and job["template"]["spec"]["restartPolicy"] == "Never"
    reason, message = "BackoffLimitExceeded", "Job has reached the specified backoff limit"
    for index, rule in enumerate(job["podFailurePolicy"]["rules"]):
        assert rule["action"] == "FailJob"
        if exit_code in rule.get("onExitCodes", {}).get("values", []):
            assert rule["onExitCodes"]["operator"] == "In"
            assert rule["onExitCodes"]["containerName"] == container_of(jobset)["name"]
            ending = f"failed with exit code {exit_code}"
        elif disrupted and {"type": "DisruptionTarget", "status": "True"} in rule.get(
            "onPodConditions", []
        ):
            ending = "has condition DisruptionTarget"
        else:
            continue
        reason = "PodFailurePolicy"
        message = f"Container ddgan for pod x/y {ending} matching FailJob rule at index {index}"
        break
    for rule in policy["rules"]:
        patterns = rule.get("onJobFailureMessagePatterns", [""])
        if reason in rule["onJobFailureReasons"] and any(re.search(p, message) for p in patterns):
            return rule["action"]
    return "RestartJobSet"


def test_rules_follow_the_exit_codes(manifest):
    jobset = manifest()
    assert action(jobset, exit_code=2) == "FailJobSet"
    assert action(jobset, exit_code=75) == "RestartJobSetAndIgnoreMaxRestarts"
    assert action(jobset, exit_code=137, disrupted=True) == "RestartJobSetAndIgnoreMaxRestarts"
    for crash in CRASHES:
        assert action(jobset, exit_code=crash) == "RestartJobSet"


# ------------------------------------------------------------------------------------- kubectl

LABEL = "jobset.sigs.k8s.io/jobset-name=ddgan,batch.kubernetes.io/job-completion-index=2"


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["train", *RUN], "kubectl apply --filename=-"),
        (["status"], "kubectl get jobset/ddgan job/ddgan-worker-0"),
        (["logs", "--worker=2"], f"kubectl logs --follow --tail=100 --selector={LABEL}"),
        (["ssh"], "kubectl exec --stdin --tty job/ddgan-worker-0 -- bash"),
        (["stop"], 'kubectl patch jobset ddgan --type=merge \'--patch={"spec":{"suspend":true}}\''),
        (["delete"], "kubectl delete jobset ddgan"),
    ],
)
def test_verbs(cluster, argv, expected):
    dry = cluster.run(*GKE, *argv, "--dry-run")
    assert (dry.code, cluster.calls()) == (0, [])
    assert dry.lines[0].removesuffix(" <<'EOF'") == expected
    # Run by a shell, what a dry run prints does the same as the launcher.
    assert cluster.run("bash", "-c", dry.output).code == 0
    assert cluster.run(*GKE, *argv).code == 0
    by_hand, by_launcher = cluster.calls()
    assert by_hand == by_launcher
    if argv[0] == "train":
        rendered = cluster.run(*GKE, "render", *RUN).output
        assert (cluster.folder / "applied").read_text() == rendered
        assert dry.output == f"{expected} <<'EOF'\n{rendered}EOF\n"


def test_exit_code_of_kubectl_is_passed_on(cluster):
    cluster.behave("kubectl", "exit 3")
    assert cluster.run(*GKE, "status").code == 3


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "required: VERB"),
        (["submit"], "invalid choice: 'submit'"),
        (["train", *RUN[1:]], "--image is missing"),
        (["train", RUN[0], RUN[2]], "--config is missing"),
        (["train", *RUN[:2], "--workdir=runs/x"], "the workers share no disk"),
        (["train", *RUN, "--topology=4"], "--topology=4 is none"),
        (["train", *RUN, "--name=A"], "--name=A: at most 40"),
        (["train", *RUN, "--chips-per-host=0"], "--chips-per-host=0 must be positive"),
        (["train", *RUN, "--nam=x"], "unknown argument '--nam=x'"),
        (["stop", RUN[1]], "unknown argument '--config=configs/x.py:tiny'"),
    ],
)
def test_mistakes_are_one_line_and_code_2(capsys, argv, message):
    with pytest.raises(SystemExit) as ended:
        load("gke_jobset").main(argv)
    output, errors = capsys.readouterr()
    assert (ended.value.code, output, errors.count("\n")) == (2, "", 1) and message in errors
