"""Train on a TPU slice of a Google Kubernetes Engine cluster, as a JobSet.

Usage: python launch/gke_jobset.py VERB [--flag=value ...]

Verbs:
  render   print the manifest, gke_jobset.yaml filled in
  train    hand it to the cluster, which restarts it until the run is complete
  status   the job set and its pods
  logs     follow the log of a worker
  ssh      a shell on one of the workers
  stop     end the run with a checkpoint; `train` goes on from it
  delete   delete the job set; the run folder in the bucket stays

render and train also take --config=NAME[:ARG], or a path in the image,
--workdir=gs://BUCKET/FOLDER and --config.FIELD=VALUE, and check them first. The
node pool must exist, and bills while it has nodes.

Example:
  python launch/gke_jobset.py train --tpu=tpu-v6e-slice --topology=4x4 --spot \\
      --image=REGION-docker.pkg.dev/PROJECT/REPOSITORY/ddgan:COMMIT \\
      --config=cifar10_ddgan --workdir=gs://my-bucket/cifar10
"""

import argparse
import importlib.util
import json
import math
import re
import shlex
import string
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

USER_ERROR = 2
STANDARD_ERROR = 2
VERBS = ("render", "train", "status", "logs", "ssh", "stop", "delete")
TEMPLATE = Path(__file__).with_suffix(".yaml")
# GiB of a chip's memory, by the label of its nodes.
MEMORY = {
    "tpu-v4-podslice": 32,
    "tpu-v5-lite-podslice": 16,
    "tpu-v5-lite-device": 16,
    "tpu-v5p-slice": 95,
    "tpu-v6e-slice": 32,
}
TRAIN_FLAG = re.compile(r"--(config|workdir|config\.[^=]+)=.*", re.DOTALL)


