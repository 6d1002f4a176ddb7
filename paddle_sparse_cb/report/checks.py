"""The results of a verification in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_TITLES = {
    "checkpoints": "All checkpoints",
    "pdparams": "Exported checkpoint (.pdparams)",
    "pdiparams": "Exported program (.pdmodel, .pdiparams)",
    "pdiparams_no_nms": "Exported program without suppression",
    "nb": "Files for the phone (.nb)",
    "nb_fp16": "FP16 files for the phone (.nb)",
    "nb_int8": "INT8 files for the phone (.nb)",
    "mnn": "Files for MNN (.mnn)",
    "mnn_boxes": "Boxes of the files for MNN",
    "manifest": "Origin of the files",
    "outputs": "Outputs of the exported program",
}


@dataclass(frozen=True)
class CheckInWords:
    """One check in words.

    Attributes:
        title: what was verified.
        ok: whether it passed.
        text: what was found, in sentences.
    """

    title: str
    ok: bool
    text: str


def checks_in_words(checks: Mapping[str, Mapping[str, Any]]) -> list[CheckInWords]:
    """Describes each check of a report.

    Args:
        checks: `checks` of `report.json`.
    """
    return [CheckInWords(_TITLES.get(name, name), bool(check["ok"]), _text(check)) for name, check in checks.items()]


def _text(check: Mapping[str, Any]) -> str:
    try:
        if "problems" in check:
            return _problems(check)
        return _nb(check) if "planned" in check else _weights(check)
    except (KeyError, TypeError, ValueError):  # of another version: the line that it wrote
        return str(check.get("summary", ""))


def _weights(check: Mapping[str, Any]) -> str:
    found = f"{check['sparsity']:.2%} of the weights to prune are zero; {check['target']:.2%} were asked for."
    if check["wrong"]:
        return f"{found} {len(check['wrong'])} tensors are not those of the network: {_names(check['wrong'])}."
    return f"{found} All {check['tensors']:,} tensors are those of the trained network, bit for bit."


def _nb(check: Mapping[str, Any]) -> str:
    sparse = check["planned"] - len(check["dense_layers"])
    sentences = [
        f"{sparse} of {check['planned']} layers to prune run with a sparse kernel, "
        f"{check['sparse_convs']} of {check['convs']} convolutions in all.",
        f"The sparse file has {check['sparse_bytes']:,} bytes, the dense one {check['dense_bytes']:,}.",
    ]
    if check["dense_layers"]:
        sentences.append(f"With a dense kernel: {_names(check['dense_layers'])}.")
    if check["wrong"]:
        sentences.append(f"Tensors that differ: {_names(check['wrong'])}.")
    if not check["same_operators"]:
        sentences.append("The two files do not have the same operators.")
    if check["ok"]:
        sentences.append("Apart from the kernels, both files hold the same network, bit for bit.")
    faults = check.get("kernel_problems", ())
    if faults:
        sentences.append(f"{'; '.join(faults[:3])}.")
    return " ".join([*sentences, _outputs(check)])


def _outputs(check: Mapping[str, Any]) -> str:
    """Says how far the outputs were compared: `.nb` files are for ARM and are not run here."""
    if check.get("sparse_error") is None:
        return "Outputs were not compared."
    return (
        f"Run here, their outputs are within {check['dense_error']:.1e} (dense) and {check['sparse_error']:.1e} "
        "(sparse) of Paddle's."
    )


def _problems(check: Mapping[str, Any]) -> str:
    if check["problems"]:
        more = len(check["problems"]) - 3
        return "; ".join(check["problems"][:3]) + (f"; and {more} more." if more > 0 else ".")
    found = check.get("found")
    if found:
        return f"{found[0].upper()}{found[1:]}: {check['scope']}."
    return "No file is missing, changed, or made from an earlier version of another file."


def _names(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
