"""`Distillation` adds exact terms to the loss of a `fit`, and leaves everything else as it was."""

import contextlib
import copy
import itertools
import warnings

import numpy as np
import paddle
import pytest
from helpers import classifier, curves
from paddle import nn
from paddle.distributed.fleet.utils import recompute

from paddle_sparse_cb import (
    Checkpoints,
    Distillation,
    EMACallback,
    InputError,
    ResumableCallbacks,
    SkipBatchesLoader,
    SparsityCallback,
    find_checkpoint,
)
from paddle_sparse_cb.callbacks.distillation_losses import SoftenedLogits, by_channel, feature_distance
from paddle_sparse_cb.callbacks.progress import TrainingProgress
from paddle_sparse_cb.checkpoints.verify import verify_checkpoints
from paddle_sparse_cb.utils.layers import network_digest
from paddle_sparse_cb.utils.weight_files import load_arrays


def net(width=6, classes=4):
    return nn.Sequential(nn.Linear(8, width), nn.BatchNorm1D(width), nn.Tanh(), nn.Linear(width, classes))


@pytest.fixture
def teacher():
    return net(width=12)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(3)
    labels = paddle.to_tensor(rng.integers(0, 4, [32, 1]))
    return paddle.io.TensorDataset([paddle.to_tensor(rng.random([32, 8], "float32")), labels])


class Record(paddle.callbacks.Callback):
    """Records the losses of each training batch, and of each evaluation."""

    def __init__(self):
        super().__init__()
        self.losses, self.evaluations = [], []

    def on_train_batch_end(self, step, logs=None):
        self.losses.append(list(logs["loss"]))

    def on_eval_end(self, logs=None):
        self.evaluations.append(list(logs["loss"]))


def fit(data, network, *callbacks, evaluate=False, **keywords):
    """Trains for an epoch of four batches; returns the model and what was recorded."""
    record, model = Record(), classifier(network, 0.1, "SGD")
    keywords = {"batch_size": 8, "verbose": 0, "shuffle": False, **keywords}
    model.fit(data, data if evaluate else None, callbacks=[*callbacks, record], **keywords)
    return model, record


def log_softmax(logits):
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def test_softened_logits_are_the_scaled_divergence_of_hinton():
    rng = np.random.default_rng(0)
    ours, theirs = rng.normal(size=(2, 5, 3, 7))
    student = paddle.to_tensor(ours, stop_gradient=False)
    found = SoftenedLogits(3.0)(student, paddle.to_tensor(theirs))["logits"]
    log_ours, log_theirs = log_softmax(ours / 3), log_softmax(theirs / 3)
    expected = 9 * (np.exp(log_theirs) * (log_theirs - log_ours)).sum(-1).mean()
    np.testing.assert_allclose(float(found), expected, rtol=1e-6)
    found.backward()  # T * (softmax(student / T) - softmax(teacher / T)) / rows
    np.testing.assert_allclose(
        student.grad.numpy(), 3 * (np.exp(log_ours) - np.exp(log_theirs)) / 15, rtol=1e-5, atol=1e-9
    )


@pytest.mark.parametrize(("shape", "axis"), [([6, 5], 1), ([3, 7, 5], 2), ([3, 5, 4, 2], 1)])
def test_features_are_compared_channel_by_channel_whatever_their_scales(shape, axis):
    rng = np.random.default_rng(1)
    ours, theirs = rng.normal(size=(2, *shape))
    pairs = [
        np.corrcoef(one.ravel(), other.ravel())[0, 1]
        for one, other in zip(np.moveaxis(ours, axis, 0), np.moveaxis(theirs, axis, 0))
    ]
    scaled = by_channel(paddle.to_tensor(20 * ours + 3)), by_channel(paddle.to_tensor(0.5 * theirs - 1))
    np.testing.assert_allclose(float(feature_distance(*scaled)), 2 * (1 - np.mean(pairs)), rtol=1e-4)


