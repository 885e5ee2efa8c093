"""Attack one small run with faults: what is lost, and whether it ends with the same bits.

    python -m benchmarks.faults --kills=50 --out=results

An undisturbed run comes first. Then the same command is killed (kill -9) at random instants, over
start-up, data preparation, steps and saves, and started again until it is complete, as often as it
takes for --kills. Last, every file of the newest checkpoint is truncated, altered and deleted in
each alone, and the run is continued. A run is exact if the checksums of all arrays of its final
checkpoint are those of the undisturbed one. Prints JSON, and writes it to OUT/faults.json.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from benchmarks import command
from ddgan_jax.checkpoint import list_steps
from ddgan_jax.cli.arguments import Flag, parse_flags
from ddgan_jax.files.atomic import write_atomically

NUM_STEPS = 400
FLAGS = (
    Flag("config", "FILE[:ARGUMENT]", "what is trained", "configs/mog25.py:siddm_reduced"),
    Flag("kills", "N", "at random instants", 50, "integer"),
    Flag("seed", "N", "of the instants", 0, "integer"),
    Flag("out", "FOLDER", "where faults.json goes", "results"),
)
# Saves every few steps, so that many kills hit one.
SETTINGS = {
    "train.num_steps": NUM_STEPS,
    "train.batch_size": 64,
    "checkpoint.save_every_steps": 5,
    "checkpoint.keep_latest": 3,
    "log.every_steps": 5,
    "log.samples_every_steps": 100,
    "log.num_samples": 16,
    "sampling.chunk_size": 16,
}
DAMAGES = {
    "truncated": lambda file: os.truncate(file, file.stat().st_size // 2),
    "byte changed": lambda file: _change_byte(file),
    "deleted": lambda file: file.unlink(),
}


def _change_byte(file: Path) -> None:
    content = bytearray(file.read_bytes())
    if content:
        # A byte in the middle changes whatever the file holds, and its length stays.
        content[len(content) // 2] ^= 0x55
        file.write_bytes(content)


def start(config: str, workdir: Path) -> subprocess.Popen:
    """Start the run, with a folder of data of its own: kills also hit the preparation of data."""
    settings = SETTINGS | {"data.dir": workdir.with_name("data_of_" + workdir.name)}
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "ddgan_jax", "train", f"--config={config}"),
            *(f"--config.{name}={value}" for name, value in settings.items()),
            f"--workdir={workdir}",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def complete(config: str, workdir: Path) -> str:
    """Run to the end and return the output. Raises RuntimeError for an exit code other than 0."""
    process = start(config, workdir)
    output = process.communicate()[0]
    if process.returncode:
        raise RuntimeError(f"exit code {process.returncode}: {output[-2000:]}")
    return output


def final_arrays(workdir: Path) -> dict:
    """Return the checksums of all arrays of the final checkpoint."""
    manifest = workdir / "checkpoints" / str(NUM_STEPS) / "manifest" / "metadata"
    content = json.loads(manifest.read_text())["content"]
    return content["state"] | content["ema"]


def kill_at_random(config: str, folder: Path, kills: int, seed: int, expected: dict) -> dict:
    """Kill runs at random instants, `kills` times in all, and continue each to its end."""
    # A seeded generator: the same instants come again with the same --seed.
    instants, phases, runs, exact, lost = random.Random(seed), Counter(), 0, 0, 0
    # Seconds of a whole run, measured by the runs themselves.
    seconds = 20.0
    done = 0
    while done < kills:
        workdir, newest = folder / f"killed{runs}", 0
        runs += 1
        while True:
            process, began = start(config, workdir), time.monotonic()
            # Saves that the kill before has interrupted.
            left = _unfinished(workdir)
            try:
                process.communicate(timeout=instants.uniform(0.2, seconds))
                seconds = max(time.monotonic() - began, 2.0)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                output = process.communicate()[0]
                done += 1
                phases[_phase(output, _unfinished(workdir) - left)] += 1
            there = max(list_steps(workdir / "checkpoints"), default=0)
            # A whole checkpoint that is gone.
            lost += there < newest
            newest = there
            if process.returncode == 0 or done >= kills:
                break
            # Any other end is a fault of the program, and no consequence of the kill.
            if process.returncode != -signal.SIGKILL:
                raise RuntimeError(f"exit code {process.returncode}")
        complete(config, workdir)
        exact += final_arrays(workdir) == expected
        shutil.rmtree(workdir)
    return {"kills": done, "phases": phases, "runs": runs, "exact": exact, "checkpoints_lost": lost}


def _unfinished(workdir: Path) -> set[str]:
    """Return the saves that are going on, or that a kill has interrupted."""
    return {path.name for path in (workdir / "checkpoints").glob("*.orbax-checkpoint-tmp*")}


def _phase(output: str, unfinished: set[str]) -> str:
    if unfinished:
        return "save"
    if "step " in output.partition("the first step compiles")[2]:
        return "step"
    return "compiling" if "starting at" in output or "continuing" in output else "start-up"


def damage_every_file(config: str, finished: Path, folder: Path, expected: dict) -> dict:
    """Damage each file of the newest checkpoint in each way, and continue the run."""
    newest = finished / "checkpoints" / str(NUM_STEPS)
    files = sorted(path.relative_to(finished) for path in newest.rglob("*") if path.is_file())
    exact, unharmed, inexact = 0, 0, []
    for file in files:
        for how, damage in DAMAGES.items():
            workdir = folder / "damaged"
            # A fresh copy for each damage, so that no run sees two of them.
            shutil.copytree(finished, workdir)
            damage(workdir / file)
            output = complete(config, workdir)
            unharmed += "skipped the checkpoint" not in output
            if final_arrays(workdir) == expected:
                exact += 1
            else:
                inexact.append(f"{file} {how}")
            shutil.rmtree(workdir)
    return {
        "damaged_files": len(files),
        "damages": len(files) * len(DAMAGES),
        "exact": exact,
        "without_effect": unharmed,
        "not_exact": inexact,
    }


def main() -> int:
    """Run the whole campaign and write its report."""
    values, _ = parse_flags("python -m benchmarks.faults", FLAGS, sys.argv[1:])
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        undisturbed = folder / "undisturbed"
        complete(values.config, undisturbed)
        expected = final_arrays(undisturbed)
        report = {"config": values.config, "steps": NUM_STEPS}
        report["killed"] = kill_at_random(
            values.config, folder, values.kills, values.seed, expected
        )
        report["damaged"] = damage_every_file(values.config, undisturbed, folder, expected)
    text = json.dumps(report, indent=1)
    write_atomically(Path(values.out) / "faults.json", text.encode())
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(command.exit_code("faults", main))
