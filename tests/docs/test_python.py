"""The Python in the pages runs as printed: all blocks of a page in their order, in one namespace."""

import ast
import re
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import paddle
import pytest
from doc_pages import DOCS, README, README_CN, ROOT, blocks, name
from helpers import CORE_ONLY, PADDLE3, classifier, curves, same_on_paddle_3
from sklearn.datasets import load_digits

from paddle_sparse_cb import measure_sparsity

WITHOUT_DETECTION = ("ppdet", "pycocotools")


def digits(images, size, channels):
    """Real digits, resized to the input size and channels of a network."""
    pixels, labels = load_digits(return_X_y=True)
    pixels = paddle.to_tensor(pixels[:images].reshape(-1, 1, 8, 8).astype("float32") / 16)
    pixels = paddle.nn.functional.interpolate(pixels, [size, size]).expand([-1, channels, -1, -1])
    return paddle.io.TensorDataset([pixels, paddle.to_tensor(labels[:images].reshape(-1, 1))])


def lenet():
    network = paddle.vision.models.LeNet()
    return {"network": network, "model": classifier(network), "train_data": digits(128, 28, 1)}


def paddleslim_file():
    """A checkpoint as PaddleSlim's pruner leaves it: dense weights, and a mask beside them."""
    arrays = {
        "0.weight": np.ones([4, 2, 1, 1], "float32"),
        "0.bias": np.zeros([4], "float32"),
        "0.conv2d_0_w_0_mask": np.arange(8).reshape(4, 2, 1, 1) % 2 == 0,
    }
    paddle.save({key: paddle.to_tensor(array) for key, array in arrays.items()}, "paddleslim.pdparams")
    return {"network": paddle.nn.Sequential(paddle.nn.Conv2D(2, 4, 1))}


def photograph():
    """A portrait that comes with matplotlib."""
    folder = Path(find_spec("matplotlib").submodule_search_locations[0], "mpl-data", "sample_data")
    Path("photo.jpg").write_bytes((folder / "grace_hopper.jpg").read_bytes())
    return {}


# What a reader of a page has before the first block; nothing, if a page is not here.
PREPARED = {
    "README.md": lambda: {"train_data": digits(8, 32, 3)},
    "docs/network.md": lambda: {"train_data": digits(8, 32, 3)},
    "docs/curves.md": lenet,
    "docs/resume.md": lambda: {"train_data": digits(128, 28, 1)},
    "docs/distillation.md": lambda: {"train_data": digits(128, 28, 1)},
    "docs/sensitivity.md": lambda: {"train_data": digits(128, 28, 1)},
    "docs/paddledetection.md": paddleslim_file,
    "docs/predict.md": photograph,
}
CONTINUED = {"docs/mnn.md": "docs/deploy.md"}  # pages that continue another one
DETECTION = {"docs/predict.md"}


def python(page):
    """The blocks that run here."""
    found = [block for block in blocks(page) if block.language == "python" and not block.not_run]
    return [block for block in found if not (PADDLE3 and "QuantizeInt8(" in block.code)]  # Paddle 3 cannot quantize


PAGES = {name(page): python(page) for page in [README, *sorted(DOCS.rglob("*.md"))] if python(page)}


@pytest.fixture
def execute(tmp_path, monkeypatch, capsys):
    """Executes the blocks of a page in an empty folder; returns the names that they bind and what they print."""
    monkeypatch.chdir(tmp_path)

    def run(page):
        if page not in DETECTION:
            for module in WITHOUT_DETECTION:
                monkeypatch.setitem(sys.modules, module, None)
        first = CONTINUED.get(page)
        with paddle.utils.unique_name.guard():  # as in a process of its own
            names = PREPARED.get(page, dict)()
            for block in [*(PAGES[first] if first else []), *PAGES[page]]:
                code = "\n" * block.line + block.code  # so that a traceback has the lines of the page
                exec(compile(code, str(ROOT / name(block.page)), "exec"), names)
        return names, capsys.readouterr().out

    return run


def announced(page):
    """The literals in comments behind `print`: what the page says is printed."""
    for block in PAGES[page]:
        for comment in re.findall(r"^print\(.*\)  # (.*)$", block.code, re.M):
            try:
                yield ast.literal_eval(comment)
            except SyntaxError:
                continue  # a remark


def run_and_compare(execute, page):
    names, printed = execute(page)
    for value in announced(page):
        assert str(value) in printed
    return names, printed


def test_every_page_with_code_is_executed():
    tested = set(re.findall(r'run_and_compare\(execute, "([^"]+)"\)', Path(__file__).read_text(encoding="utf-8")))
    assert tested | set(CONTINUED.values()) == set(PAGES), "a page with code has no test below, or the other way round"


def test_blocks_that_do_not_run_say_why():
    pages = [README, README_CN, *sorted(DOCS.rglob("*.md"))]
    assert [str(block) for page in pages for block in blocks(page) if block.not_run and len(block.not_run) < 8] == []


