import pytest
from helpers import RECIPES

from paddle_sparse_cb import InputError
from paddle_sparse_cb.recipe.build import build_ema
from paddle_sparse_cb.recipe.schema import read_recipe


def averaging(*options):
    return build_ema(read_recipe(RECIPES / "picodet_s_416_trees_sparse75.yml", options=options))


def test_paddledetections_keys_become_an_average():
    assert averaging() == []
    made, = averaging("use_ema=true")
    assert (made.decay, made.decay_type, made.cycle_epochs, made.black_list) == (0.9998, "threshold", -1, ())
    made, = averaging("use_ema=true", "cycle_epoch=40", "snapshot_epoch=10", "ema_decay=0.99",
                      "ema_decay_type=exponential", "ema_black_list=[proj_conv.weight]")
    # PaddleDetection applies the average, and counts that, at each snapshot.
    assert (made.decay, made.decay_type, made.cycle_epochs, made.black_list) == (
        0.99, "exponential", 400, ("proj_conv.weight",))


@pytest.mark.parametrize(("option", "said"), [
    ("use_ema=1", "use_ema must be true or false, got 1"), ("ema_decay=2", "use_ema: decay must be a fraction"),
    ("ema_decay_type=cosine", "use_ema: decay_type must be one of"), ("cycle_epoch=0", "use_ema: cycle_epochs must be a number"),
    ("ema_black_list=head", "use_ema: black_list must be a list")])
def test_bad_values_are_found_before_anything_is_trained(option, said):
    with pytest.raises(InputError) as error:
        averaging("use_ema=true", option)
    assert said in str(error.value)
    assert "picodet_s_416_trees_sparse75.yml" in str(error.value)
