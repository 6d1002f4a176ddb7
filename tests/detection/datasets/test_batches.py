import cv2
import numpy as np
import paddle
import pytest

from paddle_sparse_cb import InputError
from paddle_sparse_cb.detection.datasets.batches import CollateBatch, TransformSample, error_message
from paddle_sparse_cb.detection.network import EVAL_FIELDS

JPEG = cv2.imencode(".jpg", np.random.RandomState(0).randint(0, 256, (40, 60, 3), np.uint8))[1].tobytes()


def sample(path, content):
    path.write_bytes(content)
    return {"im_file": str(path), "im_id": 3}


def test_every_image_of_a_mosaic_is_checked_for_truncation(tmp_path):
    complete, truncated = sample(tmp_path / "0.jpg", JPEG), sample(tmp_path / "1.jpg", JPEG[:-2])
    assert TransformSample(len)([complete, complete]) == 2
    error = TransformSample(len)([complete, truncated])
    assert isinstance(error, InputError)
    assert str(error) == f"{tmp_path}/0.jpg, {tmp_path}/1.jpg: cannot be used: ValueError: truncated JPEG"


def test_a_file_that_has_been_removed_is_named(tmp_path):
    error = TransformSample(len)({"im_file": str(tmp_path / "gone.jpg")})
    assert str(error).startswith(f"{tmp_path}/gone.jpg: cannot be used: FileNotFoundError")


@pytest.mark.parametrize(
    "samples", [[InputError("cat.jpg: cannot be used")], [{"im_id": 3}, InputError("cat.jpg: cannot be used")]]
)
def test_the_error_of_a_sample_becomes_the_message_of_its_batch(samples):
    batch = [paddle.to_tensor(array) for array in CollateBatch(lambda samples: {}, EVAL_FIELDS)(samples)]
    assert error_message(batch) == "cat.jpg: cannot be used"


def test_a_batch_that_cannot_be_collated_names_its_images():
    batch = [paddle.to_tensor(array) for array in CollateBatch(lambda samples: {}, EVAL_FIELDS)([{"im_id": 3}])]
    assert error_message(batch) == "a batch of the images 3: cannot be used: KeyError: 'image'"


def test_evaluation_batches_leave_out_the_ground_truth():
    given = []
    fields = dict.fromkeys(EVAL_FIELDS, np.zeros([1, 1]))
    CollateBatch(lambda samples: given.extend(samples) or fields, EVAL_FIELDS)(
        [{"image": 1, "gt_bbox": 2, "difficult": 3, "is_crowd": 4}]
    )
    assert given == [{"image": 1}]


def test_a_batch_is_no_error():
    batch = CollateBatch(lambda samples: dict.fromkeys(EVAL_FIELDS, np.zeros([1, 1])), EVAL_FIELDS)([{}])
    assert error_message([paddle.to_tensor(array) for array in batch]) == ""
    assert [array.dtype for array in batch] == [np.float32, np.float32, np.int64]
