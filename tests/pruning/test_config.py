import numpy as np
import pytest

from paddle_sparse_cb import InputError
from paddle_sparse_cb.pruning.config import PruningConfig


def test_numpy_scalars_are_as_good_as_pythons_numbers():
    config = PruningConfig(
        ratio=np.float32(0.75),
        initial_ratio=np.float16(0.15),
        stable_epochs=np.int8(100),
        pruning_epochs=np.int8(100),
        tunning_iterations=np.int32(5),
        pruning_steps=np.int64(4),
        sparse_block=(np.int64(2), np.int64(1)),
        regrow=np.bool_(True),
    )
    assert config == PruningConfig(
        0.75, 0.15, 100, 100, pruning_steps=4, tunning_iterations=5, sparse_block=(2, 1), regrow=True
    )
    assert {type(getattr(config, name)) for name in ("stable_epochs", "tunning_iterations")} == {int}
    assert config.regrow is True
    assert config.schedule(100, None).target_step == 20_000  # more than an np.int8 holds


@pytest.mark.parametrize("settings", [{"pruning_epochs": 1.0}, {"regrow": 1}, {"ratio": np.zeros(2)}, {"skip": "head"}])
def test_a_setting_of_another_type_is_an_error_of_one_line(settings):
    with pytest.raises(InputError, match=next(iter(settings))) as error:
        PruningConfig(**settings)
    assert "\n" not in str(error.value)
