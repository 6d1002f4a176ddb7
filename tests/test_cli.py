"""The command line: one line for an error, the exit codes, and the flags of PaddleDetection's scripts."""

import json
import logging
import os
import signal
import subprocess
import sys

import pytest
from helpers import RECIPES, cpu_seconds

import paddle_sparse_cb
from paddle_sparse_cb.cli import main

SPARSE = str(RECIPES / "picodet_s_416_trees_sparse75.yml")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(capsys, *arguments):
    code = main(arguments)
    return code, capsys.readouterr()


# Weights in place of the dense recipe, which would be trained before the error is found.
NO_DENSE = "pretrain_weights=sample:picodet_s_416_lcnet"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "none.yml"], "none.yml: no such recipe"),
        (["train", SPARSE, "-o", "epochs=3"], "unknown key 'epochs'"),
        (["train", SPARSE, "-o", "Sparsity.ratioo=0.5"], "Sparsity: unknown argument 'ratioo'; did you mean 'ratio'?"),
        (["train", SPARSE, "-o", "Sparsity.ratios=0.5"], "ratios must map patterns to values, such as {'head.*': 0.6}"),
        (["train", SPARSE, "-o", "Sparsity.ratio=75"], "ratio must be a fraction from 0.0 to below 1, got 75"),
        (["train", SPARSE, "-o", "TrainDataset.dataset_dir=/none"], "TrainDataset: no annotations at /none/train.json"),
        (["train", SPARSE, "-o", "Sparsity.skip=['*']"], "no layer left to prune"),
        (["train", SPARSE, "-o", "pretrain_weights=/none/model"], "no weights at /none/model.pdparams"),
        (["train", SPARSE, "-o", "pretrain_weights=recipe:none.yml"], "none.yml: no such recipe"),
        (["train", SPARSE, "-o", "Sparsity.pruning_epochs=99"], "would be reached after 990 optimizer steps"),
        (
            ["train", SPARSE, "-o", "Sparsity.prune_params_type=null"],
            "Paddle-Lite would keep backbone.conv1.conv.weight dense: 3x3 kernel; skip it, or change",
        ),
        (
            ["train", SPARSE, "-o", "Sparsity.ratio=0.5"],
            "may end with as few as 50.00% zeros, and runs sparse from 60% (and 39 more of 40 planned layers)",
        ),
        (["train", SPARSE, "-o", "Sparsity.local_sparsity=false"], "as few as 0.00% zeros"),
        (
            ["train", SPARSE, "-o", "Sparsity.scope=erk"],
            "Paddle-Lite would keep backbone.blocks2.0.pw_conv.conv.weight dense: it may end with as few as",
        ),
        (["plan", SPARSE, "-o", "Sparsity.ratio=0.5"], "(and 39 more of 40 planned layers)"),
        (
            ["train", SPARSE, "-o", "Sparsity.sparse_block=[7,1]"],
            "sparse_block [7, 1] divides none of the layers to prune",
        ),
        (
            ["train", SPARSE, "-o", "Sparsity.blocks={neck.*: [7,1]}"],
            "blocks: [7, 1] of the pattern 'neck.*' does not divide neck.",
        ),
        (
            ["train", SPARSE, "-o", "Sparsity.ratios={nek.*: 0.8}"],
            "ratios: the pattern 'nek.*' matches no weight of the network",
        ),
        (
            ["plan", SPARSE, "-o", "Sparsity.ratios={neck.conv_t.convs.0.conv.weight: 0.5}"],
            "Paddle-Lite would keep neck.conv_t.convs.0.conv.weight dense: it may end with as few as 50.00% zeros",
        ),
        (["train", SPARSE, "-o", "Sparsity.permute_channels=1"], "permute_channels must be true or false, got 1"),
        (["train", SPARSE, "-o", "Sparsity.permute_channels=true"], "no layer is pruned in blocks of output channels"),
        (["train", SPARSE, "-o", "export.int8=true"], "Paddle-Lite computes hard swish, which PicoDet uses, wrongly"),
        (
            ["train", SPARSE, "-o", "export.lite.enable_fp16=yes please"],
            "option enable_fp16 must be a word or comma-separated words, got 'yes please'",
        ),
        (
            ["train", SPARSE, "-o", "export.lite.enable_fp16=1"],
            "option enable_fp16 must be true or false, got '1'",
        ),
        (["train", SPARSE, "-o", "export.lite.sparse_model=true"], "option sparse_model is set by this package"),
        (["train", SPARSE, "-o", "export.lite=arm"], "export.lite must be a mapping of options of paddle_lite_opt"),
        (
            ["train", SPARSE, "-o", "save_dir=/etc/hostname"],
            "cannot be created: /etc/hostname is not a writable folder",
        ),
        (["train", SPARSE, "-o", "TrainReader.batch_size=eight"], "TypeError"),
        (["train", SPARSE, "-o", "TrainDataset.dataset_dir=5"], "dataset_dir"),
        (["train", SPARSE, "-o", "PicoHeadV2.fpn_stride=[8]"], "cannot be created from the recipe"),
        (["train", SPARSE, "-o", "epoch=three"], "epoch must be a whole number of at least 1, got 'three'"),
        (["train", SPARSE, "-o", "architecture=YOLOv3"], "architecture must be PicoDet, got 'YOLOv3'"),
        (["train", SPARSE, "-o", "LCNet.scale=wide"], "PicoDet: cannot be created from the recipe"),
        (["train", SPARSE, "-o", "OptimizerBuilder.optimizer.type=Adamm"], "Adamm"),
        (["train", SPARSE, "--slim_config", "none.yml"], "none.yml: no such recipe"),
        (["eval", SPARSE], "checkpoints/final.pdparams: not trained yet; run: paddle-sparse train"),
        (["export", SPARSE], "not trained yet"),
        (["optimize", SPARSE], "not trained yet"),
        (["verify", SPARSE], "not trained yet"),
        (["report", SPARSE], "no report; train the recipe first"),
    ],
)
def test_invalid_input_is_an_error_of_one_line_with_exit_code_2(arguments, message, folder, capsys):
    if not any("pretrain_weights" in word for word in arguments) and len(arguments) > 2:
        arguments = [*arguments, *([] if "-o" in arguments else ["-o"]), NO_DENSE]
    code, output = run(capsys, *arguments)
    assert code == 2
    assert message in output.err
    assert len(output.err.strip().splitlines()) == 1
    assert output.err.startswith("paddle-sparse: ")
    assert not (folder / "output").exists()


