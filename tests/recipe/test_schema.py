from pathlib import Path

import pytest
from helpers import RECIPES

from paddle_sparse_cb import InputError
from paddle_sparse_cb.recipe.schema import read_recipe

SPARSE = RECIPES / "picodet_s_416_trees_sparse75.yml"


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yml")), ids=lambda path: path.stem)
def test_every_recipe_is_valid(path):
    recipe = read_recipe(path)
    assert recipe.name == path.stem
    assert recipe.content["architecture"] == "PicoDet"
    assert recipe.input_size


def test_only_a_sparse_recipe_has_a_sparsity_block():
    assert read_recipe(RECIPES / "picodet_s_416_trees.yml").sparsity is None
    assert read_recipe(SPARSE).pruning_config().ratio == 0.75


def test_options_override_values_of_the_recipe():
    recipe = read_recipe(SPARSE, options=["epoch=3", "Sparsity.ratio=0.85", "TrainReader.batch_size=2"])
    assert recipe.content["epoch"] == 3
    assert recipe.content["TrainReader"]["batch_size"] == 2
    assert recipe.sparsity["ratio"] == 0.85
    assert recipe.sparsity["pruning_epochs"] == 6


def test_a_slim_file_of_paddledetection_is_read_unchanged(tmp_path):
    slim = tmp_path / "slim.yml"
    slim.write_text(
        "pretrain_weights: https://example.com/picodet.pdparams\nslim: UnstructuredPruner\n"
        "UnstructuredPruner:\n  stable_epochs: 0\n  pruning_epochs: 150\n  tunning_epochs: 150\n"
        "  pruning_steps: 300\n  ratio: 0.85\n  initial_ratio: 0.20\n  prune_params_type: conv1x1_only\n"
    )
    recipe = read_recipe(RECIPES / "picodet_s_416_trees.yml", str(slim))
    assert recipe.sparsity == {
        "stable_epochs": 0,
        "pruning_epochs": 150,
        "tunning_epochs": 150,
        "pruning_steps": 300,
        "ratio": 0.85,
        "initial_ratio": 0.2,
        "prune_params_type": "conv1x1_only",
        "prune_squeeze_excite": True,
        "skip_stage_ends": True,
    }
    assert recipe.content["pretrain_weights"] == "https://example.com/picodet.pdparams"


def test_different_recipes_have_different_digests():
    first = read_recipe(SPARSE)
    assert first.digest == read_recipe(SPARSE).digest
    assert first.digest != read_recipe(SPARSE, options=["seed=1"]).digest
    assert first.digest != read_recipe(SPARSE, options=["Sparsity.ratio=0.8"]).digest
    orders = ["Sparsity.ratios={a: 0.7, b: 0.8}"], ["Sparsity.ratios={b: 0.8, a: 0.7}"]  # the last match decides
    assert len({read_recipe(SPARSE, options=options).digest for options in orders}) == 2


def test_a_recipe_adds_its_patterns_behind_those_that_it_starts_from(tmp_path):
    (tmp_path / "base.yml").write_text(f"_BASE_: [{SPARSE}]\nSparsity:\n  ratios: {{'*': 0.8, 'neck.*': 0.7}}\n")
    (tmp_path / "mine.yml").write_text("_BASE_: [base.yml]\nSparsity:\n  ratios: {'neck.conv_t.*': 0.9, '*': 0.85}\n")
    recipe = read_recipe(tmp_path / "mine.yml", options=["pretrain_weights=null"])
    ratios = recipe.pruning_config().ratios
    assert list(ratios.items()) == [("*", 0.85), ("neck.*", 0.7), ("neck.conv_t.*", 0.9)]


@pytest.mark.parametrize("url", ["https://host/m.pdparams", f"https://host/m.pdparams#sha256={'0' * 64}"])
def test_weights_can_be_a_url_with_a_digest(url):
    assert read_recipe(SPARSE, options=[f"pretrain_weights={url}"]).content["pretrain_weights"] == url


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["Sparsity.prunning_epochs=3"],
            "Sparsity: unknown argument 'prunning_epochs'; did you mean 'pruning_epochs'?",
        ),
        (["Sparsity.ratio=75"], "got 75 (did you mean 0.75?)"),
        (["Sparsity=75"], "the Sparsity block must be a mapping, got 75"),
        (["Sparsity.post_train=x"], "unknown argument 'post_train'"),
        (["epoch"], "-o epoch: an option must be key=value"),
        (["epoch=[1"], "-o epoch=[1: not valid YAML"),
        (["epoch=2026-13-45"], "not valid YAML"),
        (["seed=99999999999"], "seed must be less than"),
        (["save_dir=5"], "save_dir must be a string, got 5"),
        (["pretrain_weights=[a]"], "pretrain_weights must be a string"),
        (["metric=WiderFace"], "metric must be COCO or VOC, got 'WiderFace'"),
        (["amp=O1"], "amp must be true or false, got 'O1'"),
        (["amp_level=O3"], "amp_level must be O1 or O2, got 'O3'"),
        (["init_loss_scaling=0"], "init_loss_scaling must be a whole number"),
        (["custom_black_list=relu"], "custom_black_list must be a list of names of operators, got 'relu'"),
        (["resume_weights=/none"], "use --resume to resume a training"),
        (["export=5"], "export must be a mapping, got 5"),
        (["export.nmss=false"], "export: unknown argument 'nmss'; did you mean 'nms'?"),
        (['export.nms="false"'], "export.nms must be true or false, got 'false'"),
        (["worker_num=100000"], "worker_num must be at most 1024"),
        ([f"Sparsity.initial_ratio=1{'0' * 400}"], "initial_ratio must be a fraction"),
        (["PicoDet={5: x}"], "keys must be strings, got 5"),
        (['save_dir="a\\0b"'], "text must not contain NUL"),
    ],
)
def test_an_invalid_option_is_a_one_line_input_error(options, message):
    with pytest.raises(InputError) as error:
        read_recipe(SPARSE, options=options)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_numbers_in_scientific_notation_are_numbers():
    assert read_recipe(SPARSE, options=["LearningRate.base_lr=1e-3"]).content["LearningRate"]["base_lr"] == 0.001


