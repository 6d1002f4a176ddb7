"""`paddle-sparse bench --runner` and `--adb`: real runners, here and on the stand-in for an Android device."""

import json
import re
import shlex
import shutil

import pytest
from helpers import CORE_ONLY, RECIPES

from paddle_sparse_cb.cli import main
from paddle_sparse_cb.deploy.bench.devices import DeviceOptions, find_device_files, measure_on_device, runner_suffix
from paddle_sparse_cb.deploy.bench.run import make_result
from paddle_sparse_cb.deploy.device import TimingOptions
from paddle_sparse_cb.deploy.lite.optimizer import find_optimizer, optimize
from paddle_sparse_cb.errors import InputError
from paddle_sparse_cb.report.bench import bench_table

from .conftest import RATIO, RUNTIMES

pytestmark = pytest.mark.xdist_group("device")  # the runners are compiled once
SPARSE = str(RECIPES / "picodet_s_416_trees_sparse75.yml")


@pytest.fixture(scope="session")
def device_files(models, tmp_path_factory):
    """What a recipe leaves: files for ARM (`arm`), and files that the runners of this machine can run (`here`)."""
    folder = tmp_path_factory.mktemp("device_files")
    optimizer = find_optimizer()
    for name in ("arm", "here"):
        (folder / name / "inference").mkdir(parents=True)
        for suffix in (".pdmodel", ".pdiparams"):
            shutil.copy(models / f"model{suffix}", folder / name / "inference")

    def make(name, sparse, **options):
        return optimize(models / "model", folder / name, sparse=sparse, optimizer=optimizer, options=options)

    make("arm/model_dense.nb", False)
    make("arm/model_sparse.nb", True)
    make("arm/model_sparse_fp16.nb", True, enable_fp16="true")
    here = make("here/model_dense.nb", False, valid_targets="x86")
    shutil.copy(here, here.with_name("model_sparse.nb"))  # Paddle-Lite has no sparse kernels for this processor
    if not CORE_ONLY:
        for kind in ("dense", "sparse"):
            shutil.copy(models / f"{kind}.mnn", folder / "here" / f"model_{kind}.mnn")
    return folder


FAST = TimingOptions(warmup=1, repeats=5, rounds=1, timeout=60)


@RUNTIMES
def test_files_for_arm_are_described(device_files):
    files = find_device_files(device_files / "arm", ".nb")
    ratio = pytest.approx(RATIO, abs=0.01)
    assert [(one.path.name, one.kind, one.ratio, one.precision) for one in files] == [
        ("model_dense.nb", "dense", ratio, "FP32"),
        ("model_sparse.nb", "sparse", ratio, "FP32"),
        ("model_sparse_fp16.nb", "sparse", None, "FP16"),  # its dense file is missing
    ]
    assert {(one.inputs, one.block) for one in files} == {(((1, 1, 16, 16),), (1, 1))}


@RUNTIMES
def test_files_of_both_runtimes_are_timed_and_compared(device_files, lite_runner, mnn_runner):
    runners = [shlex.join(lite_runner), shlex.join(mnn_runner)]
    options = DeviceOptions(runners, threads=(1, 2), timing=FAST)
    rows = make_result(measure_on_device(device_files / "here", options))["rows"]
    assert [(row["runtime"], row["file"], row["threads"]) for row in rows] == [
        (runtime, f"model_{kind}.{suffix}", threads)
        for runtime, suffix in (("Paddle-Lite", "nb"), ("MNN", "mnn"))
        for threads in (1, 2)
        for kind in ("dense", "sparse")
    ]
    assert all(row["device"] and row["cluster"] == "any" and row["cpus"] and row["ms"] > 0 for row in rows)
    assert [row["kind"] for row in rows[4:]] == ["dense", "sparse"] * 2
    dense, sparse = rows[4:6]
    assert sparse["speedup"] == pytest.approx((dense["ms"] - sparse["ms"]) / sparse["ms"])
    fastest = min(row["ms"] for row in rows if row["threads"] == 1 and row["kind"] == "dense")
    assert sparse["speedup_fastest"] == pytest.approx((fastest - sparse["ms"]) / sparse["ms"])
    assert sparse["ratio"] == pytest.approx(RATIO, abs=0.01)
    assert {row["note"] for row in rows} == {""}


@RUNTIMES
def test_a_sparse_file_with_other_outputs_is_marked(device_files, mnn_runner, models, tmp_path):
    from paddle_sparse_cb.deploy.mnn.reader import read_mnn

    shutil.copy(device_files / "here" / "model_dense.mnn", tmp_path)
    content = (device_files / "here" / "model_sparse.mnn").read_bytes()
    for one in read_mnn(models / "sparse.mnn").convolutions:
        content = content.replace(one.values.tobytes(), (2 * one.values).tobytes())
    (tmp_path / "model_sparse.mnn").write_bytes(content)
    rows = measure_on_device(tmp_path, DeviceOptions([shlex.join(mnn_runner)], timing=FAST))
    assert [row.note for row in rows] == ["", "OUTPUTS DIFFER from those of model_dense.mnn"]


