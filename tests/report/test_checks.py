import pytest

from paddle_sparse_cb.report.checks import checks_in_words

WEIGHTS = {"sparsity": 0.7501, "target": 0.75, "tensors": 447, "wrong": [], "ok": True}
NB = {
    "planned": 40,
    "dense_layers": [],
    "sparse_convs": 40,
    "convs": 98,
    "sparse_bytes": 3_300_606,
    "dense_bytes": 4_933_190,
    "wrong": [],
    "same_operators": True,
    "is_int8": False,
    "ok": True,
}


@pytest.mark.parametrize(
    ("name", "check", "title", "text"),
    [
        (
            "pdparams",
            WEIGHTS,
            "Exported checkpoint (.pdparams)",
            "75.01% of the weights to prune are zero; 75.00% were asked for. All 447 tensors are those of the trained "
            "network, bit for bit.",
        ),
        (
            "pdiparams",
            {**WEIGHTS, "sparsity": 0.5, "wrong": ["a", "b", "c", "d"], "ok": False},
            "Exported program (.pdmodel, .pdiparams)",
            "50.00% of the weights to prune are zero; 75.00% were asked for. 4 tensors are not those of the network: "
            "a, b, c and 1 more.",
        ),
        (
            "nb",
            NB,
            "Files for the phone (.nb)",
            "40 of 40 layers to prune run with a sparse kernel, 40 of 98 convolutions in all. The sparse file has "
            "3,300,606 bytes, the dense one 4,933,190. Apart from the kernels, both files hold the same network, bit "
            "for bit. Outputs were not compared.",
        ),
        (
            "nb",
            {**NB, "dense_layers": ["conv"], "wrong": ["bn"], "same_operators": False, "ok": False},
            "Files for the phone (.nb)",
            "39 of 40 layers to prune run with a sparse kernel, 40 of 98 convolutions in all. The sparse file has "
            "3,300,606 bytes, the dense one 4,933,190. With a dense kernel: conv. Tensors that differ: bn. The two "
            "files do not have the same operators. Outputs were not compared.",
        ),
        (
            "checkpoints",
            {"problems": [], "found": "5 checkpoints are complete", "scope": "digests, zeros", "ok": True},
            "All checkpoints",
            "5 checkpoints are complete: digests, zeros.",
        ),
        (
            "manifest",
            {"problems": ["a.nb: changed", "b", "c", "d"], "scope": "digests", "ok": False},
            "Origin of the files",
            "a.nb: changed; b; c; and 1 more.",
        ),
        (
            "manifest",
            {"problems": [], "scope": "digests", "ok": True},
            "Origin of the files",
            "No file is missing, changed, or made from an earlier version of another file.",
        ),
        ("mine", {"ok": True, "summary": "ok: all is well"}, "mine", "ok: all is well"),
        ("mine", {"ok": True}, "mine", ""),
    ],
)
def test_a_check_is_described_in_words(name, check, title, text):
    [words] = checks_in_words({name: check})
    assert (words.title, words.ok, words.text) == (title, check["ok"], text)
