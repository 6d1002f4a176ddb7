"""Writes a small intact file of every kind that the package reads, for `tools/fuzz.py` to damage."""

import json
from pathlib import Path

RECIPES = Path(__file__).parent.parent / "recipes"
IMAGES = ("0.jpg", "1.png", "2.png", "3.jpg")
SIDE = 64  # pixels
BOX = 8, 8, 40, 40  # x1, y1, x2, y2
SLIM = {
    "slim": "UnstructuredPruner",
    "UnstructuredPruner": {
        "stable_epochs": 0,
        "pruning_epochs": 1,
        "tunning_epochs": 1,
        "pruning_steps": 2,
        "ratio": 0.75,
        "initial_ratio": 0.2,
        "prune_params_type": "conv1x1_only",
    },
}


def network():
    """Returns a network with one layer to prune."""
    import paddle
    from paddle import nn

    paddle.seed(0)
    return nn.Sequential(
        nn.Conv2D(3, 8, 3, padding=1),
        nn.BatchNorm2D(8),
        nn.ReLU(),
        nn.Conv2D(8, 16, 1),
        nn.ReLU(),
        nn.Conv2D(16, 4, 3, padding=1),
    )


def model():
    """Returns the network with its optimizer; parameters are numbered as in a new process."""
    import paddle
    from paddle import nn

    with paddle.utils.unique_name.guard():
        prepared = paddle.Model(network())
        rate = paddle.optimizer.lr.CosineAnnealingDecay(0.01, 10)
        prepared.prepare(paddle.optimizer.Momentum(rate, parameters=prepared.network.parameters()), nn.MSELoss())
        return prepared


def checkpoint(folder: Path) -> None:
    """Writes `0.pdparams`, `0.pdopt` and `0.pdsparse`."""
    import paddle

    from paddle_sparse_cb import Checkpoints, SparsityCallback

    data = paddle.io.TensorDataset([paddle.rand([8, 3, 8, 8]), paddle.rand([8, 4, 8, 8])])
    model().fit(
        data,
        epochs=2,
        batch_size=4,
        verbose=0,
        callbacks=[Checkpoints(folder), SparsityCallback(ratio=0.75, pruning_epochs=1, tunning_epochs=1)],
    )


def exported(folder: Path) -> None:
    """Writes `model.pdmodel` with its weights, `model.nb`, `model.onnx` and `model.mnn`."""
    from paddle.static import InputSpec

    from paddle_sparse_cb.deploy.export import export
    from paddle_sparse_cb.deploy.lite.optimizer import optimize
    from paddle_sparse_cb.deploy.mnn.converter import convert
    from paddle_sparse_cb.deploy.onnx import export_onnx

    pruned = network()
    weight = pruned[3].weight.numpy()
    weight.reshape(-1)[::4] += 2
    pruned[3].weight.set_value(weight * (weight > 1))
    prefix = export(pruned, folder / "model", [InputSpec([1, 3, 8, 8], "float32", "image")])
    optimize(prefix, folder / "model.nb", sparse=True)
    convert(export_onnx(prefix, folder / "model.onnx"), folder / "model.mnn", sparse=True)


def coco(folder: Path) -> None:
    """Writes `coco.json`, `images/`, `recipe.yml` and `infer_cfg.yml`."""
    from paddle_sparse_cb.detection.infer_config import NAME, InferConfig

    resize = {"type": "Resize", "target_size": [64, 64], "keep_ratio": False, "interp": 2}
    InferConfig((resize, {"type": "NormalizeImage"}, {"type": "Permute"}), ("thing",)).write(folder / NAME)
    _images(folder / "images")
    x1, y1, x2, y2 = BOX
    box = [x1, y1, x2 - x1, y2 - y1]
    content = {
        "images": [{"id": n, "file_name": name, "height": SIDE, "width": SIDE} for n, name in enumerate(IMAGES, 1)],
        "annotations": [
            {"id": n, "image_id": n, "category_id": 1, "bbox": box, "area": 1024, "iscrowd": 0}
            for n, _ in enumerate(IMAGES, 1)
        ],
        "categories": [{"id": 1, "name": "thing"}],
    }
    (folder / "coco.json").write_text(json.dumps(content))
    _recipe(folder, {"name": "COCODataSet", "image_dir": "images", "anno_path": "coco.json"})


