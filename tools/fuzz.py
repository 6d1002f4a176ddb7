"""Damages files of every kind that the package reads, reads them, and prints a table of the outcomes.

    python tools/fuzz.py --files 600 --seed 0

A reader passes if it raises a one-line error that names the file, or if it reads the file because the damaged value is
still a valid one. It fails if it raises another exception, crashes the interpreter, hangs, or takes gigabytes of
memory. Readers run in separate processes, so that a crash is counted like any other failure. Files on which a reader
failed are kept. Exit code 1 if there were failures.
"""

import argparse
import contextlib
import functools
import http.server
import io
import multiprocessing
import os
import queue
import random
import resource
import shutil
import sys
import tempfile
import threading
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import mutations
import numpy as np
import whole_files

from paddle_sparse_cb.errors import InputError, PipelineError

REJECTED, READ, CRASH, HANG, UNNAMED = "rejected, named", "still valid", "crashes", "hangs", "not named"
TIMEOUT = 60  # seconds after which a reader counts as hanging
MEMORY = 2 << 30  # bytes that a reader may use


def _read_weights(folder: Path) -> None:
    from paddle_sparse_cb.detection.weights import load_matching, read_weights
    from paddle_sparse_cb.pruning.paddleslim_masks import apply_paddleslim_masks

    source = str(folder / "0.pdparams")
    print(load_matching(whole_files.network(), apply_paddleslim_masks(read_weights(source))[0], source))


def _download_weights(folder: Path) -> None:
    """Downloads a file from a host on this machine; what cannot be used must not be in the cache afterwards."""
    from paddle_sparse_cb.detection.weights import read_weights

    cache = folder / "cache"
    os.environ["PADDLE_SPARSE_CACHE"] = str(cache)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        read_weights(f"http://127.0.0.1:{server.server_port}/0.pdparams")
    except InputError as error:
        if "has no arrays" not in str(error):
            assert not list(cache.rglob("*.pdparams")), "a bad file is in the cache"
        raise
    finally:
        server.shutdown()
        server.server_close()
        del os.environ["PADDLE_SPARSE_CACHE"]


def _read_optimizer(folder: Path) -> None:
    from paddle_sparse_cb.utils.weight_files import load_arrays

    load_arrays(folder / "0.pdopt")


def _resume(folder: Path) -> None:
    """Resumes from a damaged checkpoint whose digests were recomputed, as an attacker would."""
    from dataclasses import replace

    from paddle_sparse_cb.checkpoints.position import ResumeState
    from paddle_sparse_cb.checkpoints.state import file_digest, load_state, save_state

    state = load_state(folder / "0.pdsparse")
    digests = {name: file_digest(folder / name) for name in state.files}
    save_state(replace(state, files=digests), folder / "0.pdsparse")
    ResumeState.open(folder / "0.pdsparse").load_into(whole_files.model(), 2)


def _read_state(folder: Path) -> None:
    from paddle_sparse_cb.checkpoints.position import ResumeState

    ResumeState.open(folder / "0.pdsparse")


def _read_exported(folder: Path) -> None:
    from paddle_sparse_cb.deploy.lite.constraints import check_sparse

    check_sparse(folder / "model")


def _read_nb(folder: Path) -> None:
    from paddle_sparse_cb.deploy.lite.nb import count_convolutions, read_nb
    from paddle_sparse_cb.deploy.program import read_program

    count_convolutions(folder / "model.nb")
    optimized = read_nb(folder / "model.nb").convolutions
    for convolution in read_program(folder / "model").convolutions.values():
        if convolution.variable in optimized:
            read_nb(folder / "model.nb").decode_weight(
                optimized[convolution.variable], convolution.shape, convolution.pixels
            )