def test_half_precision_is_compared_in_float32():
    ours, theirs = (paddle.rand([4, 6]) * 300 for _ in range(2))
    halves = ours.astype("bfloat16"), theirs.astype("bfloat16")
    found = SoftenedLogits(1.0)(*halves)["logits"]
    assert found.dtype == paddle.float32
    expected = SoftenedLogits(1.0)(*(half.astype("float32") for half in halves))["logits"]
    assert float(found) == float(expected)


def test_a_step_is_that_of_the_sum_of_the_losses(data, teacher):
    network = net()
    reference, start = copy.deepcopy(network), network_digest(teacher)
    distillation = Distillation(teacher, temperature=2.0, weight=0.7, features={"3": "3"}, feature_weight=0.3)
    _, record = fit(data, network, distillation, batch_size=32)

    teacher.eval()
    reference.train()
    images, labels = data[:]
    outputs = reference(images)
    label_loss = nn.CrossEntropyLoss()(outputs, labels)
    with paddle.no_grad():
        targets = teacher(images)
    logits = 0.7 * SoftenedLogits(2.0)(outputs, targets)["logits"]
    features = 0.3 * feature_distance(by_channel(outputs), by_channel(targets))
    np.testing.assert_allclose(record.losses, [[float(label_loss), float(logits), float(features)]], rtol=1e-6)
    (label_loss + logits + features).backward()
    optimizer = paddle.optimizer.SGD(0.1, parameters=reference.parameters())
    optimizer.step()
    for ours, expected in zip(network.parameters(), reference.parameters()):
        np.testing.assert_allclose(ours.numpy(), expected.numpy(), rtol=1e-5, atol=1e-7)
    assert network_digest(teacher) == start
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_evaluations_have_the_loss_of_the_model_alone(data, teacher):
    _, record = fit(data, net(), Distillation(teacher), evaluate=True)
    assert {len(losses) for losses in record.losses} == {2}
    assert {len(losses) for losses in record.evaluations} == {1}


def test_the_teacher_gets_its_modes_back_and_keeps_its_bits(data, teacher):
    teacher.train()
    teacher[1].eval()
    modes, digest = [layer.training for layer in teacher.sublayers(include_self=True)], network_digest(teacher)
    fit(data, net(), Distillation(teacher, features=["2"]), epochs=2)
    assert [layer.training for layer in teacher.sublayers(include_self=True)] == modes
    assert network_digest(teacher) == digest


def test_a_projection_learns_to_predict_wider_features_and_is_no_part_of_the_network(data, tmp_path):
    wide = net(width=24)
    network = net()
    wide[0].weight.set_value(paddle.concat([network[0].weight] * 4, axis=1))  # a linear function of the network's
    distillation = Distillation(wide, weight=0, features=["0"], labels=False)
    with paddle.utils.unique_name.guard():
        model, record = fit(data, network, distillation, Checkpoints(tmp_path, every=100), epochs=100)
    assert record.losses[-1][0] < 0.2 * record.losses[0][0]
    assert set(load_arrays(tmp_path / "final.pdparams")) == set(network.state_dict())
    assert "projection" not in str(model._optimizer.state_dict().keys())
    saved = load_arrays(tmp_path / "final.pddistill")
    assert saved["0#0.weight"].shape == (24, 6)
    assert verify_checkpoints(tmp_path) == (2, [])


def test_weights_rise_in_the_warm_up_and_fall_to_zero(data, teacher):
    def constant(outputs, targets):
        return {"one": (outputs * 0).sum() + 1}

    factors = [
        [losses[1] for losses in fit(data, net(), Distillation(teacher, constant, **schedule), epochs=2)[1].losses]
        for schedule in ({}, {"warmup_epochs": 1}, {"decay": True}, {"warmup_epochs": 1, "decay": True})
    ]
    rising, falling = np.minimum(1, np.arange(1, 9) / 4), 1 - np.arange(8) / 8
    np.testing.assert_allclose(factors, [np.ones(8), rising, falling, rising * falling], rtol=1e-6)


