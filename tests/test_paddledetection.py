"""PaddleDetection's own configuration files of the sparse PicoDet are used unchanged.

No package contains them, so they are written here with the keys, anchors, tags and relative bases of its configs/
(picodet/legacy_model and slim/prune); the blocks of the network are taken from our recipes.
"""

import pytest
import yaml
from helpers import RECIPES

from paddle_sparse_cb.cli import main
from paddle_sparse_cb.recipe.schema import read_recipe

NORMALIZE = "NormalizeImage: {is_scale: true, mean: [0.485,0.456,0.406], std: [0.229, 0.224,0.225]}"
FILES = {
    "datasets/coco_detection.yml": """
metric: COCO
num_classes: 80
TrainDataset:
  name: COCODataSet
  image_dir: train2017
  anno_path: annotations/instances_train2017.json
  dataset_dir: dataset/coco
  data_fields: ['image', 'gt_bbox', 'gt_class', 'is_crowd']
EvalDataset:
  name: COCODataSet
  image_dir: val2017
  anno_path: annotations/instances_val2017.json
  dataset_dir: dataset/coco
  allow_empty: true
TestDataset:
  name: ImageFolder
  anno_path: annotations/instances_val2017.json # also support txt
  dataset_dir: dataset/coco
""",
    "datasets/voc.yml": """
metric: VOC
map_type: 11point
num_classes: 20
TrainDataset:
  name: VOCDataSet
  dataset_dir: dataset/voc
  anno_path: trainval.txt
  label_list: label_list.txt
  data_fields: ['image', 'gt_bbox', 'gt_class', 'difficult']
EvalDataset:
  name: VOCDataSet
  dataset_dir: dataset/voc
  anno_path: test.txt
  label_list: label_list.txt
  data_fields: ['image', 'gt_bbox', 'gt_class', 'difficult']
TestDataset:
  name: ImageFolder
  anno_path: dataset/voc/label_list.txt
""",
    "runtime.yml": """
use_gpu: true
use_xpu: false
use_mlu: false
use_npu: false
log_iter: 20
save_dir: output
snapshot_epoch: 1
print_flops: false
print_params: false
export:
  post_process: True
  nms: True
  benchmark: False
  fuse_conv_bn: False
""",
    "picodet/legacy_model/_base_/picodet_320_reader.yml": f"""
worker_num: 6
eval_height: &eval_height 320
eval_width: &eval_width 320
eval_size: &eval_size [*eval_height, *eval_width]
TrainReader:
  sample_transforms:
  - Decode: {{}}
  - RandomCrop: {{}}
  - RandomFlip: {{prob: 0.5}}
  - RandomDistort: {{}}
  batch_transforms:
  - BatchRandomResize: {{target_size: [256, 288, 320, 352, 384], random_size: True, random_interp: True,
                         keep_ratio: False}}
  - {NORMALIZE}
  - Permute: {{}}
  batch_size: 128
  shuffle: true
  drop_last: true
  collate_batch: false
EvalReader:
  sample_transforms:
  - Decode: {{}}
  - Resize: {{interp: 2, target_size: *eval_size, keep_ratio: False}}
  - {NORMALIZE}
  - Permute: {{}}
  batch_transforms:
  - PadBatch: {{pad_to_stride: 32}}
  batch_size: 8
  shuffle: false
TestReader:
  inputs_def:
    image_shape: [1, 3, *eval_height, *eval_width]
  sample_transforms:
  - Decode: {{}}
  - Resize: {{interp: 2, target_size: *eval_size, keep_ratio: False}}
  - {NORMALIZE}
  - Permute: {{}}
  batch_size: 1
""",
    "picodet/legacy_model/pruner/optimizer_300e_pruner.yml": """
epoch: 300
LearningRate:
  base_lr: 0.15
  schedulers:
  - !CosineDecay
    max_epochs: 300
  - !LinearWarmup
    start_factor: 1.0
    steps: 34350
OptimizerBuilder:
  optimizer:
    momentum: 0.9
    type: Momentum
  regularizer:
    factor: 0.00004
    type: L2
""",
    "picodet/legacy_model/pruner/picodet_m_320_coco_pruner.yml": """
_BASE_: [
  '../../../datasets/coco_detection.yml',
  '../../../runtime.yml',
  '../_base_/picodet_esnet.yml',
  './optimizer_300e_pruner.yml',
  '../_base_/picodet_320_reader.yml',
]
weights: output/picodet_m_320_coco/model_final
find_unused_parameters: True
use_ema: true
cycle_epoch: 40
snapshot_epoch: 10
""",
    "picodet/legacy_model/picodet_m_320_voc.yml": """
_BASE_: [
  '../../datasets/voc.yml',
  '../../runtime.yml',
  '_base_/picodet_esnet.yml',
  'pruner/optimizer_300e_pruner.yml',
  '_base_/picodet_320_reader.yml',
]
use_ema: true
EvalReader:
  collate_batch: false
""",
}
SLIM = """
pretrain_weights: https://paddledet.bj.bcebos.com/models/picodet_m_320_coco.pdparams
slim: UnstructuredPruner

UnstructuredPruner:
    stable_epochs: 0
    pruning_epochs: 150
    tunning_epochs: 150
    pruning_steps: 300
    ratio: {ratio}
    initial_ratio: {initial}
    prune_params_type: conv1x1_only
"""


