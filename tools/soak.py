#!/usr/bin/env python3
"""Kills trainings at random moments, resumes them, and compares their results with an uninterrupted training.

    make soak

trains a small PicoDet recipe (photographs of trees, some seconds) once without interruption. It then trains the recipe
repeatedly, kills each training with SIGKILL at a random moment or right before or after a file is renamed to its final
name, and resumes it with `--resume`, until the requested number of kills; with one process, and with two ranks under
Paddle's launcher. Every training that finishes must give the same bytes: weights, optimizer, masks, averages, exported
model, evaluations and report, and the same TensorBoard curves. `.nb` files are not compared, because Paddle-Lite's
optimizer is not deterministic: about 1 of 14 runs on the same model gives another file. Prints the numbers of kills,
resumes and differences. Exit code 1 if there are differences.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import logging
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from paddle_sparse_cb.checkpoints.state import load_state
from paddle_sparse_cb.utils.tables import render_table
from paddle_sparse_cb.utils.weight_files import load_arrays

RECIPES = Path(__file__).resolve().parent.parent / "recipes"
# One stable, one pruning and one tunning epoch of four steps each, with checkpoints within each epoch.
RECIPE = """
_BASE_: [{recipes}/picodet_s_416_trees_sparse75.yml]
pretrain_weights: {weights}
epoch: 3
snapshot_epoch: 1
snapshot_iter: 1
use_ema: true
worker_num: 1
export: {{bench: false}}
TrainDataset: {{sample_num: {images}}}
EvalDataset: {{sample_num: 5}}
TrainReader:
  batch_size: 3
  batch_transforms:
  - BatchRandomResize: {{target_size: [192, 224], random_size: True, random_interp: True, keep_ratio: False}}
  - NormalizeImage: {{is_scale: true, mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225]}}
  - Permute: {{}}
  - PadGT: {{}}
TestReader: {{inputs_def: {{image_shape: [1, 3, 192, 192]}}}}
Sparsity: {{stable_epochs: 1, pruning_epochs: 1, tunning_epochs: 1, pruning_steps: 2, log_freq: 1}}
"""
WEIGHTS = "sample:picodet_s_416_lcnet"
COMPARED = (
    "checkpoints/*.pdparams",
    "checkpoints/*.pdopt",
    "checkpoints/*.pdema",
    "checkpoints/*.pdsparse",
    "inference/model.pdmodel",
    "inference/model.pdiparams",
    "evaluations.json",
    "report.json",
)
# The script of each rank: runs the command line, and kills itself at the n-th moment before or after a rename.
RANK = """
import os, signal, sys
from paddle_sparse_cb import cli
replace, left = os.replace, int(sys.argv.pop(1))
def counted(*paths):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(*paths)
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
if left:
    os.replace = counted
sys.exit(cli.main(sys.argv[1:]))
"""


@dataclass
class Tally:
    """The counts and differences of a soak; `phases` counts the kills by phase of the training."""

    kills: int = 0
    resumes: int = 0
    finished: int = 0
    differences: list[str] = field(default_factory=list)
    phases: dict[str, int] = field(default_factory=dict)


def write_recipe(folder, processes, weights=WEIGHTS):
    """Writes the recipe and the script of a rank; images are shared between ranks, so their number grows with them."""
    (folder / "soak.yml").write_text(RECIPE.format(recipes=RECIPES, images=12 * processes, weights=weights))
    (folder / "rank.py").write_text(RANK)


def start(folder, processes, resume, moment=0):
    """Starts a training that kills itself at the given rename moment; 0 means never."""
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "paddle.distributed.launch", "--nproc_per_node", str(processes), "--log_dir", "logs"]
    command += ["rank.py", str(moment), "train", "soak.yml", *(["--resume"] if resume else [])]
    with (folder / "output.txt").open("a") as output:
        return subprocess.Popen(command, cwd=folder, stdout=output, stderr=subprocess.STDOUT)


def end(process):
    """Kills a training with all its ranks, which have their own sessions and would survive their launcher."""
    if process.poll() is None:
        with contextlib.suppress(psutil.NoSuchProcess):
            children = psutil.Process(process.pid).children(recursive=True)
            for each in [process, *children]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.kill()
            psutil.wait_procs(children)
    process.wait()


def digests(folder):
    """Returns the digests of the compared files by path."""
    output = folder / "output" / "soak"
    return {
        str(file.relative_to(output)): hashlib.sha256(content(file)).hexdigest()
        for pattern in COMPARED
        for file in sorted(output.glob(pattern))
    }


def content(file):
    """Returns the compared content of a file.

    Left out are Paddle's names of tensors, the digests in a state, and the commands and sizes in a report.
    """
    if file.suffix in (".pdparams", ".pdopt", ".pdema"):
        return b"".join(
            name.encode() + (value.tobytes() if hasattr(value, "tobytes") else repr(value).encode())
            for name, value in sorted(load_arrays(file).items())
        )
    if file.suffix == ".pdsparse":
        state = load_state(file)
        masks = [name.encode() + mask.tobytes() for name, mask in state.masks.items()]
        return repr((state.step, state.settings, state.training)).encode() + b"".join(masks)
    if file.name == "report.json":  # Paddle writes other names of tensors, and so another number of bytes
        report = json.loads(file.read_text())
        return json.dumps({key: value for key, value in report.items() if key not in ("commands", "sizes")}).encode()
    return file.read_bytes()


def curves(folder):
    """Reads the curves with TensorBoard, without duplicates: an interrupted evaluation may be logged twice."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "output" / "soak" / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    return {
        tag: sorted({(event.step, event.value) for event in events.Scalars(tag)}) for tag in events.Tags()["scalars"]
    }