def test_gradients_of_micro_batches_are_accumulated(data, teacher):
    network = net()
    reference = copy.deepcopy(network)
    fit(data, network, Distillation(teacher), accumulate_grad_batches=4)
    teacher.eval()
    for start in range(0, 32, 8):
        images, labels = data[start : start + 8]
        outputs = reference(images)
        targets = teacher(images).detach()
        (nn.CrossEntropyLoss()(outputs, labels) + SoftenedLogits(4.0)(outputs, targets)["logits"]).backward()
    paddle.optimizer.SGD(0.1, parameters=reference.parameters()).step()
    for ours, expected in zip(network.parameters(), reference.parameters()):
        np.testing.assert_allclose(ours.numpy(), expected.numpy(), rtol=1e-5, atol=1e-6)


class NoLabels(paddle.io.Dataset):
    def __init__(self, data):
        self.data = data

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        return (self.data[index][0],)


def test_without_labels_the_terms_are_the_loss(data, teacher):
    def forbidden(*arguments):
        raise AssertionError("the loss of the model was called in training")

    network, record = net(), Record()
    model = paddle.Model(network, paddle.static.InputSpec([None, 8], "float32", "x"))
    model.prepare(paddle.optimizer.SGD(0.1, parameters=network.parameters()), forbidden, paddle.metric.Accuracy())
    metrics = model._metrics
    before = network[0].weight.numpy()
    model.fit(NoLabels(data), batch_size=8, verbose=0, callbacks=[Distillation(teacher, labels=False), record])
    assert {len(losses) for losses in record.losses} == {1}
    assert model._loss is forbidden
    assert model._metrics is metrics
    assert not np.array_equal(before, network[0].weight.numpy())


def test_without_labels_a_model_needs_no_loss(data, teacher):
    network = net()
    model = paddle.Model(network, paddle.static.InputSpec([None, 8], "float32", "x"))
    model.prepare(paddle.optimizer.SGD(0.1, parameters=network.parameters()))
    model.fit(NoLabels(data), batch_size=8, verbose=0, callbacks=[Distillation(teacher, labels=False)])
    with pytest.raises(InputError, match="the model was prepared without a loss; train it with labels=False"):
        model.fit(NoLabels(data), batch_size=8, verbose=0, callbacks=[Distillation(teacher)])


def test_terms_are_in_tensorboard_and_in_the_progress_line(data, teacher, tmp_path, capsys):
    sparsity = SparsityCallback(
        0.5, pruning_iterations=1, tunning_iterations=0, pruning_steps=1, prune_params_type=None, log_dir=tmp_path,
        log_freq=1,
    )  # fmt: skip
    progress = TrainingProgress("net", log_iter=1)
    _, record = fit(data, net(), sparsity, progress, Distillation(teacher, features=["2"]))
    found = curves(tmp_path)
    for index, tag in ((1, "train/distillation/logits"), (2, "train/distillation/features")):
        np.testing.assert_allclose([value for _, value in found[tag]], [losses[index] for losses in record.losses])
    sums = [sum(losses[1:]) for losses in record.losses]
    np.testing.assert_allclose([value for _, value in found["train/distillation"]], sums, rtol=1e-6)
    np.testing.assert_allclose([value for _, value in found["train/loss"]], [sum(one) for one in record.losses])
    labels, logits, features = record.losses[-1]
    line = f"loss {sum(record.losses[-1]):.4g} (labels {labels:.4g}, logits {logits:.4g}, features {features:.4g})"
    assert line in capsys.readouterr().out


def resumable(data, folder, teacher, resume=None, stop=None, seed=5, **keywords):
    """Trains pruned, averaged and distilled from the beginning or a checkpoint; stops before batch `stop`."""

    class Stop(paddle.callbacks.Callback):
        done = 0

        def on_train_batch_begin(self, step, logs=None):
            self.done += 1
            if self.done == stop:
                raise InterruptedError

    loader = SkipBatchesLoader(paddle.io.DataLoader(data, batch_size=8, shuffle=True), seed=3)
    record = Record()
    sparsity = SparsityCallback(
        0.5, pruning_iterations=4, tunning_iterations=0, pruning_steps=2, prune_params_type=None
    )
    distillation = Distillation(teacher, features=["0", "2"], warmup_epochs=1, decay=True, **keywords)
    with paddle.utils.unique_name.guard():
        paddle.seed(seed)
        model = classifier(net(), 0.05)
        inner = [record, distillation, EMACallback(0.9), Checkpoints(folder, every_batches=1), sparsity, Stop()]
        with contextlib.suppress(InterruptedError):
            model.fit(loader, epochs=3, verbose=0, callbacks=[ResumableCallbacks(inner, loader, resume=resume, seed=3)])
    return record.losses