@pytest.fixture
def configs(tmp_path, monkeypatch):
    """The folder `configs` of PaddleDetection in the working folder."""
    for name, text in FILES.items():
        (tmp_path / "configs" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "configs" / name).write_text(text)
    network = yaml.safe_load((RECIPES / "_base_" / "picodet_m_esnet.yml").read_text())
    network["pretrain_weights"] = "https://paddledet.bj.bcebos.com/models/pretrained/ESNet_x1_0_pretrained.pdparams"
    (tmp_path / "configs/picodet/legacy_model/_base_/picodet_esnet.yml").write_text(yaml.safe_dump(network))
    (tmp_path / "configs/slim/prune").mkdir(parents=True)
    for percent, initial in ((75, 0.15), (85, "0.20")):
        path = tmp_path / f"configs/slim/prune/picodet_m_unstructured_prune_{percent}.yml"
        path.write_text(SLIM.format(ratio=percent / 100, initial=initial))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "configs"


def tutorial_arguments(configs, percent=75):
    """Returns the command line arguments of PaddleDetection's tutorial."""
    return [
        "-c",
        str(configs / "picodet/legacy_model/pruner/picodet_m_320_coco_pruner.yml"),
        "--slim_config",
        str(configs / f"slim/prune/picodet_m_unstructured_prune_{percent}.yml"),
    ]


@pytest.mark.parametrize("percent", [75, 85])
def test_its_files_and_our_recipe_configure_the_same_training(configs, percent):
    _, theirs, _, slim = tutorial_arguments(configs, percent)
    theirs, ours = read_recipe(theirs, slim), read_recipe(RECIPES / f"picodet_m_320_coco_sparse{percent}.yml")
    assert theirs.sparsity == ours.sparsity
    assert theirs.input_size == ours.input_size == (320, 320)
    for key in (
        "PicoDet",
        "ESNet",
        "CSPPAN",
        "PicoHead",
        "OptimizerBuilder",
        "EvalDataset",
        "TrainDataset",
        "epoch",
        "num_classes",
        "use_ema",
        "cycle_epoch",
        "snapshot_epoch",
        "worker_num",
        "pretrain_weights",
    ):
        assert theirs.content[key] == ours.content[key], key
    rates = [vars(scheduler) for scheduler in theirs.content["LearningRate"]["schedulers"]]
    assert [rates[0]["max_epochs"], rates[1]["start_factor"], rates[1]["steps"]] == [300, 1.0, 34350]
    ours_rates = ours.content["LearningRate"]["schedulers"]
    assert ours_rates == [
        {"name": "CosineDecay", "max_epochs": 300},
        {"name": "LinearWarmup", "start_factor": 1.0, "steps": 34350},
    ]
    for reader in ("TrainReader", "EvalReader"):
        for key in ("sample_transforms", "batch_size"):
            assert theirs.content[reader][key] == ours.content[reader][key]


