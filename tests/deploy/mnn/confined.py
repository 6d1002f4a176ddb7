"""Ends a process in which MNN or paddle2onnx opens a connection or starts a process, from Python or from native code.

A test copies this file as `sitecustomize.py` into a folder on PYTHONPATH, so that every Python process runs it first.
From the import of one of these packages' native modules on, a filter of system calls (seccomp, Linux on x86-64) forbids
both. Before, Paddle's own import asks the shell for the version of the C library.
"""

import ctypes
import os
import struct
import sys

_NATIVE_MODULES = ("_tools", "_mnncengine", "paddle2onnx.paddle2onnx_cpp2py_export")

# Numbers of system calls: socket, connect, fork, vfork, execve, execveat; clone, which also starts threads, and clone3.
_FORBIDDEN, _CLONE, _CLONE3 = (41, 42, 57, 58, 59, 322), 56, 435
_CLONE_THREAD = 0x10000
_KILL, _ALLOW, _NO_SUCH_CALL = 0x80000000, 0x7FFF0000, 0x00050026
_LOAD, _EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06  # instructions of the filter


def confine() -> None:
    """Ends this process, from now on, when it opens a connection or starts a process."""
    steps = [(_LOAD, 0, 0, 0)]  # the number of the call
    for call in _FORBIDDEN:
        steps += [(_EQUAL, 0, 1, call), (_RETURN, 0, 0, _KILL)]
    # The C library falls back from clone3, whose flags a filter cannot see, to clone.
    steps += [(_EQUAL, 0, 1, _CLONE3), (_RETURN, 0, 0, _NO_SUCH_CALL)]
    steps += [(_EQUAL, 0, 3, _CLONE), (_LOAD, 0, 0, 16), (_ANY_BIT, 1, 0, _CLONE_THREAD), (_RETURN, 0, 0, _KILL)]
    steps += [(_RETURN, 0, 0, _ALLOW)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *step) for step in steps))
    program = struct.pack("<H6xQ", len(steps), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    no_new_privileges, seccomp, by_filter = 38, 22, 2
    if libc.prctl(no_new_privileges, 1, 0, 0, 0) or libc.prctl(seccomp, by_filter, ctypes.c_char_p(program), 0, 0):
        raise OSError(ctypes.get_errno(), "seccomp is not available")


def _audit(event: str, arguments: "tuple[object, ...]") -> None:
    if event != "import" or "CONFINED_LOG" not in os.environ:
        return
    name = str(arguments[0])
    if name in _NATIVE_MODULES or name.partition(".")[0] == "aliyun" or name.startswith("MNN.tools"):
        with open(os.environ["CONFINED_LOG"], "a") as log:
            log.write(f"{name}\n")
    if name in _NATIVE_MODULES:
        confine()


sys.addaudithook(_audit)
