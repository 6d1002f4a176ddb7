import pytest
from helpers import RECIPES

from paddle_sparse_cb import InputError
from paddle_sparse_cb.detection import config
from paddle_sparse_cb.errors import PipelineError


def write(path, text):
    path.write_text(text)
    return path


def test_bases_lie_below_the_file_and_are_found_relative_to_it(tmp_path):
    (tmp_path / "_base_").mkdir()
    write(tmp_path / "_base_" / "one.yml", "epoch: 1\nTrainReader: {batch_size: 4, shuffle: true}\n")
    write(tmp_path / "_base_" / "two.yml", "_BASE_: [one.yml]\nepoch: 2\n")
    content = config.read_with_bases(write(tmp_path / "top.yml", "_BASE_: [_base_/two.yml]\n"
                                                                 "TrainReader: {batch_size: 8}\n"))
    assert content == {"epoch": 2, "TrainReader": {"batch_size": 8, "shuffle": True}}


def test_ppdets_own_tags_are_read(tmp_path):
    content = config.read_yaml(write(tmp_path / "r.yml", "LearningRate: {schedulers: [!CosineDecay {max_epochs: 3}]}"))
    assert type(content["LearningRate"]["schedulers"][0]).__name__ == "CosineDecay"


@pytest.mark.parametrize("tag", [
    "!!python/object/apply:os.system ['touch pwned']", "!!python/name:os.system",
    "!Callable {full_type: os.system, args: ['touch pwned']}",
])
def test_a_recipe_from_a_stranger_runs_nothing(tag, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"r.yml: no valid YAML: could not determine a constructor"):
        config.read_yaml(write(tmp_path / "r.yml", f"epoch: {tag}\n"))
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(("text", "said"), [
    ("- a\n- b\n", "a recipe is a mapping"), ("a: [1\n", "no valid YAML"), ("_BASE_: other.yml\n", "_BASE_ is a list"),
    ("_BASE_: [r.yml]\n", "leads back to itself"), ("_BASE_: [none.yml]\n", "none.yml: no such recipe"),
    ("a: !CosineDecay {max_epoch: 3}\n", "max_epoch"), ("", "a recipe is a mapping"), ("\0\1", "no valid YAML"),
])
def test_what_is_no_recipe_is_said_in_one_line(text, said, tmp_path):
    with pytest.raises(InputError) as error:
        config.read_with_bases(write(tmp_path / "r.yml", text))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("content", "said"), [
    ({"epochs": 3}, "r.yml: unknown key 'epochs'; did you mean 'epoch'?"),
    ({"PicoDett": {}}, "did you mean 'PicoDet'?"),
    ({"LCPAN": {"out_chanels": 96}}, "r.yml: unknown key 'out_chanels' in LCPAN; did you mean 'out_channels'?"),
])
def test_an_unknown_key_is_named_with_the_nearest_known(content, said):
    with pytest.raises(InputError) as error:
        config.load(content, "r.yml")
    assert said in str(error.value)


def test_a_second_recipe_does_not_see_the_first():
    config.load({"epoch": 3, "num_classes": 7, "LCNet": {"scale": 2.5}}, "first.yml")
    registry = config.load({"num_classes": 2}, "second.yml")
    assert "epoch" not in registry
    assert "scale" not in dict(registry["LCNet"])


def test_a_second_network_is_built_like_the_first():
    """ppdet's LCPAN changes its own default argument; without a reset the second one has a level more."""
    from paddle_sparse_cb.detection.network import build_network

    content = config.read_with_bases(RECIPES / "picodet_s_416_trees.yml")
    first, second = (list(build_network(config.load(content, "r.yml")).state_dict()) for _ in range(2))
    assert first == second


def test_a_few_lines_do_not_stand_for_billions_of_values():
    lines = ["a0: &a0 [x, x]", *(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}, *a{n - 1}]" for n in range(1, 30))]
    merged = ["a0: &a0 {x: 1}", *(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}, *a{n - 1}]}}" for n in range(1, 30))]
    for text in ("\n".join(lines), "\n".join(merged), "a: &a [*a]"):
        with pytest.raises(InputError, match="no valid YAML: its aliases stand for more than 100,000 values"):
            config.parse_yaml(text)


def test_aliases_as_paddledetection_uses_them_are_read():
    text = "eval_height: &h 320\neval_size: &size [*h, *h]\nresize: {target_size: *size}\n"
    assert config.parse_yaml(text)["resize"] == {"target_size": [320, 320]}


def test_what_ppdet_raises_on_bad_values_names_the_block_and_the_failure_of_a_step_stays_one():
    for error in (ZeroDivisionError("x"), MemoryError("x"), IndexError("x"), RuntimeError("x")):
        with pytest.raises(InputError, match="PicoDet: cannot be made from the recipe: .*Error: x"), \
                config.blaming("PicoDet"):
            raise error
    with pytest.raises(PipelineError, match="missing"), config.blaming("PicoDet"):
        raise PipelineError("missing")
