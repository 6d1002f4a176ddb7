"""Runs MNN models inside the emulation: the only part of `tools/arm_emulated.py` that an ARM Python executes.

Takes a JSON file with a list of jobs: `model`, `inputs` and `outputs` (`.npz` files). Each model runs twice, each time
between two marks at which QEMU's plugin prints its count: once to warm up, and once to be counted.
"""

import contextlib
import json
import os
import sys

import MNN
import numpy as np

MARK = 987654  # see count_instructions.c
HIGH_PRECISION = 1


def mark():
    """Has the plugin print its count."""
    with contextlib.suppress(OSError):
        os.close(MARK)


def run(job):
    """Runs one model and writes its outputs."""
    interpreter = MNN.Interpreter(job["model"])
    session = interpreter.createSession({"backend": "CPU", "numThread": 1, "precision": HIGH_PRECISION})
    given = np.load(job["inputs"])
    for _ in range(2):
        for name, tensor in interpreter.getSessionInputAll(session).items():
            host = MNN.Tensor(tensor, MNN.Tensor_DimensionType_Caffe)
            np.copyto(host.getNumpyData(), given[name], casting="no")
            tensor.copyFrom(host)
        mark()
        assert interpreter.runSession(session) == 0
        mark()
    outputs = {}
    for name, tensor in interpreter.getSessionOutputAll(session).items():
        host = MNN.Tensor(tensor, MNN.Tensor_DimensionType_Caffe)
        tensor.copyToHostTensor(host)
        outputs[name] = host.getNumpyData().copy()
    np.savez(job["outputs"], **outputs)


if __name__ == "__main__":
    with open(sys.argv[1]) as spec:
        for one in json.load(spec):
            run(one)
