import numpy as np
import pytest
from PIL import Image

from paddle_sparse_cb.detection.evaluation import ClassResult, Evaluation
from paddle_sparse_cb.detection.metric import CocoMAP
from paddle_sparse_cb.recipe.report_pictures import COMPARISON, write_pictures

NAMES = ["../../evil.png", "b c.png", "<c>.png", "d.png", "e.png", "f.png"]


@pytest.fixture
def records(tmp_path):
    """ppdet's records of six images with a box each; their names are those of a stranger."""
    images = tmp_path / "images" / "below" / "below"
    images.mkdir(parents=True)
    made = []
    for number, name in enumerate(NAMES):
        Image.new("RGB", (64, 48), "gray").save(images / name)
        made.append(
            {
                "im_file": str(images / name),
                "im_id": np.array([number]),
                "gt_bbox": np.array([[4.0, 5.0, 30.0, 40.0]], "float32"),
                "gt_class": np.array([[0]]),
            }
        )
    return made


@pytest.fixture
def metric():
    boxes = [
        {"id": n, "image_id": n, "category_id": 1, "bbox": [4, 5, 26, 35], "area": 910, "iscrowd": 0} for n in range(6)
    ]
    return CocoMAP({"images": [], "annotations": boxes, "categories": [{"id": 1, "name": "tree"}]}, list(range(6)))


def evaluation(boxes):
    return Evaluation(0.5, 0.5, [ClassResult("tree", 6, 0.5)], boxes)


def test_pictures_have_names_of_their_own_and_show_what_differs_most(tmp_path, records, metric):
    found = (0, 0.9, 4.0, 5.0, 30.0, 40.0)
    evaluations = {
        "dense": evaluation({n: [found] for n in range(6)}),
        "sparse": evaluation({n: [found] if n in (0, 1, 3) else [] for n in range(6)}),
    }
    output = tmp_path / "output"
    (output / "pictures").mkdir(parents=True)
    (output / "pictures" / "eval_9_dense.jpg").write_bytes(b"of an earlier run")
    pictures = write_pictures(output, records, records, metric, evaluations)
    assert [picture["image"] for picture in pictures if picture["split"] == "train"] == [
        "evil.png",
        "b c.png",
        "d.png",
        "e.png",
    ]
    shown = [picture for picture in pictures if picture["split"] == "eval"]
    assert [picture["image"] for picture in shown] == ["<c>.png", "e.png", "f.png", "evil.png"]
    assert [panel["title"] for panel in shown[0]["panels"]] == ["annotated", "dense", "sparse"]
    examples = [picture for picture in pictures if picture["split"] == "example"]
    assert [picture["image"] for picture in examples] == ["evil.png", "b c.png", "d.png", "e.png"]
    files = {panel["file"] for picture in pictures for panel in picture["panels"]}
    assert files | {COMPARISON} == {str(path.relative_to(output)) for path in (output / "pictures").iterdir()}
    assert len(files) == 4 + 2 * 4 * 3


def test_the_comparison_has_a_row_of_examples_for_each_network(tmp_path, records, metric):
    found = (0, 0.9, 4.0, 5.0, 30.0, 40.0)
    evaluations = {
        "dense": evaluation({n: [found] for n in range(6)}),
        "sparse": evaluation({n: [] for n in range(6)}),
    }
    write_pictures(tmp_path, records, records, metric, evaluations)
    pixels = np.asarray(Image.open(tmp_path / COMPARISON).convert("RGB")).astype(int)
    title = pixels.shape[0] // 2 - 360  # an image of 64 x 48 is enlarged to 480 x 360
    assert pixels.shape == (2 * (360 + title), 4 * 480 + 3 * 8, 3)
    dense, sparse = (pixels[top + title : top + title + 360] for top in (0, 360 + title))
    assert (abs(dense - 128).max(axis=2) > 60).any(axis=0)[:480].sum() > 150
    assert not (abs(sparse - 128).max(axis=2) > 60)[:, :480].any()


def test_a_dense_run_shows_examples_of_the_images_with_many_objects(tmp_path, records):
    counts = [3, 1, 3, 1, 3, 1]
    boxes = [
        {"id": 10 * n + k, "image_id": n, "category_id": 1, "bbox": [4, 5, 26, 35], "area": 910, "iscrowd": 0}
        for n, count in enumerate(counts)
        for k in range(count)
    ]
    truth = {"images": [], "annotations": boxes, "categories": [{"id": 1, "name": "tree"}]}
    pictures = write_pictures(
        tmp_path, records, records, CocoMAP(truth, list(range(6))), {"dense": evaluation({n: [] for n in range(6)})}
    )
    shown = [one for one in pictures if one["split"] != "train"]
    assert [one["image"] for one in shown] == ["evil.png", "<c>.png", "e.png"]
    assert [panel["title"] for panel in shown[0]["panels"]] == ["annotated", "dense"]
    assert (tmp_path / COMPARISON).is_file()


def test_an_image_that_is_gone_is_left_out_with_a_warning_and_ends_nothing(tmp_path, records, metric, capsys):
    for record in records[1:]:
        open(record["im_file"], "w").close()
    pictures = write_pictures(tmp_path, records, records, metric, {})
    assert [picture["image"] for picture in pictures] == ["evil.png"]
    assert "warning: the report has no picture of" in capsys.readouterr().out
    assert not (tmp_path / COMPARISON).exists()


def test_without_boxes_in_the_records_images_are_shown_as_they_are(tmp_path, records, metric):
    for record in records:
        del record["gt_bbox"]
    assert len(write_pictures(tmp_path, records[:2], records, metric, {})) == 2