def _read_mnn(folder: Path) -> None:
    from paddle_sparse_cb.deploy.mnn.expected import find_expected
    from paddle_sparse_cb.deploy.mnn.reader import read_mnn
    from paddle_sparse_cb.deploy.onnx import find_differing_parameters, read_onnx
    from paddle_sparse_cb.utils.weight_files import load_parameters

    model, file = read_onnx(folder / "model.onnx"), read_mnn(folder / "model.mnn")
    find_differing_parameters(model, folder / "model")
    expected = find_expected(file.convolutions, model.layers, load_parameters(folder / "model"))
    for convolution in file.convolutions:
        if convolution.name in expected:
            expected[convolution.name].matches(convolution)


def _read_recipe(folder: Path, slim: "str | None" = None) -> None:
    from paddle_sparse_cb.recipe.build import build
    from paddle_sparse_cb.recipe.preflight import check_recipe
    from paddle_sparse_cb.recipe.schema import read_recipe

    recipe = read_recipe(folder / "recipe.yml", slim)
    check_recipe(recipe)
    build(recipe)
    assert recipe.output.resolve().is_relative_to(Path.cwd())


def _read_slim(folder: Path) -> None:
    _read_recipe(folder, str(folder / "slim.yml"))


def _read_data(folder: Path) -> None:
    """Reads an epoch of each loader, and evaluates a detection in each image, as a training does."""
    from paddle_sparse_cb.detection import config
    from paddle_sparse_cb.detection.build import build_metric
    from paddle_sparse_cb.detection.datasets.loader import build_loader
    from paddle_sparse_cb.recipe.schema import read_recipe

    options = [f"{split}Dataset.dataset_dir={folder}" for split in ("Train", "Eval")]
    recipe = read_recipe(folder / "recipe.yml", options=options)
    with config.convert_errors(recipe.files):
        registry = config.load(recipe.content, recipe.files)
        loaders = build_loader(registry, "Train"), build_loader(registry, "Eval")
        metric = build_metric(loaders[1])
    list(loaders[0])
    for *_, numbers in loaders[1]:
        metric.update(np.tile(np.array([0, 0.9, *whole_files.BOX], np.float32), (len(numbers), 1, 1)), numbers.numpy())


def _read_infer_config(folder: Path) -> None:
    from paddle_sparse_cb.detection.infer_config import NAME, read_infer_config
    from paddle_sparse_cb.detection.predict import Preprocessor, read_image

    try:
        Preprocessor(read_infer_config(folder / NAME))(read_image(folder / "images/1.png"))
    except InputError as error:  # that of a transform is named by the caller
        raise InputError(f"{NAME}: {error}") from None


def _check_data(folder: Path) -> None:
    """Looks for problems, as `paddle-sparse check` and `init` do; neither may fail on what is wrong."""
    from paddle_sparse_cb.detection.datasets.folders import read_folder
    from paddle_sparse_cb.detection.datasets.load import load_annotations
    from paddle_sparse_cb.detection.datasets.problems import find_problems
    from paddle_sparse_cb.detection.datasets.summary import summarize

    block = {"name": "COCODataSet", "dataset_dir": str(folder), "image_dir": "images", "anno_path": "coco.json"}
    part, problems = load_annotations(block, "coco.json")
    problems += find_problems(part.content, part.images) if part else []
    errors = [str(problem) for problem in problems if problem.is_error]
    if errors or part is None:
        raise InputError(f"coco.json: {errors[0]}")
    summarize(part.content)
    read_folder(folder)


def _read_evaluations(folder: Path) -> None:
    from paddle_sparse_cb.callbacks.evaluation_log import best_by_sparsity, read_evaluations

    best_by_sparsity(read_evaluations(folder / "evaluations.json"), "mAP")


def _read_report(folder: Path) -> None:
    from paddle_sparse_cb.report.schema import read_report
    from paddle_sparse_cb.report.table import report_table

    report_table(read_report(folder))


@dataclass(frozen=True)
class Kind:
    """A kind of file: where an intact one is, how it is damaged, and how it is read.

    Attributes:
        folder: the folder of `whole_files` that contains the file.
        file: its path in that folder.
        mutations: functions of `mutations` that damage it.
        read: reads the damaged file, given its folder.
    """

    folder: str
    file: str
    mutations: tuple[Callable, ...]
    read: Callable[[Path], None]