def test_its_files_and_our_recipe_give_the_same_plan(configs, capsys):
    assert main(["plan", *tutorial_arguments(configs), "-o", "epoch=4"]) == 0
    theirs = capsys.readouterr().out
    assert main(["plan", str(RECIPES / "picodet_m_320_coco_sparse75.yml")]) == 0
    assert capsys.readouterr().out == theirs
    assert "95 of 149 weights are pruned" in theirs


def test_its_voc_files_can_be_read(configs):
    recipe = read_recipe(configs / "picodet/legacy_model/picodet_m_320_voc.yml")
    assert recipe.content["num_classes"] == 20


def test_its_flags_are_accepted_and_missing_data_is_a_one_line_error(configs, capsys):
    code = main(["train", *tutorial_arguments(configs), "--eval", "--amp", "-o", "TrainDataset.dataset_dir=/none"])
    printed = capsys.readouterr()
    assert code == 2
    files = " with ".join(tutorial_arguments(configs)[1::2])
    assert printed.err == (
        f"paddle-sparse: {files}: TrainDataset: no annotations at "
        "/none/annotations/instances_train2017.json (dataset_dir + anno_path)\n"
    )
    assert "warning: amp has no effect: on a CPU Paddle trains in float32\n" in printed.out


def test_the_output_folder_is_named_after_the_slim_file_as_in_paddledetection(configs):
    arguments = [tutorial_arguments(configs, percent) for percent in (75, 85)]
    outputs = {read_recipe(recipe, slim).output.name for _, recipe, _, slim in arguments}
    assert outputs == {"picodet_m_unstructured_prune_75", "picodet_m_unstructured_prune_85"}


def test_a_slim_file_without_a_pruner_keeps_the_name_of_the_output_folder():
    overlay = RECIPES / "overlays" / "random_expand.yml"
    assert read_recipe(RECIPES / "picodet_m_320_coco.yml", overlay).output.name == "picodet_m_320_coco"


def test_an_unsupported_slim_method_is_an_input_error(configs, capsys):
    slim = configs / "slim" / "quant.yml"
    slim.write_text("slim: QAT\nQAT: {print_model: True}\n")
    assert main(["plan", tutorial_arguments(configs)[1], "--slim_config", str(slim)]) == 2
    assert "slim must be UnstructuredPruner, got 'QAT'\n" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["-r", "--resume"])
def test_a_missing_checkpoint_is_a_one_line_error(configs, capsys, flag):
    assert main(["train", *tutorial_arguments(configs), "--smoke", flag, "output/model_final"]) == 2
    assert capsys.readouterr().err == (
        "paddle-sparse: --resume output/model_final: output/model_final.pdsparse does not exist\n"
    )


@pytest.mark.slow
def test_its_files_train_and_export_a_sparse_paddle_lite_model(configs, capsys):
    assert main(["train", *tutorial_arguments(configs), "--no-eval", "--smoke"]) == 0
    printed = capsys.readouterr().out
    assert "95 of 149" in printed
    output = configs.parent / "output" / "picodet_m_unstructured_prune_75_smoke"
    assert (output / "model_sparse.nb").stat().st_size < 5.65e6  # published: 5.6 MB, without suppression in the graph
    assert not (output / "checkpoints" / "best_model.pdparams").exists()  # without evaluations there is no best one
    assert (output / "checkpoints" / "final.pdparams").exists()
