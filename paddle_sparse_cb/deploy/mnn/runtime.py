"""Runs MNN models on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError, PipelineError
from ...utils.validation import check_count
from ..isolated import require_modules, silenced

_HIGH_PRECISION = 1  # BackendConfig::Precision_High; the word "high" would print a line


def _import_mnn() -> Any:
    """Imports MNN, which prints a line to standard output when it is loaded."""
    require_modules("mnn", "MNN")
    with silenced():
        import MNN

        return MNN


class MNNModel:
    """An MNN model on the CPU, in FP32, for inputs of the sizes that are stored in it.

    Args:
        path: the `.mnn` file.
        threads: the number of threads.

    Attributes:
        inputs: the shape of each input.

    Raises:
        InputError: the file is missing, or not a model that MNN can load.
        PipelineError: MNN is not installed.
    """

    def __init__(self, path: Path, threads: int = 1) -> None:
        check_count("threads", threads, least=1)
        MNN = _import_mnn()
        if not path.is_file():
            raise InputError(f"{path}: no such file")
        self._path = path
        settings = {"backend": "CPU", "numThread": threads, "precision": _HIGH_PRECISION}
        try:
            with silenced():
                self._interpreter = MNN.Interpreter(str(path))
                self._session = self._interpreter.createSession(settings)
        except Exception as error:  # MNN raises nothing more specific
            raise InputError(f"{path}: MNN cannot load it: {error}") from None
        self._inputs = self._host_tensors(MNN, self._interpreter.getSessionInputAll(self._session))
        self._outputs = self._host_tensors(MNN, self._interpreter.getSessionOutputAll(self._session))
        self.inputs = {name: array.shape for name, (_, _, array) in self._inputs.items()}

    @staticmethod
    def _host_tensors(mnn: Any, tensors: Mapping[str, Any]) -> dict[str, tuple[Any, Any, np.ndarray]]:
        """Returns each tensor with one in NCHW order on the host, and an array that shares the memory of the latter."""
        hosts = {name: mnn.Tensor(tensor, mnn.Tensor_DimensionType_Caffe) for name, tensor in tensors.items()}
        return {name: (tensors[name], host, host.getNumpyData()) for name, host in hosts.items()}

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Runs the model.

        Args:
            inputs: an array for each input, with the batch dimension.

        Returns:
            The outputs by name; the arrays are the caller's.

        Raises:
            InputError: names, shapes or types are not those of the model's inputs.
            PipelineError: MNN failed.
        """
        if inputs.keys() != self.inputs.keys():
            raise InputError(f"{self._path}: the inputs are {list(self.inputs)}, got {list(inputs)}")
        for name, (tensor, host, array) in self._inputs.items():
            given = inputs[name]
            if (given.shape, given.dtype) != (array.shape, array.dtype):
                raise InputError(
                    f"{self._path}: input {name!r} is {array.dtype} of shape {array.shape}, got {given.dtype} of shape "
                    f"{given.shape}"
                )
            np.copyto(array, given)
            tensor.copyFrom(host)
        if self._interpreter.runSession(self._session) != 0:
            raise PipelineError(f"{self._path}: MNN failed to run the model")
        for tensor, host, _ in self._outputs.values():
            tensor.copyToHostTensor(host)
        return {name: array.copy() for name, (_, _, array) in self._outputs.items()}