def test_a_recipe_that_starts_from_itself_is_an_input_error(tmp_path):
    for name, start in (("a", "b"), ("b", "a"), ("c", "c")):
        (tmp_path / f"{name}.yml").write_text(f"_BASE_: [{SPARSE}]\npretrain_weights: recipe:{start}.yml\n")
    for name in "ac":
        with pytest.raises(InputError, match="which is the same recipe or has the same output folder"):
            read_recipe(tmp_path / f"{name}.yml")


@pytest.mark.timeout(180)
def test_a_long_chain_of_recipes_is_refused(tmp_path):
    for number in range(600):
        (tmp_path / f"r{number}.yml").write_text(f"_BASE_: [{SPARSE}]\npretrain_weights: recipe:r{number + 1}.yml\n")
    with pytest.raises(InputError, match=r"r0.yml: .* at most 7 further recipes, and .*r8.yml would be one more$"):
        read_recipe(tmp_path / "r0.yml")
    assert read_recipe(tmp_path / "r0.yml", options=["pretrain_weights=null"]).dense is None


def test_the_digest_depends_on_the_recipe_of_the_start_weights(tmp_path):
    (tmp_path / "sparse.yml").write_text(f"_BASE_: [{SPARSE}]\npretrain_weights: recipe:dense.yml\n")
    digests = set()
    for epochs in (3, 4):
        (tmp_path / "dense.yml").write_text(f"_BASE_: [{RECIPES}/picodet_s_416_trees.yml]\nepoch: {epochs}\n")
        digests.add(read_recipe(tmp_path / "sparse.yml").digest)
    assert len(digests) == 2


@pytest.mark.parametrize(
    "option",
    [
        "TestReader.inputs_def.image_shape=[3, -1, -1]",
        "TestReader=5",
        "TestReader=null",
        "TestReader.inputs_def=null",
        "TestReader.inputs_def.image_shape=[]",
        "TestReader.inputs_def.image_shape=[3, 100, 100]",
        "TestReader.inputs_def.image_shape=[3, 32, 320000]",
    ],
)
def test_an_export_size_that_is_not_fixed_is_an_input_error(option):
    recipe = read_recipe(SPARSE, options=[option])
    with pytest.raises(InputError, match="the fixed size of the exported"):
        recipe.input_size  # noqa: B018  a property that raises


@pytest.mark.parametrize("save_dir", ["/etc", "../elsewhere", "output/../../elsewhere", ".."])
def test_a_recipe_file_cannot_write_outside_the_working_folder_but_an_option_can(save_dir, tmp_path):
    path = tmp_path / "untrusted.yml"
    path.write_text(f"_BASE_: [{SPARSE}]\nsave_dir: {save_dir}\npretrain_weights: null\n")
    slim = tmp_path / "slim.yml"
    slim.write_text(f"save_dir: {save_dir}\n")
    for arguments in ((path,), (SPARSE, str(slim))):
        with pytest.raises(InputError, match=r"(untrusted|slim).yml: save_dir: .* is outside the folder"):
            read_recipe(*arguments)
    assert read_recipe(path, options=[f"save_dir={save_dir}"]).output == Path(save_dir, "untrusted")
    below = tmp_path / "below.yml"
    below.write_text(f"_BASE_: [{SPARSE}]\nsave_dir: some/where\npretrain_weights: recipe:untrusted.yml\n")
    assert read_recipe(below).dense.output == Path("some/where/untrusted")


def test_the_dense_recipe_of_an_untrusted_recipe_cannot_write_outside_the_working_folder(tmp_path):
    (tmp_path / "dense.yml").write_text(f"_BASE_: [{RECIPES}/picodet_s_416_trees.yml]\nsave_dir: /etc\n")
    (tmp_path / "sparse.yml").write_text(f"_BASE_: [{SPARSE}]\nsave_dir: ''\npretrain_weights: recipe:dense.yml\n")
    with pytest.raises(InputError, match=r"dense.yml: save_dir: /etc is outside"):
        read_recipe(tmp_path / "sparse.yml")


@pytest.mark.parametrize("name", ["...yml", "..yml"])
def test_a_recipe_name_that_refers_to_another_folder_is_an_input_error(name, tmp_path):
    (tmp_path / name).write_text(f"_BASE_: [{SPARSE}]\npretrain_weights: null\n")
    with pytest.raises(InputError, match="the output folder has the name of the recipe"):
        read_recipe(tmp_path / name)


@pytest.mark.parametrize(
    "source", ["https://example.com/a.tar", "http://example.com/a.pdparams.zip", "ppdet://a.tar.gz"]
)
def test_only_pdparams_files_can_be_downloaded_as_weights(source):
    with pytest.raises(InputError, match=r"pretrain_weights: a URL must end in .pdparams"):
        read_recipe(SPARSE, options=[f"pretrain_weights={source}"])


def test_an_error_names_the_recipe_and_the_slim_file(tmp_path):
    slim = tmp_path / "slim.yml"
    slim.write_text("UnstructuredPruner: {ratio: 75}\n")
    with pytest.raises(InputError, match=r"picodet_s_416_trees.yml with .*slim.yml: ratio must be a fraction"):
        read_recipe(RECIPES / "picodet_s_416_trees.yml", str(slim))
