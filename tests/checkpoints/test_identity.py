"""A resumed training that is another one is told apart, and a difference can be allowed."""

import paddle
import pytest
from paddle import nn

from paddle_sparse_cb import Checkpoints, InputError, SparsityCallback
from paddle_sparse_cb.checkpoints.state import TrainingState, load_state, save_state


def momentum(rate=0.1, momentum=0.9, **keywords):
    return lambda parameters: paddle.optimizer.Momentum(rate, momentum, parameters=parameters, **keywords)


def scheduled(schedule):
    return lambda parameters: paddle.optimizer.Momentum(schedule(), parameters=parameters)


def clipped(norm):
    return momentum(grad_clip=nn.ClipGradByGlobalNorm(norm))


def cosine(steps, rate=0.1):
    return scheduled(lambda: paddle.optimizer.lr.CosineAnnealingDecay(rate, steps))


def warmup(steps):
    return scheduled(
        lambda: paddle.optimizer.lr.LinearWarmup(paddle.optimizer.lr.CosineAnnealingDecay(0.1, steps), 2, 0, 0.1)
    )


def train(folder, optimizer=None, samples=32, epochs=1, resume=None, allow=False, digest=None, **keywords):
    """Trains an epoch, or another one from a checkpoint; batches of 8, so that 4 are an epoch."""
    with paddle.utils.unique_name.guard():
        network = nn.Linear(6, 4)
        model = paddle.Model(network)
        model.prepare((optimizer or momentum())(network.parameters()), nn.CrossEntropyLoss())
        data = paddle.io.TensorDataset([paddle.rand([samples, 6]), paddle.randint(0, 4, [samples, 1])])
        if digest:
            data.digest = digest
        sparsity = SparsityCallback(
            ratio=0.5,
            pruning_iterations=1,
            tunning_iterations=0,
            prune_params_type=None,
            resume=resume,
            allow_config_change=allow,
        )
        callbacks = [sparsity, Checkpoints(folder)]
        model.fit(data, verbose=0, callbacks=callbacks, **{"batch_size": 8, "epochs": epochs, **keywords})
    return model


DIFFERENCES = {
    "class": ({}, {"optimizer": lambda p: paddle.optimizer.SGD(0.1, parameters=p)}, "type is Momentum in the check"),
    "momentum": ({}, {"optimizer": momentum(momentum=0.5)}, "momentum is 0.9 in the checkpoint and 0.5 in this run"),
    "nesterov": ({}, {"optimizer": momentum(use_nesterov=True)}, "use_nesterov is False in the checkpoint and True"),
    "rate": ({}, {"optimizer": momentum(1.0)}, "learning_rate is 0.1 in the checkpoint and 1.0 in this run"),
    "decay": (
        {"optimizer": momentum(weight_decay=1e-4)},
        {"optimizer": momentum(weight_decay=1e-3)},
        "0.0001 in the checkpoint and 0.001 in this run",
    ),
    "clip": ({"optimizer": clipped(1.0)}, {"optimizer": clipped(2.0)}, "clip_norm is 1.0 in the checkpoint and 2.0"),
    "schedule": (
        {"optimizer": cosine(7)},
        {"optimizer": scheduled(lambda: paddle.optimizer.lr.StepDecay(0.1, 7))},
        "learning_rate: type is CosineAnnealingDecay in the checkpoint and StepDecay in this run",
    ),
    "schedule's length": ({"optimizer": cosine(7)}, {"optimizer": cosine(9)}, "T_max is 7 in the checkpoint and 9"),
    "schedule's rate": ({"optimizer": cosine(7)}, {"optimizer": cosine(7, 1.0)}, "base_lr is 0.1 in the checkpoint"),
    "schedule within": ({"optimizer": warmup(7)}, {"optimizer": warmup(9)}, "T_max is 7 in the checkpoint and 9"),
    "batch size of as many batches": (
        {"samples": 32},
        {"samples": 32, "batch_size": 9},
        "data: batch_size is 8 in the checkpoint and 9 in this run",
    ),
    "an image more": ({"samples": 30}, {"samples": 31}, "data: samples is 30 in the checkpoint and 31 in this run"),
    "content of the data": ({"digest": "5e"}, {"digest": "a7"}, "data: digest is 5e in the checkpoint and a7 in this"),
    "order": ({}, {"shuffle": False}, "data: shuffle is True in the checkpoint and False in this run"),
    "accumulation": ({}, {"accumulate_grad_batches": 4}, "accumulate_grad_batches is 1 in the checkpoint and 4"),
}


@pytest.mark.parametrize(("saved", "resumed", "message"), DIFFERENCES.values(), ids=DIFFERENCES)
def test_resuming_another_training_is_an_input_error_that_names_both_values(tmp_path, saved, resumed, message):
    train(tmp_path, **saved)
    with pytest.raises(InputError, match=message):
        train(tmp_path, resume=tmp_path / "0.pdsparse", **resumed)


@pytest.mark.parametrize("optimizer", [momentum(), clipped(1.0), cosine(7), warmup(7)])
def test_resuming_the_same_training_is_no_difference(tmp_path, optimizer):
    train(tmp_path, optimizer)
    train(tmp_path, optimizer, resume=tmp_path / "0.pdsparse")


def test_an_allowed_difference_is_told_and_the_new_learning_rate_is_used(tmp_path):
    train(tmp_path)
    with pytest.warns(UserWarning, match="learning_rate is 0.1 in the checkpoint and 1.0 in this run; the resumed"):
        model = train(tmp_path, momentum(1.0), resume=tmp_path / "0.pdsparse", allow=True)
    assert model._optimizer.get_lr() == 1.0


def test_a_checkpoint_of_another_version_of_paddle_is_told(tmp_path):
    train(tmp_path)
    path = tmp_path / "0.pdsparse"
    state = load_state(path)
    save_state(TrainingState(**{**vars(state), "versions": {"paddle": "2.4.0"}}), path)
    with pytest.warns(UserWarning, match=r"0\.pdsparse: written with paddle 2\.4\.0, and this is"):
        train(tmp_path, resume=path)


def test_a_checkpoint_without_an_identity_can_be_resumed(tmp_path):
    train(tmp_path)
    path = tmp_path / "0.pdsparse"
    state = load_state(path)
    training = {key: value for key, value in state.training.items() if key not in ("identity", "learning_rate")}
    save_state(TrainingState(**{**vars(state), "training": training}), path)
    train(tmp_path, resume=path)


@pytest.mark.parametrize("kind", ["LookAhead", "ModelAverage"])
def test_checkpoints_refuse_an_optimizer_whose_state_paddle_saves_in_part(tmp_path, kind):
    def make(parameters):
        if kind == "LookAhead":
            return paddle.incubate.LookAhead(momentum()(parameters))
        return paddle.incubate.ModelAverage(0.15, parameters)

    with pytest.raises(InputError, match=f"Checkpoints: {kind} cannot be resumed, because Paddle saves only a part"):
        train(tmp_path, make)
    assert not list(tmp_path.iterdir())
