import ast
import inspect
import re
from pathlib import Path

import pytest
from helpers import RECIPES

from paddle_sparse_cb import InputError
from paddle_sparse_cb.detection import allowlist, compat, config
from paddle_sparse_cb.detection.network import build_network, build_optimizer

WRITES = "open('pwned', 'w')"


def create_all(content):
    """Creates everything that a recipe describes except its data."""
    registry = config.load(content, "evil.yml")
    build_optimizer(build_network(registry), 2)
    for split in ("Train", "Eval"):
        config.create(f"{split}Reader")
        config.create(f"{split}Dataset")


@pytest.mark.parametrize(
    "evil",
    [
        {
            "OptimizerBuilder": {
                "optimizer": {"type": "AdamWDL", "skip_decay_names": ["x"], "set_param_lr_func": WRITES}
            }
        },
        {"PicoDet": {"backbone": "VisionTransformer"}, "VisionTransformer": {"norm_layer": WRITES}},
        {"TrainReader": {"sample_transforms": [{"DecodeCache": {"cache_root": "pwned"}}]}},
        {
            "TrainReader": {
                "sample_transforms": [
                    {"RandomSelect": {"transforms1": [{"DecodeCache": {"cache_root": "pwned"}}], "transforms2": []}}
                ]
            }
        },
        {"TrainReader": {"batch_transforms": [{"DebugVisibleImage": {"output_dir": "pwned"}}]}},
        {"TrainReader": {"sample_transforms": [{"setup_logger": {"name": "x", "output": "pwned"}}]}},
        {"LearningRate": {"schedulers": [{"name": "setup_logger", "output": "pwned"}]}},
        {"TrainDataset": {"name": "setup_logger", "output": "pwned"}},
    ],
)
def test_a_recipe_cannot_name_code_that_evaluates_text_unpickles_or_writes_files(evil, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = config.read_with_bases(RECIPES / "picodet_s_416_trees.yml")
    with pytest.raises(InputError):
        create_all({**content, **evil} if "Dataset" in str(evil) else config.merge(evil, content))
    assert not list(tmp_path.iterdir())


def test_the_recipe_is_valid_without_the_unsafe_names():
    """Without this, the test above would also pass if nothing could be created at all."""
    create_all(config.read_with_bases(RECIPES / "picodet_s_416_trees.yml"))


@pytest.mark.parametrize("tag", ["!DecodeCache {cache_root: pwned}", "!LCPAN {}", "!ShuffleNetV2 {}"])
def test_a_yaml_tag_cannot_create_layers_or_folders(tag, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="could not determine a constructor for the tag"):
        config.parse_yaml(f"a: {tag}")
    assert not list(tmp_path.iterdir())


def calls(tree):
    """The names that a Python file calls: `eval`, `paddle.load`."""
    return {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}


def test_no_allowed_module_evaluates_text_or_accesses_files():
    """Fails if another version of ppdet has such modules, which `allowlist` then has to exclude."""
    dangerous = {
        "eval",
        "exec",
        "open",
        "__import__",
        "paddle.load",
        "pickle.load",
        "np.load",
        "os.system",
        "os.makedirs",
        "build_adamwdl",
    }
    files = {schema.pymodule.__name__: schema.pymodule for schema in config.initial_state()[0].values()}
    assert len(files) > 40
    unsafe = {
        "modeling.backbones.vision_transformer",
        "modeling.backbones.swin_transformer",
        "modeling.backbones.convnext",
        "modeling.necks.custom_pan",
    }
    for name, module in files.items():
        assert name not in {f"ppdet.{one}" for one in unsafe}
        found = calls(ast.parse(Path(module.__file__).read_text())) & dangerous
        assert found <= ({"build_adamwdl"} if name == "ppdet.optimizer.optimizer" else set()), name


def classes_of(file):
    """The source of each class of a Python file; `inspect.getsource` would parse the file for each of them."""
    text = file.read_text()
    lines = text.splitlines()
    found = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ClassDef)]
    return {node.name: "\n".join(lines[node.lineno - 1 : node.end_lineno]) for node in found}


def test_no_allowed_transform_unpickles_or_writes_files():
    import ppdet.data.reader as reader

    compat.import_ppdet()
    transforms = vars(reader.transform)
    assert len(transforms) > 50
    files = {name: Path(inspect.getfile(op)) for name, op in transforms.items()}
    sources = {file: classes_of(file) for file in set(files.values())}
    for name, file in files.items():
        assert not re.search(r"pickle|mkdir|makedirs|imwrite|\.save\(|'wb'", sources[file][name]), name
    assert not allowlist.UNSAFE_TRANSFORMS & transforms.keys()
