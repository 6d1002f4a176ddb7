import sys

import paddle
import pytest
from helpers import CORE_ONLY, Pointwise, classifier, curves, events
from paddle import nn
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from paddle_sparse_cb import (
    Checkpoints,
    EMACallback,
    InputError,
    ResumableCallbacks,
    SkipBatchesLoader,
    SparsityCallback,
    TrainingCurves,
    find_checkpoint,
)

from .test_progress import two_losses


def pruning(**keywords):
    return SparsityCallback(
        **{"pruning_iterations": 6, "pruning_steps": 3, "tunning_iterations": 0, "initial_ratio": 0.25, **keywords}
    )


def fit(data, callbacks, epochs=1, model=None, **keywords):
    (model or classifier(Pointwise())).fit(
        data, data, epochs=epochs, batch_size=16, verbose=0, callbacks=callbacks, **keywords
    )


def steps(points):
    return [step for step, _ in points]


@pytest.mark.parametrize(
    ("log_freq", "expected"), [(1, list(range(11))), (3, [0, 3, 6, 9, 10]), (5, [0, 5, 10]), (1000, [0, 10])]
)
def test_the_first_and_the_last_point_are_written_whatever_the_frequency(first_digits, tmp_path, log_freq, expected):
    fit(first_digits, [pruning(), TrainingCurves(tmp_path, log_freq, baseline={"acc": 0.25, "loss": [9.0]})])
    read = curves(tmp_path)
    assert steps(read["sparsity/actual"]) == steps(read["sparsity/target"]) == steps(read["train/lr"]) == expected
    assert read["sparsity/actual"][0] == read["sparsity/target"][0] == (0, 0.0)
    assert read["sparsity/actual"][-1] == read["sparsity/target"][-1] == (10, 0.75)
    assert steps(read["train/loss"]) == expected[1:]
    assert read["eval/acc"][0] == (0, 0.25)
    assert steps(read["eval/acc"]) == [0, 10]
    assert steps(read["eval/loss"]) == [10]


def test_the_loss_of_an_evaluation_is_the_mean_over_its_images(first_digits, tmp_path):
    data = paddle.io.Subset(first_digits, range(40))  # batches of 16, 16 and 8
    model = classifier(Pointwise())
    fit(data, [TrainingCurves(tmp_path)], model=model)
    images, labels = (paddle.stack(parts) for parts in zip(*[data[index] for index in range(40)]))
    model.network.eval()
    expected = float(nn.functional.cross_entropy(model.network(images), labels))
    assert curves(tmp_path)["eval/loss"] == [(3, pytest.approx(expected, rel=1e-5))]


def test_each_pruning_step_is_written_with_its_changes_whatever_the_frequency(first_digits, tmp_path):
    fit(first_digits, [TrainingCurves(tmp_path, 1000), pruning()])
    read = curves(tmp_path)
    assert steps(read["pruning/newly_pruned"]) == [1, 3, 5, 7]
    assert sum(count for _, count in read["pruning/newly_pruned"]) == 3072 * 0.75
    assert read["pruning/regrown"] == [(step, 0.0) for step in (1, 3, 5, 7)]
    for (_, least), (_, median), (_, most) in zip(
        *(read[f"pruning/threshold{which}"] for which in ("_least", "", "_most"))
    ):
        assert 0 < least <= median <= most
    histograms = events(tmp_path).Histograms("sparsity/layers")
    assert [one.step for one in histograms] == [1, 3, 5, 7, 10]
    assert [one.histogram_value.max for one in histograms][-1] == 0.75


def test_no_curve_for_each_weight_by_default(first_digits, tmp_path):
    fit(first_digits, [pruning(log_dir=tmp_path)])
    assert not [tag for tag in curves(tmp_path) if tag.startswith("sparsity_layer")]


def test_losses_are_written_by_name_and_what_was_not_measured_is_left_out(first_digits, tmp_path):
    model = two_losses()
    function = model._loss

    class Losses:
        names = ("ce", "l2")

        def __call__(self, *outputs):
            return function(*outputs)

    model._loss = Losses()
    fit(first_digits, [TrainingCurves(tmp_path, 5)], epochs=2, model=model)
    read = curves(tmp_path)
    assert read.keys() == {"train/loss", "train/ce", "train/l2", "train/lr", "eval/mAP"}
    for (_, total), (_, first), (_, second) in zip(*(read[f"train/{name}"] for name in ("loss", "ce", "l2"))):
        assert total == pytest.approx(first + second)


def test_a_dense_training_has_curves_too_counted_in_optimizer_steps(first_digits, tmp_path):
    fit(first_digits, [TrainingCurves(tmp_path, 2)], epochs=2, accumulate_grad_batches=4)  # 3 steps in 10 batches
    read = curves(tmp_path)
    assert steps(read["train/lr"]) == [0, 2, 4, 6]
    assert steps(read["eval/acc"]) == [3, 6]
    assert not [tag for tag in read if tag.startswith("sparsity")]