@pytest.fixture(scope="module")
def uninterrupted(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("distilled")
    paddle.seed(11)
    teacher = net(width=12)
    return teacher, folder, resumable(data, folder, teacher)


@pytest.mark.parametrize("stop", [2, 5, 8, 12])
def test_a_distilled_training_resumes_bit_for_bit(uninterrupted, data, tmp_path, stop):
    teacher, reference, losses = uninterrupted
    before = resumable(data, tmp_path, teacher, stop=stop)
    assert len(before) == stop - 1
    after = resumable(data, tmp_path, teacher, find_checkpoint(tmp_path), seed=17)
    assert before + after == losses
    for suffix in (".pdparams", ".pdopt", ".pdema", ".pddistill"):
        expected, actual = (load_arrays(folder / f"final{suffix}") for folder in (reference, tmp_path))
        assert expected.keys() == actual.keys()
        for name, array in expected.items():
            np.testing.assert_array_equal(actual[name], array)


def test_resuming_a_complete_training_keeps_the_projections(uninterrupted, data, tmp_path):
    teacher, reference, _ = uninterrupted
    assert resumable(data, tmp_path, teacher, find_checkpoint(reference), seed=17) == []
    expected, actual = (load_arrays(folder / "final.pddistill") for folder in (reference, tmp_path))
    assert expected.keys() == actual.keys()
    assert all((actual[name] == array).all() for name, array in expected.items())
    assert any("moment1" in name for name in actual)


def test_another_teacher_or_other_weights_are_an_input_error(uninterrupted, data, tmp_path):
    teacher, reference, _ = uninterrupted
    checkpoint = find_checkpoint(reference)
    with pytest.raises(InputError, match=r"2\.pdsparse: distillation: teacher is \w+ in the checkpoint and \w+ in"):
        resumable(data, tmp_path, net(width=12), checkpoint)
    with pytest.raises(InputError, match=r"distillation: loss: temperature is 4\.0 in the checkpoint and 2\.0 in this"):
        resumable(data, tmp_path, teacher, checkpoint, temperature=2.0)


def test_resuming_with_or_without_a_distillation_is_an_input_error_that_can_be_overridden(data, tmp_path, teacher):
    loader = SkipBatchesLoader(paddle.io.DataLoader(data, batch_size=8), seed=3)

    def train(folder, *callbacks, **keywords):
        with paddle.utils.unique_name.guard():
            resume = ResumableCallbacks([Checkpoints(folder), *callbacks], loader, **keywords)
            classifier(net(), 0.05).fit(loader, epochs=2, verbose=0, callbacks=[resume])

    train(tmp_path / "with", Distillation(teacher, features=["0"]))
    train(tmp_path / "without")
    distilled, plain = (tmp_path / name / "0.pdsparse" for name in ("with", "without"))
    with pytest.raises(InputError, match="the checkpoint used a Distillation, and this run has none"):
        train(tmp_path / "a", resume=distilled)
    with pytest.raises(InputError, match="the checkpoint was made without Distillation, and this run has one"):
        train(tmp_path / "b", Distillation(teacher), resume=plain)
    train(tmp_path / "c", resume=distilled, allow_config_change=True)
    train(tmp_path / "d", Distillation(teacher), resume=plain, allow_config_change=True)
    train(tmp_path / "e", Distillation(net(9), features=["0"]), resume=distilled, allow_config_change=True)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("shape", [3, 3], r"0#0\.weight must have shape \[3, 3\], got \[12, 6\]"),
        ("shape", "large", r"0#0\.weight must have shape large"),
        ("steps", 0, "the steps of 0#0 must be a whole number from 1 to"),
        ("steps", 10**400, "the steps of 0#0 must be a whole number from 1 to"),
    ],
)
def test_damaged_projections_are_an_input_error(data, tmp_path, teacher, key, value, message):
    def train(resume=None):
        with paddle.utils.unique_name.guard():
            loader = SkipBatchesLoader(paddle.io.DataLoader(data, batch_size=8), seed=3)
            inner = [Checkpoints(tmp_path), Distillation(teacher, features=["0"])]
            resumed = ResumableCallbacks(inner, loader, resume=resume)
            classifier(net(), 0.05).fit(loader, epochs=1 + bool(resume), verbose=0, callbacks=[resumed])

    train()
    resume = find_checkpoint(tmp_path)
    resume.state.training["distillation"]["projections"]["0#0"][key] = value
    with pytest.raises(InputError, match=rf"0\.pddistill: {message}"):
        train(resume)


