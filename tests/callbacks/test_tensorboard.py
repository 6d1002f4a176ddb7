import io
import os
import signal
import socket
import struct

import pytest
from helpers import curves, events, forked
from PIL import Image
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from paddle_sparse_cb.callbacks.tensorboard import SparsityWriter, read_curves


def test_tensorboard_reads_what_was_written(tmp_path):
    png = io.BytesIO()
    Image.new("RGB", (7, 5), "red").save(png, "png")
    writer = SparsityWriter(tmp_path)
    writer.text(1, "plan", "| weight |\n|---|\n| <b>a</b> |")
    writer.fractions(2, "layers", [0.0, 0.5, 0.76, 1.0])
    writer.image(3, "picture", png.getvalue(), 7, 5)
    writer.layout({"sparsity": {"zeros": ["Multiline", ["sparsity/actual", "sparsity/target"]]}})
    writer.hyperparameters({"ratio": 0.75, "scope": "uniform", "regrow": False}, ["eval/acc"])
    writer.scalars(3, {"sparsity/target": 0.75, "train/loss": 1.5})
    writer.end()
    writer.close()
    read = events(tmp_path)
    assert curves(tmp_path) == {"sparsity/target": [(3, 0.75)], "train/loss": [(3, 1.5)]}
    assert b"<b>a</b>" in read.Tensors("plan/text_summary")[0].tensor_proto.string_val[0]
    [histogram] = read.Histograms("layers")
    assert (histogram.step, histogram.histogram_value.num, histogram.histogram_value.max) == (2, 4, 1.0)
    assert histogram.histogram_value.sum == pytest.approx(2.26)
    [picture] = read.Images("picture")
    assert (picture.step, picture.width, picture.height) == (3, 7, 5)
    assert picture.encoded_image_string == png.getvalue()
    layout = Layout.FromString(read.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0])
    assert list(layout.category[0].chart[0].multiline.tag) == ["sparsity/actual", "sparsity/target"]
    content = read.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    settings = HParamsPluginData.FromString(content).session_start_info.hparams
    assert settings["ratio"].number_value == 0.75
    assert (settings["scope"].string_value, settings["regrow"].bool_value) == ("uniform", False)
    assert "_hparams_/session_end_info" in read.summary_metadata
    assert read_curves(tmp_path) == curves(tmp_path)


def test_a_resumed_training_replaces_the_events_from_its_first_step(tmp_path):
    for purge_step, steps in ((None, (1, 2, 3)), (3, (3, 4)), (None, (5,))):
        writer = SparsityWriter(tmp_path, purge_step)
        for step in steps:
            writer.scalars(step, {"train/loss": 10 * step + (purge_step or 0)})
        writer.close()
    assert curves(tmp_path)["train/loss"] == [(1, 10), (2, 20), (3, 33), (4, 43), (5, 50)]
    assert read_curves(tmp_path) == curves(tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


def test_event_files_reveal_neither_host_nor_process(tmp_path):
    SparsityWriter(tmp_path).close()
    [file] = tmp_path.iterdir()
    assert file.name.startswith("events.out.tfevents.")
    assert socket.gethostname() not in file.name
    assert str(os.getpid()) not in file.name.split(".")
    assert socket.gethostname().encode() not in file.read_bytes()


def write_and_be_killed(folder):
    SparsityWriter(folder).scalars(1, {"loss": 2.0})
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_training_loses_no_event(tmp_path):
    process = forked(write_and_be_killed, tmp_path)
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert curves(tmp_path) == {"loss": [(1, 2.0)]}


@pytest.mark.parametrize(
    "tail", [b"", b"\x07", b"\0" * 12, struct.pack("<QI", 2**40, 0), struct.pack("<QI", 3, 0) + b"\xff\xff\xff\0\0\0\0"]
)
def test_curves_are_read_up_to_a_damaged_record(tmp_path, tail):
    writer = SparsityWriter(tmp_path)
    writer.scalars(1, {"loss": 2.0})
    writer.close()
    [file] = tmp_path.iterdir()
    content = file.read_bytes()
    file.write_bytes(content + tail)
    assert read_curves(tmp_path) == {"loss": [(1, 2.0)]}
    file.write_bytes(content[:-2])  # as a killed process leaves it
    assert read_curves(tmp_path) == {}


def test_a_folder_without_event_files_has_no_curves(tmp_path):
    assert read_curves(tmp_path / "none") == {}