@pytest.mark.slow
def test_readme(execute):
    names, printed = run_and_compare(execute, "README.md")
    assert "pruned weights 75.0" in printed
    assert list(Path("curves").iterdir())
    code = PAGES["README.md"][0].code.replace("mobilenet_v3_small(num_classes=10)", "LeNet()")
    names = {"train_data": digits(16, 28, 1)}
    exec(code, names)  # "so this works for LeNet too"
    assert names["sparsity"].report.ratio >= 0.75


@pytest.mark.slow
def test_own_network(execute, recwarn):
    names, printed = run_and_compare(execute, "docs/network.md")
    plan = names["sparsity"].pruner.plan  # of the training that goes on, without a warning that the zeros will be lost
    assert measure_sparsity(names["model"].network, plan).ratio >= 0.75
    assert [str(one.message) for one in recwarn if "will become non-zero" in str(one.message)] == []
    assert re.search(r"^nb: ok: (\d+) of \1 planned layers run sparse", printed, re.M), printed
    output = Path("output/mine")
    assert (output / "model_sparse.nb").stat().st_size < (output / "model_dense.nb").stat().st_size
    assert names["pruner"].is_at_target


@pytest.mark.slow
def test_curves(execute):
    _, printed = run_and_compare(execute, "docs/curves.md")
    assert "weights are pruned to 75.00%" in printed
    assert "target_sparsity: 0.7500" in printed
    assert [step for step, _ in curves("output/sparse")["eval/acc"]] == [0, 2, 4]


@pytest.mark.slow
def test_resume(execute):
    names, _ = run_and_compare(execute, "docs/resume.md")
    assert names["sparsity"].pruner.cur_iteration == 8
    again, _ = execute("docs/resume.md")  # "Run the script again, and it resumes": here with nothing left to do
    assert again["resume"].position.epoch == 3


@pytest.mark.slow
def test_distillation(execute):
    names, _ = run_and_compare(execute, "docs/distillation.md")
    assert names["sparsity"].report.ratio == pytest.approx(0.75, abs=1e-4)
    assert {"train/distillation/logits", "train/distillation/features"} <= curves("curves").keys()


@pytest.mark.slow
def test_sensitivity(execute):
    names, printed = run_and_compare(execute, "docs/sensitivity.md")
    assert "target sparsity at least 0.75, reached 0.75" in printed
    assert Path("sensitivity.json").is_file()
    ratios = {layer.name: layer.ratio for layer in names["sparsity"].report.layers if layer.pruned}
    assert ratios == {
        name: pytest.approx(ratio, abs=0.05) for name, ratio in names["allocation"].ratios.items() if ratio
    }


@same_on_paddle_3
def test_ratios(execute):
    names, printed = run_and_compare(execute, "docs/ratios.md")
    rows = [line.split()[-4:] for line in printed.splitlines()]
    assert ["60.00%", "4x1", "pruned"] in [row[1:] for row in rows]
    assert ["87.50%", "2x1", "pruned"] in [row[1:] for row in rows]
    assert "4x1 does not divide it" in printed
    before, after = re.search(r"^0.weight: (\S+)% -> (\S+)% of", printed, re.M).groups()
    assert float(after) > float(before)
    assert str(names["schedule"].target_step) == "20"


def test_masks_of_a_paddleslim_checkpoint(execute):
    names, _ = run_and_compare(execute, "docs/paddledetection.md")
    assert names["masked"] == ("0.weight",)
    assert names["arrays"]["0.weight"].ravel().tolist() == [1, 0, 1, 0, 1, 0, 1, 0]
    assert names["pruner"].sparsity() >= 0.75


def test_engine(execute):
    run_and_compare(execute, "docs/engine.md")
    assert list(announced("docs/engine.md"))


@pytest.mark.skipif(CORE_ONLY, reason="PicoDet needs PaddleDetection")
@pytest.mark.slow
def test_prediction(execute):
    _, printed = run_and_compare(execute, "docs/predict.md")
    assert {line.split()[0] for line in printed.splitlines() if re.match(r"\w+ 0\.\d", line)} == {"person", "tie"}


@pytest.mark.slow
def test_deployment_makes_verified_files_of_the_sizes_in_its_table(execute):
    kinds = ["dense", "sparse"] if PADDLE3 else ["dense", "sparse", "int8_dense", "int8_sparse"]
    _, printed = run_and_compare(execute, "docs/mnn.md")
    assert "nb: ok: 34 of 34 planned layers run sparse; " in printed
    assert "mnn: ok: 34 of 34 planned layers run sparse; " in printed
    output = Path("output")
    programs = {path.name for path in output.glob("inference/*")}
    assert programs == {"model.pdmodel", "model.pdiparams", "model.pdiparams.info"}
    assert {path.name for path in output.glob("*.nb")} == {f"model_{kind}.nb" for kind in kinds}
    (row,) = re.findall(r"\| mobilenet_v2 \| 95% +\| 34 of 52 +\|(.*)\|", (DOCS / "deploy.md").read_text())
    sizes = [int(cell.replace(",", "")) for cell in row.split("|")]
    # Padding depends on the positions of the zeros, INT8 rounding to zero on the weights.
    found = [(output / f"model_{kind}.nb").stat().st_size for kind in kinds]
    assert found == pytest.approx(sizes[: len(kinds)], rel=0.01)