def test_every_order_of_the_callbacks_trains_the_same(data, tmp_path, teacher):
    found = []
    for number, order in enumerate(itertools.permutations(range(3))):
        paddle.seed(2)
        folder = tmp_path / str(number)
        callbacks = [
            Distillation(teacher, features=["0"]),
            SparsityCallback(0.5, pruning_iterations=2, tunning_iterations=0, pruning_steps=1, prune_params_type=None),
            Checkpoints(folder),
        ]
        with paddle.utils.unique_name.guard():
            fit(data, net(), *(callbacks[index] for index in order))
        found.append({file.name: file.read_bytes() for file in sorted(folder.glob("final.*"))})
    assert "final.pddistill" in found[0]
    assert all(files == found[0] for files in found)


class InterruptAt(paddle.callbacks.Callback):
    """Raises `KeyboardInterrupt` when an event is called for the first time, as Ctrl-C does."""

    def __init__(self, event):
        super().__init__()
        self.event = event

    def __getattribute__(self, name):
        if name == super().__getattribute__("__dict__").get("event"):
            raise KeyboardInterrupt
        return super().__getattribute__(name)


@pytest.mark.parametrize(
    "event", ["on_train_begin", "on_train_batch_begin", "on_train_batch_end", "on_epoch_end", "on_eval_begin"]
)
@pytest.mark.parametrize("is_first", [True, False])
def test_ctrl_c_detaches_the_teacher(data, teacher, event, is_first):
    network = net()
    model = classifier(network, 0.1, "SGD")
    loss, metrics = model._loss, model._metrics
    callbacks = [Distillation(teacher, features=["0"], labels=False), InterruptAt(event)]
    with pytest.raises(KeyboardInterrupt):
        model.fit(data, data, batch_size=8, verbose=0, callbacks=callbacks[:: -1 if is_first else 1])
    assert model._loss is loss
    assert model._metrics is metrics
    assert teacher.training
    for layer in (*network.sublayers(include_self=True), *teacher.sublayers(include_self=True)):
        assert not layer._forward_pre_hooks
        assert not layer._forward_post_hooks


def test_a_failing_loss_detaches_the_teacher(data, teacher):
    def failing(outputs, targets):
        raise OSError("no more")

    model = classifier(net(), 0.1, "SGD")
    loss = model._loss
    with pytest.raises(OSError, match="no more"):
        model.fit(data, batch_size=8, verbose=0, callbacks=[Distillation(teacher, failing)])
    assert model._loss is loss
    assert teacher.training


def test_a_callback_can_be_used_again_and_beside_one_that_wraps_the_loss(data, teacher):
    class Wraps(paddle.callbacks.Callback):
        """Puts the loss that it found back at the end, when the distillation has already ended."""

        def on_train_begin(self, logs=None):
            self.found = self.model._loss
            self.model._loss = lambda *arguments: self.found(*arguments)

        def on_train_end(self, logs=None):
            self.model._loss = self.found

    distillation, record, model = Distillation(teacher), Record(), classifier(net(), 0.1, "SGD")
    for _ in range(2):
        model.fit(data, data, batch_size=8, verbose=0, callbacks=[distillation, Wraps(), record])
    assert {len(losses) for losses in record.losses} == {2}
    assert np.isfinite(model.evaluate(data, verbose=0)["loss"]).all()