@pytest.mark.parametrize("sparse", [True, False])
def test_the_curves_of_a_resumed_training_are_those_of_an_uninterrupted_one(first_digits, tmp_path, sparse):
    class Stop(paddle.callbacks.Callback):
        def on_train_batch_end(self, step, logs=None):
            if step == 7:
                raise KeyboardInterrupt

    def train(name, *more):
        paddle.seed(5)
        folder = tmp_path / name
        loader = SkipBatchesLoader(paddle.io.DataLoader(first_digits, batch_size=16, shuffle=True))
        evaluation = SkipBatchesLoader(paddle.io.DataLoader(first_digits, batch_size=16))
        callbacks = [Checkpoints(folder, every_batches=5), TrainingCurves(folder / "curves", 3), EMACallback(), *more]
        callbacks += [pruning()] if sparse else []
        resume = find_checkpoint(folder)
        with paddle.utils.unique_name.guard():
            classifier(Pointwise()).fit(
                loader,
                evaluation,
                epochs=2,
                verbose=0,
                callbacks=[ResumableCallbacks(callbacks, loader, evaluation, resume=resume)],
            )
        return curves(folder / "curves")

    whole = train("whole")
    with pytest.raises(KeyboardInterrupt):
        train("interrupted", Stop())
    assert train("interrupted") == whole
    assert steps(whole["train/lr"]) == [0, 3, 6, 9, 12, 15, 18, 20]


def test_a_training_that_resumes_in_the_stable_phase_has_no_masks_to_describe(first_digits, tmp_path):
    class Stop(paddle.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                raise KeyboardInterrupt

    def train(epochs, *more, **keywords):
        sparsity = pruning(stable_iterations=12, log_dir=tmp_path / "curves", **keywords)
        with paddle.utils.unique_name.guard():
            fit(first_digits, [Checkpoints(tmp_path), sparsity, *more], epochs)

    with pytest.raises(KeyboardInterrupt):
        train(2, Stop())
    train(1, ratio=0.8, resume=tmp_path / "0.pdsparse", allow_config_change=True)
    read = curves(tmp_path / "curves")
    assert steps(read["pruning/threshold"]) == [13, 15, 17, 19]
    assert read["sparsity/actual"][-1] == (20, pytest.approx(0.8, abs=1e-3))


def test_runs_are_compared_by_their_settings(first_digits, tmp_path):
    fit(first_digits, [TrainingCurves(tmp_path, settings={"seed": 3}), pruning(ratio=0.85, scope="erk")])
    read = events(tmp_path)
    content = {
        name: HParamsPluginData.FromString(read.SummaryMetadata(f"_hparams_/{name}").plugin_data.content)
        for name in ("experiment", "session_start_info", "session_end_info")
    }
    settings = content["session_start_info"].session_start_info.hparams
    assert settings["ratio"].number_value == 0.85
    assert settings["seed"].number_value == 3
    assert settings["batch_size"].number_value == 16
    assert settings["learning_rate"].number_value == pytest.approx(0.01)
    assert (settings["scope"].string_value, settings["optimizer"].string_value) == ("erk", "Momentum")
    metrics = {info.name.tag for info in content["experiment"].experiment.metric_infos}
    assert metrics == {"sparsity/actual", "train/loss", "eval/loss", "eval/acc"}
    assert metrics <= curves(tmp_path).keys()


def test_the_plan_is_a_table_and_the_charts_show_tags_that_exist(first_digits, tmp_path):
    from tensorboard.plugins.custom_scalar.layout_pb2 import Layout

    fit(first_digits, [TrainingCurves(tmp_path), pruning()])
    read = events(tmp_path)
    plan = read.Tensors("plan/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "| expand.weight " in plan
    assert "3x3 kernel" in plan
    layout = Layout.FromString(read.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0])
    charts = [chart for category in layout.category for chart in category.chart]
    patterns = [tag for chart in charts for tag in chart.multiline.tag]
    patterns += [tag for chart in charts for one in chart.margin.series for tag in (one.value, one.lower, one.upper)]
    assert len(patterns) == 9
    tags = curves(tmp_path)
    assert [pattern for pattern in patterns if not any(tag.startswith(pattern) for tag in tags)] == []


def test_a_fit_that_raises_closes_the_file_and_releases_the_optimizer(first_digits, tmp_path):
    class Stop(paddle.callbacks.Callback):
        def on_train_batch_end(self, step, logs=None):
            raise KeyboardInterrupt

    model = classifier(Pointwise())
    with pytest.raises(KeyboardInterrupt):
        fit(first_digits, [TrainingCurves(tmp_path), Stop()], model=model)
    assert "step" not in vars(model._optimizer)
    assert steps(curves(tmp_path)["train/lr"]) == [0]


@pytest.mark.skipif(CORE_ONLY, reason="VisualDL is installed with PaddleDetection")
def test_visualdl_reads_the_same_scalars(first_digits, tmp_path):
    from visualdl import LogReader

    fit(first_digits, [TrainingCurves(tmp_path, 5, visualdl=True), pruning()])
    [file] = tmp_path.glob("vdlrecords.*")
    reader = LogReader(file_path=str(file))
    read = {
        tag: [(point.id, pytest.approx(point.value)) for point in reader.get_data("scalar", tag)]
        for tag in reader.get_tags()["scalar"]
    }
    assert read == curves(tmp_path)


def test_without_visualdl_the_option_is_an_input_error(first_digits, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "visualdl", None)
    with pytest.raises(InputError, match="visualdl=True needs VisualDL: pip install visualdl"):
        fit(first_digits, [TrainingCurves(tmp_path, visualdl=True)])