class Parser(argparse.ArgumentParser):
    """An argparse parser that reports a mistake of the user in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(USER_ERROR, f"{self.prog}: {message}; see --help\n")


def parser() -> Parser:
    """Return the parser of the flags of all verbs."""
    result = Parser(
        prog="gke_jobset.py",
        description=__doc__,
        usage=argparse.SUPPRESS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    result.add_argument("verb", choices=VERBS, metavar="VERB", help=argparse.SUPPRESS)
    add = result.add_argument
    add("--name", default="ddgan", help="of the job set (default ddgan)")
    add("--image", help="container image with `ddgan`, e.g. of launch/Dockerfile")
    add("--tpu", default="tpu-v5-lite-podslice", help="label gke-tpu-accelerator of the nodes")
    add("--topology", default="4x4", help="label gke-tpu-topology of the nodes (default 4x4)")
    add("--chips-per-host", type=int, default=4, metavar="N", help="of its machines (default 4)")
    add("--spot", action="store_true", help="only nodes of a Spot pool")
    add("--service-account", default="default", metavar="NAME", help="may write to the bucket")
    add("--max-crashes", type=int, default=10, metavar="N", help="restarts after crashes, in all")
    add("--worker", type=int, default=0, metavar="N", help="logs: which worker (default 0)")
    add("--skip-check", action="store_true", help="do not check the run with `ddgan check` first")
    add("--dry-run", action="store_true", help="print the command; run nothing")
    return result


def number_of_chips(options: argparse.Namespace) -> int:
    """Return the chips of the slice."""
    return math.prod(int(side) for side in options.topology.split("x"))


def manifest(options: argparse.Namespace, arguments: Sequence[str]) -> str:
    """Return the filled template. arguments: of `ddgan train`, as they were typed.

    Values are inserted as JSON, which is also YAML, so that none of their characters needs care.
    """
    chips = number_of_chips(options)
    selector = {
        "cloud.google.com/gke-tpu-accelerator": options.tpu,
        "cloud.google.com/gke-tpu-topology": options.topology,
    }
    if options.spot:
        selector["cloud.google.com/gke-spot"] = "true"
    # Kubernetes replaces $(NAME) in arguments, and reads $$ as $.
    literal = [argument.replace("$", "$$") for argument in ("train", *arguments)]
    # A slice of fewer chips than a machine has is a single host.
    values = {
        "name": options.name,
        "image": options.image,
        "hosts": max(1, chips // options.chips_per_host),
        "chips": min(chips, options.chips_per_host),
        "max_crashes": options.max_crashes,
        "node_selector": selector,
        "service_account": options.service_account,
        "arguments": literal,
    }
    template = string.Template(TEMPLATE.read_text())
    return template.substitute({name: json.dumps(value) for name, value in values.items()})


def command(options: argparse.Namespace) -> list[str]:
    """Return the kubectl command for a verb."""
    name, worker = options.name, options.worker
    label = f"jobset.sigs.k8s.io/jobset-name={name}"
    pod = f"{label},batch.kubernetes.io/job-completion-index={worker}"
    suspend = '--patch={"spec":{"suspend":true}}'
    return ["kubectl"] + {
        "train": ["apply", "--filename=-"],
        "status": ["get", f"jobset/{name}", f"job/{name}-worker-0"],
        "logs": ["logs", "--follow", "--tail=100", f"--selector={pod}"],
        "ssh": ["exec", "--stdin", "--tty", f"job/{name}-worker-0", "--", "bash"],
        "stop": ["patch", "jobset", name, "--type=merge", suspend],
        "delete": ["delete", "jobset", name],
    }[options.verb]


def check(parsed: Parser, options: argparse.Namespace, arguments: Sequence[str]) -> None:
    """End the program with one line about the first mistake of the user, if there is one."""
    renders = options.verb in ("render", "train")
    for argument in arguments:
        if not renders or not TRAIN_FLAG.fullmatch(argument):
            parsed.error(f"unknown argument {argument!r}; flags are given as --name=value")
    given = {argument.partition("=")[0]: argument.partition("=")[2] for argument in arguments}
    # Names of pods add a suffix of about twenty characters to this, and end at 63.
    if not re.fullmatch(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?", options.name):
        parsed.error(f"--name={options.name}: at most 40 of a-z, 0-9 and hyphens, a letter first")
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*){1,2}", options.topology):
        parsed.error(f"--topology={options.topology} is none, e.g. 4x4 or 2x2x4")
    if options.chips_per_host < 1:
        parsed.error(f"--chips-per-host={options.chips_per_host} must be positive")
    if renders and not options.image:
        parsed.error("--image is missing: a container image with ddgan")
    if renders and not given.get("--config"):
        parsed.error("--config is missing, e.g. --config=cifar10_ddgan")
    if renders and not given.get("--workdir", "").startswith("gs://"):
        parsed.error("--workdir must be gs://BUCKET/FOLDER: the workers share no disk")


def check_run(parsed: Parser, options: argparse.Namespace, arguments: Sequence[str]) -> None:
    """End the program with 2 if `ddgan train` would refuse the run. arguments: its own."""
    if options.skip_check:
        return
    if importlib.util.find_spec("ddgan_jax") is None:
        parsed.error(
            "this Python has no ddgan_jax to check the run with; install it or --skip-check"
        )
    command = [sys.executable, "-m", "ddgan_jax", "check", *arguments, "--no-data"]
    command += [f"--devices={number_of_chips(options)}"]
    command += [f"--memory-gib={MEMORY[options.tpu]}"] if options.tpu in MEMORY else []
    # Standard output is for the manifest.
    if code := subprocess.run(command, stdout=STANDARD_ERROR).returncode:
        sys.exit(code)


def main(argv: Sequence[str]) -> int:
    """Run one verb and return the exit code. argv: without the program's name."""
    parsed = parser()
    options, arguments = parsed.parse_known_args(argv)
    check(parsed, options, arguments)
    text = None
    if options.verb in ("render", "train"):
        check_run(parsed, options, arguments)
        text = manifest(options, arguments)
    if options.verb == "render":
        print(text, end="")
        return 0
    if options.dry_run:
        here_document = f" <<'EOF'\n{text}EOF" if text else ""
        print(shlex.join(command(options)) + here_document)
        return 0
    # kubectl reads the manifest from standard input, so that no file is left behind.
    return subprocess.run(command(options), input=text, text=True).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