def test_outputs_of_a_compiled_network_can_be_compared_and_its_layers_cannot(data, teacher):
    specs = [paddle.static.InputSpec([None, 8], "float32", "x")], [paddle.static.InputSpec([None, 1], "int64", "y")]
    model = paddle.Model(paddle.jit.to_static(net()), *specs)
    model.prepare(paddle.optimizer.SGD(0.1, parameters=model.parameters()), nn.CrossEntropyLoss())
    record = Record()
    model.fit(data, batch_size=8, verbose=0, callbacks=[Distillation(teacher), record])
    assert {len(losses) for losses in record.losses} == {2}
    with pytest.raises(InputError, match="the layer '2' of the network is compiled by paddle.jit.to_static"):
        model.fit(data, batch_size=8, verbose=0, callbacks=[Distillation(teacher, features=["2"])])


def test_a_network_within_data_parallel_is_distilled(data, teacher):
    specs = [paddle.static.InputSpec([None, 8], "float32", "x")], [paddle.static.InputSpec([None, 1], "int64", "y")]
    network = net()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The program will return to single-card operation")
        model, record = paddle.Model(paddle.DataParallel(network), *specs), Record()
    model.prepare(paddle.optimizer.SGD(0.1, parameters=network.parameters()), nn.CrossEntropyLoss())
    model.fit(data, batch_size=8, verbose=0, callbacks=[Distillation(teacher, features=["0"]), record])
    assert {len(losses) for losses in record.losses} == {3}


def test_static_mode_is_an_input_error(data, teacher):
    distillation = Distillation(teacher)
    distillation.set_model(classifier(net()))
    paddle.enable_static()
    try:
        with pytest.raises(InputError, match="Paddle must be in dynamic mode"):
            distillation.begin_training()
    finally:
        paddle.disable_static()


class Recomputed(nn.Layer):
    def __init__(self):
        super().__init__()
        self.block, self.head = nn.Sequential(nn.Linear(8, 6), nn.Tanh()), nn.Linear(6, 4)

    def forward(self, x):
        x.stop_gradient = False
        return self.head(recompute(self.block, x))


def frozen(layer):
    for parameter in layer.parameters():
        parameter.stop_gradient = True
    return layer


class TwoOutputs(nn.Linear):
    def forward(self, x):
        return super().forward(x), super().forward(x)


@pytest.mark.parametrize(
    ("network", "keywords", "message"),
    [
        (net, {"features": ["fc"]}, "the network has no layer 'fc'; known: 0, 1, 2, 3"),
        (net, {"features": {"0": "00"}}, "the teacher has no layer '00'; did you mean '0'?"),
        (net, {"outputs": "head"}, "the network has no layer 'head'"),
        (lambda: net(classes=5), {}, r"the logits of the network have shape \[8, 5\], those of the teacher \[8, 4\]"),
        (
            lambda: TwoOutputs(8, 4),
            {"labels": False},
            "the network returns 2 values, not one tensor of logits: name the layer",
        ),
        (lambda: frozen(net()), {}, "no gradient flows from the term 'logits' to the network"),
        (Recomputed, {"features": {"block.0": "0"}}, "no gradient flows to the layer 'block.0' of the network"),
        (net, {"loss": lambda ours, theirs: ours - theirs}, r"the term 'outputs' must be one number, got shape \[8,"),
    ],
)
def test_what_cannot_be_compared_is_an_input_error(data, teacher, network, keywords, message):
    with pytest.raises(InputError, match=f"^Distillation: {message}"):
        fit(data, network(), Distillation(teacher, **keywords))


def test_maps_of_another_size_are_an_input_error():
    def pooled(size):
        return nn.Sequential(nn.Conv2D(1, 3, 1), nn.AdaptiveAvgPool2D(size), nn.Flatten(), nn.Linear(3 * size**2, 4))

    data = paddle.io.TensorDataset([paddle.rand([8, 1, 6, 6]), paddle.randint(0, 4, [8, 1])])
    with pytest.raises(InputError, match=r"feature 1#0 must have the size .* got \[8, 3, 3, 3\] and \[8, 3, 2, 2\]"):
        fit(data, pooled(3), Distillation(pooled(2), features=["1"]))


