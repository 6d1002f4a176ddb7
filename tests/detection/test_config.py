import copy

import pytest
from helpers import RECIPES

from paddle_sparse_cb import InputError
from paddle_sparse_cb.detection import config
from paddle_sparse_cb.detection.network import build_network
from paddle_sparse_cb.errors import PipelineError

DENSE_RECIPES = sorted(path for path in RECIPES.glob("*.yml") if "sparse" not in path.name)


def write(path, text):
    path.write_text(text)
    return path


def test_a_file_overrides_its_bases_which_are_found_relative_to_it(tmp_path):
    (tmp_path / "_base_").mkdir()
    write(tmp_path / "_base_" / "one.yml", "epoch: 1\nTrainReader: {batch_size: 4, shuffle: true}\n")
    write(tmp_path / "_base_" / "two.yml", "_BASE_: [one.yml]\nepoch: 2\n")
    content = config.read_with_bases(
        write(tmp_path / "top.yml", "_BASE_: [_base_/two.yml]\nTrainReader: {batch_size: 8}\n")
    )
    assert content == {"epoch": 2, "TrainReader": {"batch_size": 8, "shuffle": True}}


def test_the_tags_of_paddledetections_files_are_read(tmp_path):
    content = config.read_yaml(write(tmp_path / "r.yml", "LearningRate: {schedulers: [!CosineDecay {max_epochs: 3}]}"))
    assert type(content["LearningRate"]["schedulers"][0]).__name__ == "CosineDecay"


@pytest.mark.parametrize(
    "tag",
    [
        "!!python/object/apply:os.system ['touch pwned']",
        "!!python/name:os.system",
        "!Callable {full_type: os.system, args: ['touch pwned']}",
    ],
)
def test_an_untrusted_recipe_runs_no_code(tag, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"r.yml: not valid YAML: could not determine a constructor"):
        config.read_yaml(write(tmp_path / "r.yml", f"epoch: {tag}\n"))
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n- b\n", "a recipe must be a mapping"),
        ("a: [1\n", "not valid YAML"),
        ("_BASE_: other.yml\n", "_BASE_ must be a list"),
        ("_BASE_: [r.yml]\n", "_BASE_ includes the file itself"),
        ("_BASE_: [none.yml]\n", "none.yml: no such recipe"),
        ("a: !CosineDecay {max_epoch: 3}\n", "max_epoch"),
        ("", "a recipe must be a mapping"),
        ("_BASE_: [~nobody_of_this_name/a.yml]\n", "_BASE_: ~nobody_of_this_name/a.yml: "),
        ("a: 0x" + "f" * 5000, "an integer must have at most 4096 bits, got one of 20000"),
        ("? 0x" + "f" * 5000 + "\n: 1", "an integer must have at most 4096 bits"),
        ("a: " + "9" * 5000, "not valid YAML: "),
        ('save_dir: "a\\0b"', r"text must not contain NUL or half of a surrogate pair, got 'a\x00b'"),
        ('_BASE_: ["a\\0b"]', "text must not contain NUL"),
        ('weights: "\\ud800"', r"text must not contain NUL or half of a surrogate pair, got '\ud800'"),
        ("a: " + "[" * 5000, "not valid YAML: more than 100 levels of nesting"),
        ("a:\n  " + "- " * 60_000, "not valid YAML: more than 100 levels of nesting"),
        ("\0\1", "not valid YAML"),
    ],
)
def test_an_invalid_recipe_is_an_error_of_one_line(text, message, tmp_path):
    with pytest.raises(InputError) as error:
        config.read_with_bases(write(tmp_path / "r.yml", text))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"epochs": 3}, "r.yml: unknown key 'epochs'; did you mean 'epoch'?"),
        ({"PicoDett": {}}, "did you mean 'PicoDet'?"),
        ({"LCPAN": {"out_chanels": 96}}, "r.yml: unknown key 'out_chanels' in LCPAN; did you mean 'out_channels'?"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_known_one(content, message):
    with pytest.raises(InputError) as error:
        config.load(content, "r.yml")
    assert message in str(error.value)


def test_a_recipe_does_not_see_the_settings_of_an_earlier_one():
    config.load({"epoch": 3, "num_classes": 7, "LCNet": {"scale": 2.5}}, "first.yml")
    registry = config.load({"num_classes": 2}, "second.yml")
    assert "epoch" not in registry
    assert "scale" not in dict(registry["LCNet"])


def shapes(network):
    return {name: tuple(array.shape) for name, array in network.state_dict().items()}


@pytest.mark.parametrize("recipe", DENSE_RECIPES, ids=lambda path: path.stem)
def test_networks_created_from_one_registry_are_equal(recipe):
    registry = config.load(config.read_with_bases(recipe), recipe.name)
    first, second = shapes(build_network(registry)), shapes(build_network(registry))
    assert len(first) > 400
    assert first == second
    assert shapes(build_network(config.load(config.read_with_bases(recipe), recipe.name))) == first


def test_creating_a_module_leaves_the_registry_as_it_is():
    """Both a list of the recipe, which LCPAN appends to, and settings of nested modules, which ppdet merges."""
    content = config.read_with_bases(RECIPES / "picodet_s_416_trees.yml")
    config.merge({"LCPAN": {"spatial_scales": [0.125, 0.0625, 0.03125]}}, content)
    registry = config.load(content, "r.yml")
    before = copy.deepcopy(
        {name: dict(value) if isinstance(value, dict) else value for name, value in registry.items() if name in content}
    )
    detector = config.create("PicoDet")
    assert len(detector.neck.spatial_scales) == 4
    assert registry["LCPAN"]["spatial_scales"] == [0.125, 0.0625, 0.03125]
    assert {
        name: dict(value) if isinstance(value, dict) else value for name, value in registry.items() if name in content
    } == before


def test_aliases_that_expand_to_billions_of_values_are_refused():
    lines = ["a0: &a0 [x, x]", *(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}, *a{n - 1}]" for n in range(1, 30))]
    merged = ["a0: &a0 {x: 1}", *(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}, *a{n - 1}]}}" for n in range(1, 30))]
    for text in ("\n".join(lines), "\n".join(merged), "a: &a [*a]"):
        with pytest.raises(InputError, match="not valid YAML: more than 100,000 values with all aliases expanded"):
            config.parse_yaml(text)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("bases", ["[{next}, {next}]", "[{next}]"])