def test_a_recipe_can_be_given_as_to_paddledetections_scripts(folder, capsys):
    for words in (["-c", SPARSE], ["--config", SPARSE], [f"--config={SPARSE}"], ["-o", "epoch=3", "-c", SPARSE]):
        code, output = run(capsys, "plan", *words)
        assert code == 0
        assert "40 of 98" in output.out
    with pytest.raises(SystemExit):
        main(["plan"])


def test_the_plan_needs_neither_data_nor_weights(folder, capsys):
    code, output = run(capsys, "plan", SPARSE, "-o", "TrainDataset.dataset_dir=/none")
    assert code == 0
    assert "40 of 98 weights are pruned: 82.8% of 297.64 million multiply-accumulates become sparse" in output.out
    rows = [" ".join(line.split()) for line in output.out.splitlines()]
    assert "neck.conv_t.convs.0.conv.weight 96x96x1x1 32x32 9.44 pruned" in rows
    assert "backbone.blocks6.1.se.conv1.weight 96x384x1x1 1x1 0.04 1x1 output" in rows


def test_the_plan_shows_ratios_and_blocks_where_layers_differ(folder, capsys):
    code, output = run(
        capsys, "plan", SPARSE, "-o", "Sparsity.sparse_block=[16,1]", "Sparsity.ratios={neck.conv_t.*: 0.875}"
    )
    assert code == 0
    rows = [" ".join(line.split()) for line in output.out.splitlines()]
    assert "neck.conv_t.convs.0.conv.weight 96x96x1x1 32x32 9.44 87.50% 16x1 pruned" in rows
    single = [row for row in rows if row.endswith("1x1 pruned; 16x1 does not divide it")]
    assert single
    assert all(int(row.split()[1].split("x")[0]) % 16 for row in single)


