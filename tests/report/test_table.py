import pytest

from paddle_sparse_cb.report.table import report_table


def words(line):
    return line.split()


def test_the_table_shows_percentages_and_megabytes(report):
    _, _, dense, sparse, *_ = report_table(report).splitlines()
    assert words(dense) == ["dense", "PicoDet", "320x416", "0.00%", "30.9", "-", "-", "-"]
    assert words(sparse) == ["sparse", "PicoDet", "320x416", "75.01%", "27.6", "50.0", "5.41", "101", "of", "106"]


@pytest.mark.parametrize(
    ("checkpoint", "caption"),
    [
        ("best_model", "Exported checkpoint: best_model (best mAP at the target sparsity)"),
        ("final", "Exported checkpoint: final (end of the training)"),
        ("7", "Exported checkpoint: 7"),
    ],
)
def test_the_caption_names_the_exported_checkpoint(report, checkpoint, caption):
    report["checkpoint"] = checkpoint
    assert report_table(report).splitlines()[4:] == [caption]


def test_there_is_no_caption_when_nothing_was_exported(report):
    report["checkpoint"] = None
    assert len(report_table(report).splitlines()) == 4


def test_a_note_explains_a_missing_dense_row(report):
    del report["rows"][0]
    report["dense_note"] = "the weights have other classes"
    lines = report_table(report).splitlines()
    assert words(lines[2])[0] == "sparse"
    assert lines[-1] == "No dense row: the weights have other classes"