def test_files_that_include_each_other_exponentially_or_without_end_are_refused(bases, tmp_path):
    for number in range(70):
        write(tmp_path / f"{number}.yml", f"_BASE_: {bases.format(next=f'{number + 1}.yml')}\n")
    write(tmp_path / "70.yml", "epoch: 1\n")
    with pytest.raises(InputError, match=r"0.yml: _BASE_ must include at most 64 files .*\d.yml exceeds that$"):
        config.read_with_bases(tmp_path / "0.yml")


@pytest.mark.timeout(180)
def test_the_size_of_a_recipe_and_of_its_bases_is_limited(tmp_path):
    write(tmp_path / "large.yml", "a: [" + "x, " * 50_000 + "x]\n")
    with pytest.raises(InputError, match=r"large.yml: a recipe must have at most 131,072 bytes, got 150,007"):
        config.read_with_bases(tmp_path / "large.yml")
    write(tmp_path / "half.yml", f"a: {'x' * 70_000}\n")
    with pytest.raises(InputError, match=r"top.yml: _BASE_ must include .* 131,072 bytes in all.*half.yml exceeds"):
        config.read_with_bases(write(tmp_path / "top.yml", "_BASE_: [half.yml, half.yml]\n"))


def test_aliases_as_in_paddledetections_files_are_read():
    text = "eval_height: &h 320\neval_size: &size [*h, *h]\nresize: {target_size: *size}\n"
    assert config.parse_yaml(text)["resize"] == {"target_size": [320, 320]}


def test_errors_of_ppdet_become_input_errors_that_name_the_block_and_pipeline_errors_stay():
    for error in (ZeroDivisionError("x"), MemoryError("x"), IndexError("x"), RuntimeError("x")):
        with (
            pytest.raises(InputError, match="PicoDet: cannot be created from the recipe: .*Error: x"),
            config.convert_errors("PicoDet"),
        ):
            raise error
    with pytest.raises(PipelineError, match="missing"), config.convert_errors("PicoDet"):
        raise PipelineError("missing")