def test_the_plan_lists_every_layer_that_would_not_run_sparse(folder, capsys):
    code, output = run(capsys, "plan", SPARSE, "-o", "Sparsity.scope=erk")
    assert code == 2
    listed = [line for line in output.out.splitlines() if line.startswith("dense in Paddle-Lite: ")]
    assert len(listed) == 22
    assert "backbone.blocks2.0.pw_conv.conv.weight: it may end with as few as" in listed[0]


def test_the_plan_of_a_dense_recipe_shows_the_computation_of_each_layer(folder, capsys):
    code, output = run(capsys, "plan", str(RECIPES / "picodet_s_416_trees.yml"))
    assert code == 0
    assert output.out.count("dense recipe") == 40
    assert "0 of 98 weights are pruned: 0.0% of" in output.out


@pytest.mark.slow
def test_an_error_of_the_program_has_no_traceback(folder):
    done = subprocess.run(
        [sys.executable, "-m", "paddle_sparse_cb", "train", "none.yml"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr == "paddle-sparse: none.yml: no such recipe\n"


@pytest.mark.slow
def test_a_command_whose_output_nobody_reads_ends_quietly(folder):
    """As in `paddle-sparse plan RECIPE | head -1`."""
    command = [sys.executable, "-m", "paddle_sparse_cb", "plan", SPARSE]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    running.stdout.close()
    assert running.stderr.read() == ""
    assert running.wait() == 1
    running.stderr.close()


@pytest.mark.slow
def test_without_ppdet_the_error_names_the_extra_to_install(folder):
    code = (
        "import sys; sys.modules['ppdet'] = None; from paddle_sparse_cb.cli import main; "
        f"sys.exit(main(['plan', {SPARSE!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("paddle-sparse: plan needs ppdet: pip install 'paddle_sparse_cb[detection]'; ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["plan", SPARSE],
            "plan needs paddle: pip install 'paddle_sparse_cb[cpu]'; paddle-sparse doctor looks for more",
        ),
        (["doctor"], "doctor needs platformdirs: pip install 'paddle_sparse_cb'"),
    ],
)
def test_without_any_dependency_the_error_names_what_to_install(words, message):
    code = f"import sys; from paddle_sparse_cb.cli import main; sys.exit(main({words}))"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        env={**os.environ, "PYTHONPATH": str(RECIPES.parent)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"paddle-sparse: {message}")
    assert len(done.stderr.splitlines()) == 1


