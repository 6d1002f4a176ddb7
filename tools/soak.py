#!/usr/bin/env python3
"""Kills trainings at random moments until they end all the same, and compares what they made with one left in peace.

    make soak

trains a small PicoDet recipe (photographs of trees, some seconds) once undisturbed. Then again and again, with SIGKILL
at a random moment, or at one of the moments at which a file takes its place, going on with `--resume` each time,
until there were so many kills; with one process, and with two ranks under Paddle's launcher. Each training that came to
its end has to have made the same bytes: weights, optimizer, masks, averages, exported model, evaluations, report, and
the same curves. The `.nb` files are left out: of one exported model Paddle-Lite's optimizer makes different ones, in
some 1 of 14 runs. Prints kills, resumes and differences.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
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
# A stable, a pruning and a tunning epoch of four steps each, with checkpoints in each.
RECIPE = """
_BASE_: [{recipes}/picodet_s_416_trees_sparse75.yml]
pretrain_weights: sample:picodet_s_416_lcnet
epoch: 3
snapshot_epoch: 1
snapshot_iter: 1
use_ema: true
TrainDataset: {{sample_num: {images}}}
EvalDataset: {{sample_num: 4}}
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
COMPARED = ("checkpoints/*.pdparams", "checkpoints/*.pdopt", "checkpoints/*.pdema", "checkpoints/*.pdsparse",
            "inference/model.pdmodel", "inference/model.pdiparams", "evaluations.json", "report.json")
# What each rank runs: the command line, and an end at the n-th moment at which a file takes its place.
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
    """What a soak has seen."""

    kills: int = 0
    resumes: int = 0
    finished: int = 0
    differences: list[str] = field(default_factory=list)
    places: dict[str, int] = field(default_factory=dict)


def write_recipe(folder, processes):
    """Writes the recipe; ranks share its images."""
    (folder / "soak.yml").write_text(RECIPE.format(recipes=RECIPES, images=12 * processes))
    (folder / "rank.py").write_text(RANK)


def start(folder, processes, resume, moment=0):
    """Starts a training."""
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "paddle.distributed.launch", "--nproc_per_node", str(processes), "--log_dir", "logs"]
    command += ["rank.py", str(moment), "train", "soak.yml", *(["--resume"] if resume else [])]
    with (folder / "said.txt").open("a") as said:
        return subprocess.Popen(command, cwd=folder, stdout=said, stderr=subprocess.STDOUT)


def end(process):
    """Kills a training, all at once: the ranks are in sessions of their own and would go on without their launcher."""
    if process.poll() is None:
        with contextlib.suppress(psutil.NoSuchProcess):
            alive = psutil.Process(process.pid).children(recursive=True)
            for one in [process, *alive]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()
            psutil.wait_procs(alive)
    process.wait()


def digests(folder):
    """Of the files to compare, by name."""
    output = folder / "output" / "soak"
    return {str(file.relative_to(output)): hashlib.sha256(content(file)).hexdigest()
            for pattern in COMPARED for file in sorted(output.glob(pattern))}


def content(file):
    """What a file says; a state's digests aside, and the names that Paddle gives to tensors."""
    if file.suffix in (".pdparams", ".pdopt", ".pdema"):
        return b"".join(name.encode() + (value.tobytes() if hasattr(value, "tobytes") else repr(value).encode())
                        for name, value in sorted(load_arrays(file).items()))
    if file.suffix == ".pdsparse":
        state = load_state(file)
        masks = [name.encode() + mask.tobytes() for name, mask in state.masks.items()]
        return repr((state.step, state.settings, state.training)).encode() + b"".join(masks)
    return file.read_bytes()