def compare(reference, other):
    """Returns the names of the files and curves that differ between two trainings."""
    differing = []
    for prefix, expected, actual in (
        ("", digests(reference), digests(other)),
        ("curve ", curves(reference), curves(other)),
    ):
        differing += [
            f"{prefix}{name}" for name in sorted({*expected, *actual}) if expected.get(name) != actual.get(name)
        ]
    return differing


def undisturbed(folder, processes):
    """Trains without interruption; returns the seconds to the first checkpoint and to the end."""
    start_time, first = time.monotonic(), None
    process = start(folder, processes, resume=False)
    try:
        while process.poll() is None:
            time.sleep(0.05)
            if first is None and next(folder.glob("output/soak/checkpoints/*.pdsparse"), None):
                first = time.monotonic() - start_time
    finally:
        end(process)
    if process.returncode or first is None:
        raise RuntimeError(f"the undisturbed training failed:\n{printed(folder)[-3000:]}")
    return first, time.monotonic() - start_time


def make_reference(folder, processes, weights=WEIGHTS):
    """Trains without interruption in a new folder; returns the folder, and what `undisturbed` returns."""
    folder.mkdir()
    write_recipe(folder, processes, weights)
    return folder, undisturbed(folder, processes)


def printed(folder):
    """Returns everything that the processes have printed."""
    return "".join(file.read_text() for file in [folder / "output.txt", *sorted(folder.glob("logs/workerlog.*"))])


def soak(folder, processes, kills, seed, tally=None, reference=None, weights=WEIGHTS):
    """Trains and kills until the requested number of kills, and compares each result with the undisturbed training.

    Args:
        folder: an empty folder.
        processes: ranks of each training.
        kills: minimum number of kills.
        seed: seed of the random moments.
        tally: continued if given.
        reference: folder and seconds of an undisturbed training of this recipe; made here if not given.
        weights: where the recipe starts.

    Returns:
        The counts and differences.
    """
    tally = tally or Tally()
    draw = random.Random(seed)
    reference, seconds = reference or make_reference(folder / "reference", processes, weights)
    while tally.kills < kills or tally.kills == 0:
        run = folder / f"run{tally.finished}"
        run.mkdir()
        write_recipe(run, processes, weights)
        disturb(run, processes, seconds, draw, tally, kills)
        tally.finished += 1
        tally.differences += [f"{run.name}: {name}" for name in compare(reference, run)]
    return tally


def disturb(run, processes, seconds, draw, tally, kills):
    """Kills and resumes one training until it finishes; after the requested number of kills it is left to finish."""
    first_checkpoint, total = seconds
    resume = False
    while True:
        # The steps after the training are interrupted at most once.
        is_trained = (run / "output" / "soak" / "checkpoints" / "final.pdsparse").is_file()
        undisturbed, at_rename = is_trained or tally.kills >= kills, draw.random() < 0.4
        process = start(run, processes, resume, 0 if undisturbed or not at_rename else draw.randint(1, 24))
        tally.resumes += resume
        resume = True
        try:
            process.wait(
                900
                if undisturbed or at_rename
                else first_checkpoint + draw.uniform(-0.1, 0.4) * (total - first_checkpoint)
            )
        except subprocess.TimeoutExpired:
            if undisturbed:
                raise
        finally:
            end(process)
        if process.returncode == 0:
            return
        if processes == 1 and process.returncode != -signal.SIGKILL:
            raise RuntimeError(f"a training failed with exit code {process.returncode}:\n{printed(run)[-3000:]}")
        tally.kills += 1
        for phase in interrupted_phases(run):
            tally.phases[phase] = tally.phases.get(phase, 0) + 1


def interrupted_phases(run):
    """Yields the phases of the training in which the last kill happened, derived from the files that it left."""
    checkpoints = run / "output" / "soak" / "checkpoints"
    saved = {file.stem.partition("_")[0]: file for file in checkpoints.glob("[0-9]*.pdsparse")}
    if (checkpoints / "final.pdsparse").is_file():
        yield "after the training"
    elif not saved:
        yield "before the first checkpoint"
    else:
        newest = max(saved, key=int)
        is_epoch_complete = saved[newest].stem == newest  # then the next epoch was being trained
        yield ("stable phase", "pruning phase", "tunning phase", "last evaluation")[int(newest) + is_epoch_complete]
    if next(checkpoints.glob(".*.*"), None):  # not the lock
        yield "while saving"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="kills of trainings in one process")
    parser.add_argument("--kills-of-ranks", type=int, default=8, help="kills of trainings with two ranks")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random moments")
    arguments = parser.parse_args()
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it warns of every resumed event file
    rows: list[tuple[int, ...]] = []
    phases: dict[str, int] = {}
    differences: list[str] = []
    for processes, kills in ((1, arguments.kills), (2, arguments.kills_of_ranks)):
        if not kills:
            continue
        with tempfile.TemporaryDirectory(prefix="soak-") as folder:
            tally = soak(Path(folder), processes, kills, arguments.seed)
        rows.append((processes, tally.kills, tally.resumes, tally.finished, len(tally.differences)))
        differences += tally.differences
        for phase, count in tally.phases.items():
            phases[phase] = phases.get(phase, 0) + count
    print(render_table(("processes", "kills", "resumes", "finished", "differences"), rows, "rrrrr"))
    print("\nkilled " + ", ".join(f"{phase}: {count}" for phase, count in sorted(phases.items())))
    print("\n".join(differences))
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