def test_a_signal_before_the_first_checkpoint_recommends_no_resume(folder, capsys, monkeypatch):
    monkeypatch.setattr("paddle_sparse_cb.recipe.train.load_weights", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    code, output = run(capsys, "train", SPARSE, "-o", NO_DENSE)
    assert code == 128 + signal.SIGTERM
    assert output.err == "paddle-sparse: interrupted by SIGTERM\n"


def test_help_lists_the_commands(capsys):
    with pytest.raises(SystemExit) as error:
        main(["--help"])
    assert error.value.code == 0
    printed = capsys.readouterr().out
    for name in ("plan", "train", "eval", "export", "optimize", "verify", "report", "bench"):
        assert name in printed


@pytest.mark.slow
@pytest.mark.serial
def test_help_is_printed_in_less_than_three_tenths_of_a_second():
    help_, nothing = cpu_seconds(["-m", "paddle_sparse_cb", "--help"], ["-c", "pass"])
    assert help_ < 0.3, f"Python alone takes {nothing:.2f} s"


HEAVY = {"paddle", "numpy", "ppdet", "paddleslim", "pycocotools", "yaml", "rich", "shtab"}


@pytest.mark.parametrize("words", [["--help"], ["predict", "--help"], ["--version"], ["trani"]])
def test_help_and_version_import_no_heavy_package(words):
    code = f"""
import sys
from paddle_sparse_cb.cli import main
try:
    main({words})
except SystemExit:
    pass
print(*sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = set(done.stdout.splitlines()[-1].split())
    assert "argparse" in imported
    assert not HEAVY & imported


@pytest.mark.parametrize(
    ("words", "level"),
    [
        (["list"], "INFO"),
        (["-q", "list"], "WARNING"),
        (["list", "--quiet"], "WARNING"),
        (["list", "-v"], "DEBUG"),
        (["--verbose", "list"], "DEBUG"),
    ],
)
def test_the_level_of_the_messages_is_set_before_or_after_the_command(words, level, folder, capsys):
    logger = logging.getLogger("paddle_sparse_cb")
    try:
        code, printed = run(capsys, *words)
        assert code == 0
        assert "picodet_s_416_trees" in printed.out
        assert logger.level == getattr(logging, level)
    finally:
        logger.setLevel(logging.INFO)


def test_quiet_and_verbose_exclude_each_other(capsys):
    with pytest.raises(SystemExit) as error:
        main(["list", "-q", "-v"])
    assert error.value.code == 2
    assert "not allowed with" in capsys.readouterr().err


WARNED = ["amp=true", "pretrain_weights=/none/model"]  # a warning, then an error


@pytest.mark.parametrize("flag", [[], ["-q"]])
def test_warnings_are_shown_even_to_those_who_want_quiet(flag, folder, capsys):
    code, printed = run(capsys, "train", SPARSE, *flag, "-o", *WARNED)
    logging.getLogger("paddle_sparse_cb").setLevel(logging.INFO)
    assert code == 2
    assert "warning: amp has no effect" in printed.out


def test_the_version_is_printed(capsys):
    with pytest.raises(SystemExit) as error:
        main(["--version"])
    assert error.value.code == 0
    assert capsys.readouterr().out == f"paddle_sparse_cb {paddle_sparse_cb.__version__}\n"


@pytest.mark.parametrize(
    ("word", "hint"), [("trani", "did you mean 'train'?"), ("evaluate", "did you mean 'eval'?"), ("x", "known: ")]
)
def test_the_nearest_command_is_suggested_for_an_unknown_one(word, hint, capsys):
    code, output = run(capsys, word, SPARSE)
    assert code == 2
    assert output.err.startswith(f"paddle-sparse: no such command {word!r}; {hint}")
    assert len(output.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("paddle-sparse tra", ["train"]),
        ("paddle-sparse train --res", ["--resume"]),
        ("paddle-sparse train picodet_s_garm", ["picodet_s_garments", "picodet_s_garments_sparse75"]),
        ("paddle-sparse predict picodet_s_garments ph", ["photo.jpg"]),
    ],
)
def test_bash_completes_commands_flags_recipes_and_files(words, expected, folder, capsys):
    with pytest.raises(SystemExit):
        main(["--print-completion", "bash"])
    (folder / "photo.jpg").touch()
    (folder / "script").write_text(capsys.readouterr().out)
    complete = (
        f"source ./script; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); "
        '_shtab_paddle_sparse; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", complete], capture_output=True, text=True)
    assert done.stderr == ""
    assert set(expected) <= set(done.stdout.split())


def test_a_recipe_can_be_given_by_name(folder, capsys):
    code, output = run(capsys, "plan", "picodet_s_416_trees_sparse75")
    assert code == 0
    assert "40 of 98" in output.out
    code, output = run(capsys, "plan", "picodet_s_416_trees_sparse57")
    assert code == 2
    assert "no such recipe; did you mean 'picodet_s_416_trees_sparse75'? (paddle-sparse list)" in output.err


def test_the_plan_is_printed_as_json(folder, capsys):
    code, output = run(capsys, "plan", SPARSE, "--json")
    assert code == 0
    plan = json.loads(output.out)
    assert sum(layer["pruned"] for layer in plan["layers"]) == 40
    stem = plan["layers"][0]
    assert (stem["name"], stem["shape"], stem["reason"]) == ("backbone.conv1.conv.weight", [16, 3, 3, 3], "3x3 kernel")
    assert plan["dense_in_lite"] == {}
    code, output = run(capsys, "plan", SPARSE, "--json", "-o", "Sparsity.scope=erk")
    assert code == 2
    assert len(json.loads(output.out)["dense_in_lite"]) == 22