KINDS = {
    "weights": Kind("checkpoint", "0.pdparams", mutations.PICKLE, _read_weights),
    "downloaded weights": Kind("checkpoint", "0.pdparams", mutations.DOWNLOAD, _download_weights),
    "optimizer": Kind("checkpoint", "0.pdopt", mutations.PICKLE, _read_optimizer),
    "resumed weights": Kind("checkpoint", "0.pdparams", mutations.PICKLE, _resume),
    "resumed optimizer": Kind("checkpoint", "0.pdopt", mutations.PICKLE, _resume),
    "pruning state": Kind("checkpoint", "0.pdsparse", mutations.BINARY, _read_state),
    "exported program": Kind("exported", "model.pdmodel", mutations.BINARY, _read_exported),
    "exported weights": Kind("exported", "model.pdiparams", mutations.BINARY, _read_exported),
    "exported names": Kind("exported", "model.pdiparams.info", mutations.PICKLE, _read_exported),
    "optimized": Kind("exported", "model.nb", mutations.BINARY, _read_nb),
    "MNN": Kind("exported", "model.mnn", mutations.BINARY, _read_mnn),
    "ONNX": Kind("exported", "model.onnx", mutations.BINARY, _read_mnn),
    "recipe": Kind("coco", "recipe.yml", mutations.YAML, _read_recipe),
    "slim file": Kind("slim", "slim.yml", mutations.YAML, _read_slim),
    "JPEG": Kind("coco", "images/0.jpg", mutations.IMAGE, _read_data),
    "PNG": Kind("coco", "images/1.png", mutations.IMAGE, _read_data),
    "COCO": Kind("coco", "coco.json", mutations.JSON, _read_data),
    "COCO, checked": Kind("coco", "coco.json", mutations.JSON, _check_data),
    "model settings": Kind("coco", "infer_cfg.yml", mutations.YAML, _read_infer_config),
    "VOC": Kind("voc", "images/0.xml", mutations.XML, _read_data),
    "VOC's list": Kind("voc", "list.txt", mutations.TEXT, _read_data),
    "VOC's classes": Kind("voc", "label_list.txt", mutations.TEXT, _read_data),
    "report": Kind("report", "report.json", mutations.JSON, _read_report),
    "evaluations": Kind("report", "evaluations.json", mutations.JSON, _read_evaluations),
}


@dataclass
class Result:
    """The outcomes of a run; its `str()` is a table.

    Attributes:
        outcomes: number of files by (kind, outcome).
        failures: a line per failure.
    """

    outcomes: "Counter[tuple[str, str]]" = field(default_factory=Counter)
    failures: "list[str]" = field(default_factory=list)

    def __str__(self) -> str:
        from paddle_sparse_cb.utils.tables import render_table

        columns = (REJECTED, READ, CRASH, HANG, UNNAMED)
        rows = [
            [
                kind,
                sum(self.outcomes[kind, outcome] for outcome in columns),
                *(self.outcomes[kind, outcome] for outcome in columns),
            ]
            for kind in KINDS
        ]
        rows.append(["all", *(sum(column) for column in zip(*(row[1:] for row in rows)))])
        return render_table(["file", "damaged", *columns], rows, "l" + "r" * (1 + len(columns)))


def outcome_of(kind: Kind, folder: Path) -> "tuple[str, str]":
    """Reads the damaged file of a kind in a folder; returns the outcome and the error message."""
    file = Path(kind.file).name
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            kind.read(folder)
    except (InputError, PipelineError) as error:
        named = file in str(error) and "\n" not in str(error)
        return (REJECTED if named else UNNAMED), str(error)
    except BaseException:
        return CRASH, traceback.format_exc()
    if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 > MEMORY:
        return CRASH, "used too much memory"
    return READ, ""


