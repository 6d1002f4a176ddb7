"""The runtimes that are measured, each behind the same small interface. All of them compute in FP32 on the CPU.

A runtime is imported when its first model is loaded, so that one that is not installed is no error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Callable, Protocol

import numpy as np

from ...errors import InputError, PipelineError
from ..compat import import_openvino
from ..program import check_no_side_effects, read_inputs

Arrays = Mapping[str, np.ndarray]


class Session(Protocol):
    """A loaded model.

    Attributes:
        inputs: the shape of each input; a dimension that is not fixed is -1.
    """

    inputs: dict[str, tuple[int, ...]]

    def run(self, inputs: Arrays) -> dict[str, np.ndarray]:
        """Runs the model once and returns its outputs by name."""


@dataclass(frozen=True)
class Engine:
    """A runtime.

    Attributes:
        name: name for the table.
        distributions: names of the packages of which one provides it.
        suffix: suffix of the files that it loads.
        load: creates a session from a file and a number of threads.
        extra: the extra of this package that installs it.
    """

    name: str
    distributions: tuple[str, ...]
    suffix: str
    load: Callable[[Path, int], Session]
    extra: str

    @property
    def version(self) -> str | None:
        """The installed version; None if the runtime is not installed."""
        for distribution in self.distributions:
            try:
                return metadata.version(distribution)
            except metadata.PackageNotFoundError:
                continue
        return None


class PaddleSession:
    """A `.pdmodel` file in Paddle Inference.

    Raises:
        InputError: the program has operators that read or write files or call Python.
    """

    def __init__(self, path: Path, threads: int) -> None:
        from paddle import inference

        prefix = path.with_suffix("")
        check_no_side_effects(prefix)
        config = inference.Config(str(path), f"{prefix}.pdiparams")
        config.disable_gpu()
        config.disable_glog_info()
        config.enable_mkldnn()
        config.set_cpu_math_library_num_threads(threads)
        self._predictor = inference.create_predictor(config)
        self._inputs = {name: self._predictor.get_input_handle(name) for name in self._predictor.get_input_names()}
        self._outputs = {name: self._predictor.get_output_handle(name) for name in self._predictor.get_output_names()}
        self.inputs = read_inputs(prefix)  # the handles know their shapes after the first run only
        _check_types(path, {name: handle.type() == inference.DataType.FLOAT32 for name, handle in self._inputs.items()})

    def run(self, inputs: Arrays) -> dict[str, np.ndarray]:
        """Runs the model once."""
        for name, handle in self._inputs.items():
            handle.copy_from_cpu(inputs[name])
        self._predictor.run()
        return {name: handle.copy_to_cpu() for name, handle in self._outputs.items()}


class OnnxRuntimeSession:
    """An `.onnx` file in ONNX Runtime."""

    def __init__(self, path: Path, threads: int) -> None:
        import onnxruntime

        onnxruntime.disable_telemetry_events()  # sent on Windows only
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._names = [output.name for output in self._session.get_outputs()]
        self.inputs = {
            one.name: tuple(size if isinstance(size, int) else -1 for size in one.shape)
            for one in self._session.get_inputs()
        }
        _check_types(path, {one.name: one.type == "tensor(float)" for one in self._session.get_inputs()})

    def run(self, inputs: Arrays) -> dict[str, np.ndarray]:
        """Runs the model once."""
        return dict(zip(self._names, self._session.run(self._names, dict(inputs))))


class OpenVinoSession:
    """An `.onnx` file in OpenVINO, which would compute in BF16 where the CPU can."""

    def __init__(self, path: Path, threads: int) -> None:
        openvino = import_openvino()
        core = openvino.Core()
        options = {
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": "f32",
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
        }
        model = core.read_model(path)
        self._names = [one.any_name for one in model.outputs]  # compiled, an output has names of other tensors too
        compiled = core.compile_model(model, "CPU", options)
        self._request = compiled.create_infer_request()
        self.inputs = {
            one.any_name: tuple(size.get_length() if size.is_static else -1 for size in one.partial_shape)
            for one in compiled.inputs
        }
        _check_types(path, {one.any_name: one.element_type == openvino.Type.f32 for one in compiled.inputs})

    def run(self, inputs: Arrays) -> dict[str, np.ndarray]:
        """Runs the model once."""
        result = self._request.infer(dict(inputs))
        return {name: result[number] for number, name in enumerate(self._names)}


def _check_types(path: Path, is_float: Mapping[str, bool]) -> None:
    for name, ok in is_float.items():
        if not ok:
            raise InputError(f"{path}: input {name!r} is not of 32-bit floats; only models in FP32 are measured")


def _load_mnn(path: Path, threads: int) -> Session:
    from ..mnn.runtime import MNNModel

    return MNNModel(path, threads)


PADDLE = Engine("Paddle Inference", ("paddlepaddle", "paddlepaddle-gpu"), ".pdmodel", PaddleSession, "cpu")
ONNXRUNTIME = Engine("ONNX Runtime", ("onnxruntime", "onnxruntime-gpu"), ".onnx", OnnxRuntimeSession, "bench")
OPENVINO = Engine("OpenVINO", ("openvino",), ".onnx", OpenVinoSession, "bench")
MNN = Engine("MNN", ("MNN",), ".mnn", _load_mnn, "mnn")
ENGINES = (PADDLE, ONNXRUNTIME, OPENVINO, MNN)


def missing_engines() -> list[str]:
    """Returns a line for each runtime that is not installed."""
    return [
        f"{engine.name} is not installed and was left out: pip install 'paddle_sparse_cb[{engine.extra}]'"
        for engine in ENGINES
        if engine.version is None
    ]


def load(engine: Engine, path: Path, threads: int) -> Session:
    """Loads a model.

    Raises:
        InputError: the runtime cannot load the file; the message has the runtime's reason in one line.
    """
    try:
        return engine.load(path, threads)
    except (InputError, PipelineError, ImportError, OSError):
        raise
    except Exception as error:  # the runtimes raise what they like for a damaged file
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"{path}: {engine.name} cannot load it: {type(error).__name__} {reason}") from None


def make_inputs(shapes: Mapping[str, tuple[int, ...]], path: Path, seed: int = 0) -> dict[str, np.ndarray]:
    """Creates the inputs of a model: noise for images, and ones for the rest, because networks divide by scale factors.

    Args:
        shapes: the shape of each input; a batch size that is not fixed becomes 1.
        path: the model, for messages.
        seed: seed of the noise.

    Raises:
        InputError: another dimension is not fixed.
    """
    generator = np.random.default_rng(seed)
    arrays = {}
    for name, shape in shapes.items():
        fixed = (1, *shape[1:]) if shape and shape[0] < 1 else shape
        if any(size < 1 for size in fixed):
            raise InputError(f"{path}: input {name!r} has the shape {list(shape)}; export it with a fixed size")
        is_image = len(fixed) == 4
        arrays[name] = (
            generator.standard_normal(fixed, dtype=np.float32) if is_image else np.ones(fixed, dtype=np.float32)
        )
    return arrays
