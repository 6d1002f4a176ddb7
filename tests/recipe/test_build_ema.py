import pytest
from helpers import RECIPES

from paddle_sparse_cb import InputError
from paddle_sparse_cb.recipe.build import build_ema
from paddle_sparse_cb.recipe.schema import read_recipe


def ema_callbacks(*options):
    return build_ema(read_recipe(RECIPES / "picodet_s_416_trees_sparse75.yml", options=options))


def test_paddledetections_ema_keys_create_an_ema_callback():
    assert ema_callbacks() == []
    [ema] = ema_callbacks("use_ema=true")
    assert (ema.decay, ema.decay_type, ema.cycle_epochs, ema.black_list) == (0.9998, "threshold", -1, ())
    [ema] = ema_callbacks(
        "use_ema=true",
        "cycle_epoch=40",
        "snapshot_epoch=10",
        "ema_decay=0.99",
        "ema_decay_type=exponential",
        "ema_black_list=[proj_conv.weight]",
    )
    # PaddleDetection counts a cycle in snapshots, at each of which it applies the average.
    assert (ema.decay, ema.decay_type, ema.cycle_epochs, ema.black_list) == (
        0.99,
        "exponential",
        400,
        ("proj_conv.weight",),
    )


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("use_ema=1", "use_ema must be true or false, got 1"),
        ("ema_decay=2", "use_ema: decay must be a fraction"),
        ("ema_decay_type=cosine", "use_ema: decay_type must be one of"),
        ("cycle_epoch=0", "use_ema: cycle_epochs must be a number"),
        ("ema_black_list=head", "use_ema: black_list must be a list"),
    ],
)
def test_an_invalid_ema_key_is_an_input_error_that_names_the_recipe(option, message):
    with pytest.raises(InputError) as error:
        ema_callbacks("use_ema=true", option)
    assert message in str(error.value)
    assert "picodet_s_416_trees_sparse75.yml" in str(error.value)