def test_a_layer_that_is_not_called_is_an_input_error(data, teacher):
    network = net()
    network[2].unused = nn.Linear(1, 1)
    with pytest.raises(InputError, match="the forward pass of the network does not call its layer '2.unused'"):
        fit(data, network, Distillation(teacher, features={"2.unused": "0"}))


def test_a_network_cannot_be_its_own_teacher(data):
    network = net()
    with pytest.raises(InputError, match="the teacher shares 0.weight with the network, which changes it"):
        fit(data, network, Distillation(network))
    fit(data, network, Distillation(copy.deepcopy(network)))


def test_two_distillations_are_an_input_error(data, teacher):
    with pytest.raises(InputError, match="two Distillations in one fit: use one"):
        fit(data, net(), Distillation(teacher), Distillation(teacher))


def test_a_teacher_that_changes_is_warned_of(data, teacher):
    class Counts(nn.Layer):
        def __init__(self):
            super().__init__()
            self.inner, self.count = teacher, self.create_parameter([1])

        def forward(self, x):
            self.count.set_value(self.count + 1)
            return self.inner(x)

    with pytest.warns(UserWarning, match="the teacher changed during the training"):
        fit(data, net(), Distillation(Counts()))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="the teacher changed")
        fit(data, net(), Distillation(teacher))


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"temperatures": 3}, "Distillation: unknown argument 'temperatures'; did you mean 'temperature'?"),
        ({"temperature": 0}, "temperature must be above 0, got 0"),
        ({"weight": -1}, "weight must be a finite number of at least 0, got -1"),
        ({"weight": float("inf")}, "weight must be a finite number of at least 0, got inf"),
        ({"weight": 0}, "weight must be above 0 without features, got 0"),
        ({"features": "neck"}, "features must be a list of structured names of layers, or a dict .*, got 'neck'"),
        ({"features": [1]}, "features must be a list of structured names"),
        ({"outputs": 3}, "outputs must be the structured name of a layer, got 3"),
        ({"labels": 0}, "labels must be True or False, got 0"),
        ({"decay": True, "labels": False}, "decay must be False with labels=False, got True"),
        ({"warmup_epochs": 0.5}, "warmup_epochs must be a whole number of at least 0, got 0.5"),
        ({"loss": "kl"}, "loss must be a function of the outputs and the teacher's outputs, got 'kl'"),
        ({"teacher": None}, "teacher must be a paddle.nn.Layer, got NoneType"),
        ({"teacher": "model"}, "teacher must be a paddle.nn.Layer, got Model; give its network"),
    ],
)
def test_an_invalid_argument_is_an_input_error(teacher, keywords, message):
    if keywords.get("teacher") == "model":
        keywords = {"teacher": paddle.Model(teacher)}
    with pytest.raises(InputError, match=message):
        Distillation(**{"teacher": teacher, **keywords})


def test_a_schedule_needs_a_loader_with_a_length(teacher):
    class Endless(paddle.io.IterableDataset):
        def __iter__(self):
            yield from ((np.zeros(8, "float32"), np.zeros(1, "int64")) for _ in range(4))

    with pytest.raises(InputError, match="warmup_epochs and decay need a loader that has a length"):
        fit(paddle.io.DataLoader(Endless(), batch_size=8), net(), Distillation(teacher, decay=True))


def test_a_recomputed_block_is_distilled_as_one_that_is_not(data):
    teacher, recomputed, plain = net(), Recomputed(), nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 4))
    for parameter, same in zip(plain.parameters(), recomputed.parameters()):
        parameter.set_value(same)
    fit(data, recomputed, Distillation(teacher, features={"block": "2"}))
    fit(data, plain, Distillation(teacher, features={"1": "2"}))
    for ours, expected in zip(recomputed.parameters(), plain.parameters()):
        np.testing.assert_array_equal(ours.numpy(), expected.numpy())
