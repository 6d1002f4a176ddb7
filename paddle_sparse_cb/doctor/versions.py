"""Installed versions, and the combinations of them that are known not to work."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Optional

from packaging.version import InvalidVersion, Version

OK, NOTE, PROBLEM = "ok", "note", "problem"
Versions = Mapping[str, Optional[Version]]

_INSTALL = "pip install -c constraints.txt 'paddle_sparse_cb{}'"

# Distributions that are looked at: what needs them and the extra that installs them, or None if everything does.
_RECIPES, _RUNTIME_FILES = ("recipes", "detection"), ("MNN and ONNX files", "mnn")
_PACKAGES: dict[str, tuple[str, str] | None] = {
    "paddlepaddle": None,
    "paddleslim": None,
    "numpy": None,
    "requests": None,
    "decorator": None,
    "six": None,
    "paddledet": _RECIPES,
    "pycocotools": _RECIPES,
    "opencv-python": _RECIPES,
    "numba": _RECIPES,
    "supervision": ("the pictures of predict", "detection"),
    "MNN": ("the runtime MNN", "mnn"),
    "paddle2onnx": _RUNTIME_FILES,
    "onnx": _RUNTIME_FILES,
    "onnxruntime": ("the runtime ONNX Runtime", "bench"),
    "openvino": ("the runtime OpenVINO", "bench"),
    "tensorboard": ("looking at curves", "tensorboard"),
}
_GPU = "paddlepaddle-gpu"


@dataclass(frozen=True)
class Finding:
    """A line of the doctor.

    Attributes:
        subject: what was looked at.
        found: what was found.
        status: `ok`, `note` for what only limits, or `problem` for what must be changed.
        advice: what to do; empty if nothing.
    """

    subject: str
    found: str
    status: str = OK
    advice: str = ""


@dataclass(frozen=True)
class Rule:
    """A combination that is known not to work.

    Attributes:
        subject: the distribution to change.
        applies: whether installed versions are affected.
        status: `note` or `problem`.
        advice: what happens, and what to do.
    """

    subject: str
    applies: Callable[[Versions], bool]
    status: str
    advice: str


def _is(name: str, *, least: str = "0", below: str = "999") -> Callable[[Versions], bool]:
    """Returns whether a distribution is installed in a range of versions."""

    def applies(versions: Versions) -> bool:
        version = versions.get(name)
        return version is not None and Version(least) <= version < Version(below)

    return applies


def _both(*conditions: Callable[[Versions], bool]) -> Callable[[Versions], bool]:
    return lambda versions: all(condition(versions) for condition in conditions)


_PADDLE2 = _is("paddlepaddle", below="3")
_PADDLE3 = _is("paddlepaddle", least="3")
RULES = (
    Rule("paddlepaddle", _is("paddlepaddle", below="2.6.2"), PROBLEM, "too old: install paddlepaddle 2.6.2"),
    Rule("paddlepaddle", _is("paddlepaddle", least="3.4"), NOTE, "not tested with this package; 2.6.2 and 3.3 are"),
    Rule(
        _GPU,
        _is(_GPU),  # only if both are installed, see `installed_versions`
        PROBLEM,
        "replaces files of paddlepaddle, which is installed too: uninstall both, and install one",
    ),
    Rule("paddlepaddle", _PADDLE3, NOTE, "callbacks and export work; recipes and INT8 need paddlepaddle 2.6.2"),
    Rule("paddleslim", _is("paddleslim", below="2.6"), PROBLEM, "imports paddle.fluid: install paddleslim 2.6.0"),
    Rule(
        "numpy",
        _both(_is("paddledet"), _is("numpy", least="1.24")),
        PROBLEM,
        "paddledet uses np.bool, which numpy 1.24 removed: install numpy below 1.24",
    ),
    Rule(
        "numpy",
        _both(_is("opencv-python", below="4.10"), _is("numpy", least="2")),
        PROBLEM,
        "this opencv-python was built for numpy 1: install numpy below 1.24",
    ),
    Rule(
        "pycocotools",
        _both(_PADDLE2, _is("pycocotools", least="2.0.9")),
        PROBLEM,
        "its zlib clashes with that in paddlepaddle 2.6 (SIGSEGV or zlib.error; seen with 2.0.11): install 2.0.8",
    ),
    Rule(
        "paddledet",
        _is("paddledet", least="2.6"),
        NOTE,
        "asks for another opencv than paddleslim 2.6.0; recipes are tested with paddledet 2.5.0",
    ),
    Rule(
        "paddle2onnx",
        _both(_PADDLE2, _is("paddle2onnx", least="2")),
        PROBLEM,
        "reads programs of Paddle 3 only: install paddle2onnx 1.2.11",
    ),
    Rule(
        "setuptools",
        _is("setuptools", least="81"),
        PROBLEM,
        "has no pkg_resources, which paddleslim 2.6.0 imports: install setuptools below 81",
    ),
)


def installed_versions() -> dict[str, Version | None]:
    """Returns the version of each distribution that matters; None for those that are not installed.

    `paddlepaddle` stands for `paddlepaddle-gpu` too unless both are installed.
    """
    found = {name: _version(name) for name in (*_PACKAGES, _GPU, "setuptools")}
    if found["paddlepaddle"] is None:
        found.update({"paddlepaddle": found[_GPU], _GPU: None})
    return found


def _version(name: str) -> Version | None:
    try:
        return Version(metadata.version(name))
    except (metadata.PackageNotFoundError, InvalidVersion, TypeError):  # TypeError: damaged metadata
        return None


def check_versions(versions: Versions) -> list[Finding]:
    """Applies what is known to installed versions.

    Args:
        versions: the version of each distribution; those that are not installed are None or missing.
    """
    findings = []
    for name, purpose in _PACKAGES.items():
        version = versions.get(name)
        rules = [rule for rule in RULES if rule.subject == name and rule.applies(versions)]
        if version is None:
            findings.append(_missing(name, purpose))
        elif not rules:
            findings.append(Finding(name, str(version)))
        findings += [Finding(name, str(version), rule.status, rule.advice) for rule in rules]
    for rule in RULES:
        if rule.subject not in _PACKAGES and rule.applies(versions):
            findings.append(Finding(rule.subject, str(versions[rule.subject]), rule.status, rule.advice))
    return findings


def _missing(name: str, purpose: tuple[str, str] | None) -> Finding:
    if purpose is None:
        extra = "[cpu]" if name == "paddlepaddle" else ""
        return Finding(name, "not installed", PROBLEM, _INSTALL.format(extra))
    return Finding(name, "not installed", NOTE, f"{purpose[0]} need it: {_INSTALL.format(f'[{purpose[1]}]')}")