def with_slim_file(folder: Path) -> None:
    """Writes a dense `recipe.yml`, and a `slim.yml` of PaddleDetection's format."""
    import yaml

    coco(folder)
    dense = yaml.safe_load((folder / "recipe.yml").read_text())
    del dense["Sparsity"]
    (folder / "recipe.yml").write_text(yaml.safe_dump(dense))
    (folder / "slim.yml").write_text(yaml.safe_dump(SLIM))


def voc(folder: Path) -> None:
    """Writes `list.txt`, `label_list.txt`, `images/` with annotations, and `recipe.yml`."""
    _images(folder / "images")
    corners = "".join(f"<{name}>{value}</{name}>" for name, value in zip(("xmin", "ymin", "xmax", "ymax"), BOX))
    for name in IMAGES:
        (folder / "images" / name).with_suffix(".xml").write_text(
            f"<annotation>\n<size><width>{SIDE}</width><height>{SIDE}</height><depth>3</depth></size>\n<object>"
            f"<name>thing</name><difficult>0</difficult><bndbox>{corners}</bndbox></object>\n</annotation>\n"
        )
    (folder / "list.txt").write_text("".join(f"images/{name} images/{name[0]}.xml\n" for name in IMAGES))
    (folder / "label_list.txt").write_text("thing\n")
    _recipe(folder, {"name": "VOCDataSet", "anno_path": "list.txt", "label_list": "label_list.txt"})


def report(folder: Path) -> None:
    """Writes `report.json` and `evaluations.json`."""
    evaluations = [{"epoch": epoch, "sparsity": 0.25 * epoch, "mAP": 0.3, "AP50": None} for epoch in range(4)]
    (folder / "evaluations.json").write_text(json.dumps(evaluations))
    row = {
        "name": "dense",
        "model": "PicoDet LCNet x0.75",
        "input_size": [416, 416],
        "target_sparsity": 0.0,
        "sparsity": 0.0,
        "map": 0.3,
        "ap50": 0.5,
        "nb_bytes": 4930000,
        "sparse_convs": 0,
        "convs": 98,
    }
    (folder / "report.json").write_text(
        json.dumps(
            {
                "recipe": "a",
                "paddle": "2.6.2",
                "seed": 0,
                "digest": "0" * 64,
                "rows": [row, {**row, "name": "sparse"}],
                "layers": [],
                "checks": {},
            }
        )
    )


def _images(folder: Path) -> None:
    import cv2
    import numpy as np

    folder.mkdir()
    for n, name in enumerate(IMAGES):
        noise = np.random.RandomState(n).randint(0, 60, (SIDE, SIDE, 3), np.uint8)
        noise[BOX[1] : BOX[3], BOX[0] : BOX[2]] += 150
        cv2.imwrite(str(folder / name), noise)


def _recipe(folder: Path, dataset: dict[str, str]) -> None:
    """Writes a recipe of the smallest network and image size as one file without bases."""
    import yaml

    from paddle_sparse_cb.detection import config

    content = config.read_with_bases(RECIPES / "picodet_s_garments_sparse75.yml")
    content.update(pretrain_weights=None, num_classes=1, save_dir="output")
    content["LCNet"]["scale"] = 0.25
    content["TestReader"]["inputs_def"]["image_shape"] = [1, 3, SIDE, SIDE]
    for split in ("Train", "Eval"):
        fields = ["image", "gt_bbox", "gt_class", "difficult" if dataset["name"] == "VOCDataSet" else "is_crowd"]
        content[f"{split}Dataset"] = {**dataset, "dataset_dir": str(folder), "data_fields": fields}
        resize = {"Resize": {"target_size": [SIDE, SIDE], "keep_ratio": False}}
        content[f"{split}Reader"]["sample_transforms"].insert(1, resize)
        content[f"{split}Reader"]["batch_size"] = 2
    (folder / "recipe.yml").write_text(yaml.safe_dump(content))


MAKERS = {
    "checkpoint": checkpoint,
    "exported": exported,
    "coco": coco,
    "slim": with_slim_file,
    "voc": voc,
    "report": report,
}


def make(folder: Path) -> None:
    """Writes each set of files to its own subfolder."""
    for name, maker in MAKERS.items():
        (folder / name).mkdir(parents=True)
        maker(folder / name)
