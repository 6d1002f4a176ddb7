"""The four steps that PicoDet's document adds to a training loop (configs/picodet/legacy_model/pruner/README.md).

The calls, their arguments and the document's choice of layers are the document's; only the import is another one.
"""

from types import SimpleNamespace

import paddle
import pytest
from helpers import RECIPES
from paddle import nn
from paddle.utils import unique_name

from paddle_sparse_cb import GMPPruner, InputError, make_plan, measure_sparsity
from paddle_sparse_cb import GMPPruner as GMPUnstructuredPruner
from paddle_sparse_cb.detection import config
from paddle_sparse_cb.detection.network import build_network
from paddle_sparse_cb.pruning.masks import prune_count
from paddle_sparse_cb.recipe.build import build_plan
from paddle_sparse_cb.recipe.schema import read_recipe

# Six convolutions of squeeze-and-excitation blocks of PicoDet-m, by the names that Paddle gives them.
SQUEEZE_EXCITE = {f"conv2d_{number}" for number in (17, 18, 56, 57, 75, 76)}


@pytest.fixture
def picodet_m():
    """ppdet's PicoDet-m, with the parameter names of a process that has built nothing before."""
    content = config.read_with_bases(RECIPES / "_base_" / "picodet_m_esnet.yml")
    with unique_name.guard():
        return build_network(config.load({**content, "num_classes": 80}, "picodet_m_esnet.yml")).detector


def skip_params_self(model):
    """Skips what is not a 1x1 convolution, the last four convolutions of the head and six of squeeze-and-excitation."""
    skipped = set()
    for layer in model.sublayers():
        if "Norm" in type(layer).__name__:
            skipped.add(layer.full_name())
        for parameter in layer.parameters(include_sublayers=False):
            is_1x1 = len(parameter.shape) == 4 and parameter.shape[2:] == [1, 1]
            ends_head = is_1x1 and parameter.shape[:2] == [112, 128]
            if not is_1x1 or ends_head or parameter.name.split(".")[0] in SQUEEZE_EXCITE:
                skipped.add(parameter.name)
    return skipped


def batch(size=160):
    box, label = paddle.to_tensor([[16.0, 16.0, 96.0, 112.0]]), paddle.to_tensor([[3]])
    return {
        "image": paddle.rand([2, 3, size, size]),
        "gt_bbox": [box, box],
        "gt_class": [label, label],
        "im_id": paddle.arange(2).reshape([-1, 1]),
        "scale_factor": paddle.ones([2, 2]),
        "epoch_id": 0,
    }


class Trainer:
    """A training loop with the four steps of the document."""

    def __init__(self, model, skip_params_type):
        self.model = model
        self.stable_epochs, self.pruning_epochs, self.tunning_epochs = 0, 2, 1
        self.pruning_steps, self.initial_ratio = 4, 0.15
        self.cfg = SimpleNamespace(epoch=3, ratio=0.75, skip_params_type=skip_params_type)
        self.start_epoch, self.loader = 0, [batch(), batch()]
        self.optimizer = paddle.optimizer.Momentum(1e-4, parameters=model.parameters())
        self.sparsities = []

    def train(self):
        model, steps_per_epoch = self.model, len(self.loader)

        # Step 1: the settings.
        configs = {
            "pruning_strategy": "gmp",
            "stable_iterations": self.stable_epochs * steps_per_epoch,
            "pruning_iterations": self.pruning_epochs * steps_per_epoch,
            "tunning_iterations": self.tunning_epochs * steps_per_epoch,
            "resume_iteration": 0,
            "pruning_steps": self.pruning_steps,
            "initial_ratio": self.initial_ratio,
        }

        # Step 2: the pruner.
        self.pruner = GMPUnstructuredPruner(
            model,
            ratio=self.cfg.ratio,
            skip_params_func=skip_params_self,
            skip_params_type=self.cfg.skip_params_type,
            local_sparsity=True,
            configs=configs,
        )

        for _ in range(self.start_epoch, self.cfg.epoch):
            model.train()
            for data in self.loader:
                loss = model(data)["loss"]
                loss.backward()
                self.optimizer.step()

                # Step 3: after each step of the optimizer.
                self.pruner.step()
                self.sparsities.append(self.pruner.sparsity())

            # Step 4: before the model is saved.
            self.pruner.update_params()


@pytest.mark.slow
@pytest.mark.parametrize("skip_params_type", [None, "exclude_conv1x1"])
def test_the_documents_four_steps_prune_95_layers_of_picodet_m_exactly(picodet_m, skip_params_type):
    trainer = Trainer(picodet_m, skip_params_type)
    trainer.train()
    layers = {layer.name: layer for layer in measure_sparsity(picodet_m, trainer.pruner.plan).layers if layer.pruned}
    assert len(layers) == 95
    assert {name: layer.zeros for name, layer in layers.items()} == {
        name: prune_count(0.75, layer.numel) for name, layer in layers.items()
    }
    assert "backbone.2_1._se.conv1.weight" in layers  # the document skips six of these blocks' convolutions only
    assert not {"backbone.2_3._se.conv1.weight", "head.head_cls0.weight", "backbone.conv1._conv.weight"} & layers.keys()
    dense = [layer for layer in measure_sparsity(picodet_m).layers if layer.name not in layers]
    assert sum(layer.zeros for layer in dense) == 0
    assert trainer.sparsities == pytest.approx([0.15, 0.497, 0.675, 0.741, 0.75, 0.75], abs=2e-3)


def test_our_recipe_and_its_files_prune_what_the_document_chooses(picodet_m):
    names = {parameter.name: name for name, parameter in picodet_m.named_parameters()}
    skipped = {names.get(name) for name in skip_params_self(picodet_m)}
    chosen = {name for name, parameter in picodet_m.named_parameters() if len(parameter.shape) == 4} - skipped
    plan = build_plan(read_recipe(RECIPES / "picodet_m_320_coco_sparse75.yml"))
    assert {layer.name for layer in plan.pruned} == chosen


def test_exclude_conv1x1_prunes_the_1x1_convolutions(network):
    pruner = GMPPruner(
        network, ratio=0.75, skip_params_type="exclude_conv1x1", local_sparsity=True, configs={"pruning_iterations": 10}
    )
    planned = [layer.name for layer in make_plan(network, prune_params_type="conv1x1_only").pruned]
    assert [layer.name for layer in pruner.plan.pruned] == planned
    everything = GMPPruner(network, ratio=0.75, skip_params_type=None)
    assert [layer.name for layer in everything.plan.pruned] != planned


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        (
            {"skip_params_type": "conv1x1_only"},
            "skip_params_type must be None or 'exclude_conv1x1', got 'conv1x1_only'",
        ),
        ({"skip_params_type": True}, "skip_params_type must be None or 'exclude_conv1x1', got True"),
        (
            {"skip_params_type": "exclude_conv1x1", "prune_params_type": "conv1x1_only"},
            "skip_params_type is the former name of prune_params_type; give one of them",
        ),
    ],
)
def test_a_wrong_skip_params_type_is_an_error(keywords, message):
    with pytest.raises(InputError) as error:
        GMPPruner(nn.Sequential(nn.Conv2D(4, 4, 1)), ratio=0.75, **keywords)
    assert str(error.value) == message