def _serve(connection, home: str) -> None:
    """The process of a reader: receives kinds and folders, sends outcomes."""
    os.chdir(home)
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1), os.dup2(quiet, 2)  # libjpeg and Paddle print there
    import paddle_sparse_cb.recipe.train  # noqa: F401  imported before the time is measured

    address_space = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (address_space + 3 * MEMORY, resource.RLIM_INFINITY))
    connection.send(None)
    while True:
        kind, folder = connection.recv()
        connection.send(outcome_of(kind, folder))


class _Reader:
    """A process that reads files; restarted after a crash or a timeout."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.process: multiprocessing.process.BaseProcess | None = None

    def read(self, kind: Kind, folder: Path) -> "tuple[str, str]":
        if self.process is None:
            context = multiprocessing.get_context("spawn")
            self.connection, theirs = context.Pipe()
            self.process = context.Process(target=_serve, args=(theirs, str(self.home)), daemon=True)
            self.process.start()
            theirs.close()
            self.connection.recv()
        self.connection.send((kind, folder))
        if not self.connection.poll(TIMEOUT):
            self.stop()
            return HANG, f"no answer after {TIMEOUT} s"
        try:
            answer = self.connection.recv()
        except EOFError:
            self.process.join()
            code = self.process.exitcode
            self.process = None
            return CRASH, f"the interpreter exited with code {code}"
        if "memory" in answer[1]:  # the peak memory of a process never falls
            self.stop()
        return answer

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.join()
        self.process = None


def damage(intact: Path, kind: str, source: random.Random, folder: Path) -> str:
    """Copies a folder of intact files and damages one of them.

    Returns:
        The name of the mutation.
    """
    shutil.copytree(intact / KINDS[kind].folder, folder)
    file = folder / KINDS[kind].file
    content = file.read_bytes()
    while True:
        mutation = source.choice(KINDS[kind].mutations)
        damaged = mutation(source, content)
        if damaged != content:
            file.write_bytes(damaged)
            return mutation.__name__


def fuzz(
    files: int, seed: int, kept: "Path | None" = None, kinds: "list[str] | None" = None, processes: int = 2
) -> Result:
    """Damages files and reads them.

    Args:
        files: number of files, spread evenly over the kinds.
        seed: the same seed gives the same damage.
        kept: folder for the files on which a reader failed; None keeps none.
        kinds: names in `KINDS`; all by default.
        processes: number of readers at a time.

    Returns:
        The outcomes.
    """
    kinds = kinds or list(KINDS)
    result = Result()
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in range(files):
        waiting.put(number)
    with tempfile.TemporaryDirectory() as scratch:
        intact = Path(scratch, "intact")
        whole_files.make(intact)

        def work() -> None:
            reader = _Reader(Path(scratch))
            with contextlib.suppress(queue.Empty):
                while True:
                    number = waiting.get_nowait()
                    kind, folder = kinds[number % len(kinds)], Path(scratch, str(number))
                    mutation = damage(intact, kind, random.Random(f"{seed} {kind} {number // len(kinds)}"), folder)
                    outcome, message = reader.read(KINDS[kind], folder)
                    result.outcomes[kind, outcome] += 1
                    if outcome not in (REJECTED, READ):
                        result.failures.append(f"{number}: {outcome}: {kind}, {mutation}: {message}")
                        if kept:
                            shutil.copytree(folder, kept / f"{number}", dirs_exist_ok=True)
                    shutil.rmtree(folder)
            reader.stop()

        threads = [threading.Thread(target=work) for _ in range(processes)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return result


def main() -> int:
    """Prints the table to stdout and the failures to stderr."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=600, help="number of files to damage")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same damage")
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), metavar="KIND", help="all by default")
    parser.add_argument(
        "--kept", type=Path, default=Path("output/fuzz"), help="folder for the files on which a reader failed"
    )
    options = parser.parse_args()
    result = fuzz(options.files, options.seed, options.kept, options.kinds)
    for failure in result.failures:
        print(failure, file=sys.stderr)
    print(result)
    return 1 if result.failures else 0


if __name__ == "__main__":
    sys.exit(main())
