import os
import shutil

import numpy as np
import pytest

from paddle_sparse_cb.detection import fonts
from paddle_sparse_cb.detection.drawing import draw_boxes
from paddle_sparse_cb.detection.fonts import find_font, has_letters

ARC = "\u2312"  # DejaVu Sans does not have it, and STIX, which comes with matplotlib too, does


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The only folder with fonts of the system."""
    monkeypatch.setattr(fonts, "FOLDERS", (str(tmp_path),))
    find_font.cache_clear()
    yield tmp_path
    find_font.cache_clear()


def install(folder, name="STIXGeneral.ttf", target=None):
    return shutil.copy(find_font("").with_name(name), folder / (target or name))


def test_letters_are_those_that_a_font_draws(folder):
    assert find_font("").name == "DejaVuSans.ttf"
    assert has_letters(find_font(""), "Kühe и λ 42")
    assert not has_letters(find_font(""), f"a{ARC}")


def test_a_font_of_the_system_draws_what_dejavu_sans_cannot(folder):
    (folder / "Below").mkdir()
    (folder / "Below" / "a.ttf").write_bytes(b"no font")
    install(folder, target="ABold.ttf")
    regular = install(folder / "Below")
    assert find_font(f"a{ARC}") == regular
    assert find_font("a").name == "DejaVuSans.ttf"
    assert find_font(f"松{ARC}").name == "DejaVuSans.ttf"  # no font has both


def test_a_class_is_drawn_by_its_name_if_a_font_has_it_and_by_its_number_otherwise(folder):
    image, boxes = np.full((400, 600, 3), 128, np.uint8), [(0, 0.5, 50, 60, 200, 200)]
    by_number = draw_boxes(image, boxes, [ARC])
    np.testing.assert_array_equal(by_number, draw_boxes(image, boxes, ["class 0"]))
    install(folder)
    find_font.cache_clear()
    assert (draw_boxes(image, boxes, [ARC]) != by_number).any()


def test_a_font_without_digits_is_not_taken_for_labels_with_scores(folder):
    image, boxes = np.full((400, 600, 3), 128, np.uint8), [(0, 0.5, 50, 60, 200, 200)]
    install(folder, "STIXSizFiveSymReg.ttf")  # braces alone
    brace = "\u23b4"
    assert find_font(brace) == folder / "STIXSizFiveSymReg.ttf"
    np.testing.assert_array_equal(draw_boxes(image, boxes, [brace]), draw_boxes(image, boxes, ["class 0"]))


def test_what_is_no_file_is_no_font_and_a_user_needs_no_home(folder, monkeypatch):
    os.mkfifo(folder / "a.ttf")
    monkeypatch.setattr(fonts, "FOLDERS", (*fonts.FOLDERS, "~nobody_of_this_name/fonts"))
    assert find_font(ARC).name == "DejaVuSans.ttf"