def curves(folder):
    """The curves as TensorBoard reads them; an evaluation that was made twice is there twice."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "output" / "soak" / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: sorted({(event.step, event.value) for event in events.Scalars(tag)})
            for tag in events.Tags()["scalars"]}


def compare(reference, other):
    """What differs between the results of two trainings."""
    found = []
    for what, mine, theirs in (("", digests(reference), digests(other)), ("curve ", curves(reference), curves(other))):
        found += [f"{what}{name}" for name in sorted({*mine, *theirs}) if mine.get(name) != theirs.get(name)]
    return found


def undisturbed(folder, processes):
    """Trains once in peace; gives the seconds to its first checkpoint, and to its end."""
    began, first = time.monotonic(), None
    process = start(folder, processes, resume=False)
    try:
        while process.poll() is None:
            time.sleep(0.05)
            if first is None and next(folder.glob("output/soak/checkpoints/*.pdsparse"), None):
                first = time.monotonic() - began
    finally:
        end(process)
    if process.returncode or first is None:
        raise SystemExit(f"the undisturbed training failed:\n{said(folder)[-3000:]}")
    return first, time.monotonic() - began


def said(folder):
    """All that the processes have printed."""
    return "".join(file.read_text() for file in [folder / "said.txt", *sorted(folder.glob("logs/workerlog.*"))])


def soak(folder, processes, kills, seed, tally=None):
    """Kills trainings until there were so many kills, and compares each one that ends with the undisturbed one.

    Args:
        folder: an empty folder.
        processes: ranks of each training.
        kills: at least so many.
        seed: of the moments.

    Returns:
        The `Tally`.
    """
    tally = tally or Tally()
    draw = random.Random(seed)
    reference = folder / "reference"
    reference.mkdir()
    write_recipe(reference, processes)
    seconds = undisturbed(reference, processes)
    while tally.kills < kills or tally.kills == 0:
        run = folder / f"run{tally.finished}"
        run.mkdir()
        write_recipe(run, processes)
        disturb(run, processes, seconds, draw, tally, kills)
        tally.finished += 1
        tally.differences += [f"{run.name}: {name}" for name in compare(reference, run)]
    return tally


def disturb(run, processes, seconds, draw, tally, kills):
    """Kills one training again and again until it ends, or lets it end once there were enough kills."""
    first, whole = seconds
    resume = False
    while True:
        done = (run / "output" / "soak" / "checkpoints" / "final.pdsparse").is_file()  # what follows was killed once
        peace, at_a_file = done or tally.kills >= kills, draw.random() < 0.4
        process = start(run, processes, resume, 0 if peace or not at_a_file else draw.randint(1, 24))
        tally.resumes += resume
        resume = True
        try:
            process.wait(900 if peace or at_a_file else first + draw.uniform(-0.1, 0.4) * (whole - first))
        except subprocess.TimeoutExpired:
            if peace:
                raise
        finally:
            end(process)
        if process.returncode == 0:
            return
        if processes == 1 and process.returncode != -signal.SIGKILL:
            raise SystemExit(f"a training ended by itself with {process.returncode}:\n{said(run)[-3000:]}")
        tally.kills += 1
        for place in where(run):
            tally.places[place] = tally.places.get(place, 0) + 1


def where(run):
    """What was being done when the last kill came, by what is on the disk."""
    checkpoints = run / "output" / "soak" / "checkpoints"
    places = {file.stem.partition("_")[0]: file for file in checkpoints.glob("[0-9]*.pdsparse")}
    if (checkpoints / "final.pdsparse").is_file():
        yield "after the training"
    elif not places:
        yield "before the first checkpoint"
    else:
        newest = max(places, key=int)
        done = places[newest].stem == newest  # the epoch, so that the next one was being trained
        yield ("stable phase", "pruning phase", "tunning phase", "last evaluation")[int(newest) + done]
    if next(checkpoints.glob(".*"), None):
        yield "while saving"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="of trainings in one process")
    parser.add_argument("--kills-of-ranks", type=int, default=8, help="of trainings with two ranks")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    arguments = parser.parse_args()
    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it warns of each restart
    rows: list[tuple[int, ...]] = []
    places: dict[str, int] = {}
    differences: list[str] = []
    for processes, kills in ((1, arguments.kills), (2, arguments.kills_of_ranks)):
        if not kills:
            continue
        with tempfile.TemporaryDirectory(prefix="soak-") as folder:
            tally = soak(Path(folder), processes, kills, arguments.seed)
        rows.append((processes, tally.kills, tally.resumes, tally.finished, len(tally.differences)))
        differences += tally.differences
        for place, count in tally.places.items():
            places[place] = places.get(place, 0) + count
    print(render_table(("processes", "kills", "resumes", "finished", "differences"), rows, "rrrrr"))
    print("\nkilled " + ", ".join(f"{place}: {count}" for place, count in sorted(places.items())))
    print("\n".join(differences))
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