@RUNTIMES
def test_a_folder_is_timed_on_an_android_device(device_files, adb, program, capsys):
    where = ["bench", str(device_files / "here"), "--adb", "emulator-5554", "--runner", str(program)]
    assert main([*where, "--cluster", "big", "--threads", "1"]) == 0
    printed = capsys.readouterr()
    rows = [re.split(r" {2,}", line) for line in printed.out.splitlines() if line.startswith("Google Pixel 6 x86_64")]
    assert [row[1:3] for row in rows] == [
        ["big", "model_dense.nb"],
        ["big", "model_sparse.nb"],
    ]
    assert "machine: " not in printed.out  # that of this computer
    assert list(adb.temporary.iterdir()) == []


@RUNTIMES
def test_the_files_of_a_recipe_are_those_in_its_output_folder(device_files, mnn_runner, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(device_files / "here", tmp_path / "output" / "picodet_s_416_trees_sparse75")
    assert main(["bench", SPARSE, "--runner", shlex.join(mnn_runner), "--runner", "/none/lite_runner", "--json"]) == 2
    assert "runner '/none/lite_runner' cannot be started" in capsys.readouterr().err
    assert main(["bench", SPARSE, "--runner", shlex.join(mnn_runner), "--json", "--fail-under", "1000%"]) == 1
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [(row["kind"], row["file"], row["cluster"]) for row in rows] == [
        ("dense", "model_dense.mnn", "any"),
        ("sparse", "model_sparse.mnn", "any"),
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--adb"], "--adb needs the program that runs on the device: --runner build/lite_runner"),
        (["--cluster", "big"], "--cluster needs a device: --runner CMD, or --adb and --runner FILE"),
        (["--runner", "ssh pi ./time"], "--runner 'ssh pi ./time': must end with the path of a lite_runner (.nb"),
        (["--runner", ""], "--runner '': must end with the path of a lite_runner"),
        (["--runner", "./lite_runner", "--cluster", "medium"], "--cluster must be among any, big, little, got 'medi"),
        (["--runner", "./lite_runner", "--threads", "0"], "threads must be a whole number of at least 1, got 0"),
        (["--runner", "./lite_runner", "--eval"], "--eval: --runner and --adb time the files that exist"),
        (["--runner", "./lite_runner", "--seconds", "3"], "--seconds: --runner and --adb time the files that exist"),
        (["--runner", "./lite_runner"], ".: no .nb file for the device"),
        (["--runner", "./lite_runner", "--runner", "./mnn_runner"], ".: no .nb or .mnn file for the device"),
    ],
)
def test_invalid_input_is_an_error_of_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["bench", ".", *arguments]) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert message in line


@RUNTIMES
@pytest.mark.parametrize(
    ("runner", "command"),
    [
        ("./lite_runner", f"paddle-sparse train {SPARSE}"),
        ("./mnn_runner", f"paddle-sparse train {SPARSE} -o export.mnn=true"),
    ],
)
def test_without_trained_files_the_command_that_makes_them_is_named(runner, command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["bench", SPARSE, "--runner", runner]) == 2
    assert capsys.readouterr().err.strip().endswith(f"file for the device; run: {command}")


@RUNTIMES
def test_files_that_cannot_be_read_are_refused_before_a_device_is_asked(device_files, tmp_path):
    (tmp_path / "model.nb").write_bytes(b"no model")
    (tmp_path / "model.mnn").write_bytes(b"no model")
    for command in ("/no/such/lite_runner", "/no/such/mnn_runner"):
        with pytest.raises(InputError, match=r"model\.(nb|mnn): "):
            measure_on_device(tmp_path, DeviceOptions([command]))
    shutil.copy(device_files / "arm" / "model_dense.nb", tmp_path / "model.nb")
    with pytest.raises(InputError, match="does not contain the shapes of its inputs; put the exported model"):
        find_device_files(tmp_path, ".nb")


def test_the_name_of_the_program_tells_its_files():
    assert runner_suffix("qemu-aarch64 -L root '/opt/my tools/mnn_runner'") == ".mnn"
    assert runner_suffix("build/lite_runner-arm64 ") == ".nb"
    with pytest.raises(InputError, match="must end with the path"):
        runner_suffix("./lite_runner --threads 4")


def test_cores_and_temperature_are_columns_where_they_are_known():
    row = {
        **{"runtime": "MNN", "version": "3", "kind": "dense", "ratio": None, "block": [1, 1], "precision": "FP32"},
        **{"threads": 1, "mb": 1.0, "ms": 2.0, "spread": 0.2, "speedup": None, "speedup_fastest": 0.0, "map": None},
        **{"trained": False, "disturbed": True, "note": "", "device": "Pixel", "file": "a.mnn", "cluster": "big"},
        **{"cpus": [7], "temperature": [38.2, None]},
    }
    table = bench_table({"machine": {}, "rows": [row], "notes": []})
    assert "38 -> ?" in table
    assert "* disturbed (the latency varies much)" in table
