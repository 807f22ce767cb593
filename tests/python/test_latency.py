"""The latency reports: figures where something can be measured, a sentence where not, and files that are written whole."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from calibrate import calibrate
from torch import nn

ROOT = Path(__file__).resolve().parents[2]

import latency as command
import measuring
import plots

import bnfold

IMAGE = (3, 9, 9)
FEW = measuring.Settings(runs=6)
TORCHSCRIPT = tuple(measuring.TORCHSCRIPT)
QUICK = [name for name in measuring.VARIANTS if not name.startswith("torch.compile")]


def network() -> nn.Module:
    model = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Conv2d(5, 4, 3), nn.BatchNorm2d(4)).eval()
    calibrate(model, (torch.randn(2, *IMAGE),))
    return model


def rows_by_variant(settings: measuring.Settings = FEW, variants=TORCHSCRIPT, model=None) -> dict[str, measuring.Latency]:
    return {row.variant: row for row in measuring.latency(model or network(), IMAGE, settings, variants)}


# ---- statistics


RANKS = [(6, 1, 6), (8, 1, 8), (9, 2, 8), (10, 2, 9), (20, 6, 15), (30, 10, 21), (100, 40, 61)]


@pytest.mark.parametrize("count, lower, upper", RANKS)
def test_the_ranks_of_the_interval_are_those_of_the_tables(count, lower, upper):
    samples = torch.randperm(count).add(1).tolist()
    assert measuring.median_interval(samples) == ((count + 1) / 2, lower, upper)


def test_too_few_samples_have_no_interval():
    with pytest.raises(ValueError, match="^5 samples have no 95% interval of the median$"):
        measuring.median_interval([1, 2, 3, 4, 5])
    assert measuring.median_interval([3, 1, 2], confidence=0.75) == (2, 1, 3)


def test_ratios_are_those_of_pairs():
    base = [1, 2, 3, 4, 5, 6]
    assert measuring.ratio_interval([2 * value for value in base], base) == (2, 2, 2)
    with pytest.raises(ValueError):
        measuring.ratio_interval(base, base[:-1])


# ---- latency


@pytest.mark.parametrize(
    "settings",
    [FEW, measuring.Settings(runs=6, batch=2, channels_last=True), measuring.Settings(runs=6, dtype=torch.bfloat16)],
    ids=lambda settings: plots.title(settings.as_dict()),
)
def test_every_torchscript_variant_has_figures(settings):
    rows = rows_by_variant(settings)
    assert tuple(rows) == TORCHSCRIPT
    for row in rows.values():
        assert row.unavailable is None and row.settings == settings
        assert 0 < row.low_ms <= row.median_ms <= row.high_ms
        assert 0 < row.ratio_low <= row.ratio <= row.ratio_high
        assert (len(row.warm_up_ms), len(row.runs_ms)) == (measuring.WARM_UP_RUNS, settings.runs)
    assert rows["torch.jit.freeze"].ratio == 1


def test_without_torch_jit_freeze_there_are_no_ratios():
    (row,) = measuring.latency(network(), IMAGE, FEW, ["bnfold.fold"])
    assert row.median_ms > 0 and row.ratio is None


def test_the_model_and_the_threads_stay_as_they_were():
    model, threads = network(), torch.get_num_threads()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    rows_by_variant(measuring.Settings(runs=6, dtype=torch.float16, threads=threads + 1), ["original"], model)
    assert torch.get_num_threads() == threads
    assert all(value.dtype == before[name].dtype and value.equal(before[name]) for name, value in model.state_dict().items())


def test_without_a_gpu_each_row_says_so(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    rows = rows_by_variant(measuring.Settings(runs=6, device="cuda"), measuring.VARIANTS)
    assert {row.unavailable for row in rows.values()} == {"no CUDA device"}
    assert measuring.norm_share(network(), IMAGE, measuring.Settings(device="cuda")) is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("cuda_graphs", [False, True])
def test_on_a_gpu(cuda_graphs):
    settings = measuring.Settings(runs=6, device="cuda", cuda_graphs=cuda_graphs)
    rows = rows_by_variant(settings)
    assert [row.unavailable for row in rows.values()] == [None] * len(TORCHSCRIPT)
    assert all(0 < row.low_ms <= row.median_ms <= row.high_ms for row in rows.values())
    assert 0 < measuring.norm_share(network(), IMAGE, settings) < 1
    kernels = {row.variant: row.kernels_launched for row in measuring.contents(network(), IMAGE, "cuda")}
    assert 0 < kernels["bnfold.freeze"] <= kernels["original"]


def test_a_variant_that_raises_has_its_first_line(monkeypatch):
    def fails(scripted):
        raise RuntimeError("no such luck\nand a long explanation")

    monkeypatch.setitem(measuring.TORCHSCRIPT, "bnfold.fold", fails)
    rows = rows_by_variant()
    assert rows.pop("bnfold.fold").unavailable == "RuntimeError: no such luck"
    assert all(row.median_ms for row in rows.values())


def test_an_error_inside_of_torchscript_is_its_last_line():
    rows = measuring.latency(network(), (4, 9, 9), FEW, ["original"])
    assert rows[0].unavailable.startswith("RuntimeError: ") and "4 channels" in rows[0].unavailable


def test_another_output_has_no_latency(monkeypatch):
    def another(scripted):
        model = network()
        model[1].weight.mul_(1.01)
        return torch.jit.script(model)

    monkeypatch.setitem(measuring.TORCHSCRIPT, "bnfold.fold", another)
    row = rows_by_variant()["bnfold.fold"]
    assert row.unavailable.startswith("its output is off by ") and row.unavailable.endswith("where 1e-04 is the tolerance")
    assert row.median_ms is None and row.runs_ms == []


def test_an_output_of_another_shape_has_no_latency(monkeypatch):
    flattened = torch.jit.script(nn.Sequential(network(), nn.Flatten()))
    monkeypatch.setitem(measuring.TORCHSCRIPT, "bnfold.fold", lambda scripted: flattened)
    assert rows_by_variant()["bnfold.fold"].unavailable == "its outputs have other shapes than those of the original"


def test_an_infinite_output_compares_with_nothing():
    model = network()
    model[4].weight.fill_(1e6)
    rows = rows_by_variant(measuring.Settings(runs=6, dtype=torch.float16), ["original", "bnfold.fold"], model)
    assert {row.unavailable for row in rows.values()} == {"the network's own output is not finite in float16"}


def test_what_was_not_folded_does_not_pass_for_folded(monkeypatch):
    def refuses(module):
        raise bnfold.Error("it has a hook")

    monkeypatch.setattr(sys.modules["bnfold._freeze"], "raw", refuses)
    assert rows_by_variant()["bnfold.freeze"].unavailable == "UserWarning: frozen without folding: it has a hook"


@pytest.mark.parametrize("variant, package", [("ONNX Runtime", "onnxruntime"), ("OpenVINO", "openvino")])
def test_a_missing_package_is_named(monkeypatch, variant, package):
    monkeypatch.setitem(sys.modules, package, None)
    row = rows_by_variant(variants=[variant])[variant]
    assert row.unavailable == f"{package} is not installed: pip install -r bench/requirements.txt"


def test_torch_compile_needs_the_python_module():
    rows = rows_by_variant(variants=["original", "torch.compile"], model=torch.jit.script(network()))
    assert rows["original"].median_ms > 0
    assert rows["torch.compile"].unavailable == "needs the nn.Module, and this is TorchScript"


@pytest.mark.parametrize(
    "options, sentence",
    [
        ({"device": "tpu"}, "device must be cpu or cuda, not 'tpu'"),
        ({"dtype": torch.int8}, "dtype must be float64, float32, float16 or bfloat16, not torch.int8"),
        ({"batch": 0}, "batch and threads must be at least 1"),
        ({"threads": 0}, "batch and threads must be at least 1"),
        ({"runs": 5}, "runs must be at least 6: fewer have no 95 % interval of the median"),
        ({"cuda_graphs": True}, "cuda_graphs needs the device cuda"),
    ],
    ids=str,
)
def test_settings_that_cannot_be_measured(options, sentence):
    with pytest.raises(ValueError) as error:
        measuring.Settings(**options)
    assert str(error.value) == sentence


def test_models_that_cannot_be_measured():
    for measure in (lambda model: measuring.latency(model, IMAGE, FEW), lambda model: measuring.contents(model, IMAGE)):
        with pytest.raises(ValueError, match=r"^the model is in training mode; call .eval\(\) on it first$"):
            measure(network().train())
        with pytest.raises(ValueError, match="^the model is frozen; measure what was given to torch.jit.freeze$"):
            measure(torch.jit.freeze(torch.jit.script(network())))


def test_an_unknown_variant():
    with pytest.raises(ValueError, match="^there is no variant 'TVM'; the variants are original, "):
        measuring.latency(network(), IMAGE, FEW, ["TVM"])


# ---- contents


def test_contents():
    model = network()
    rows = {row.variant: row for row in measuring.contents(model, IMAGE)}
    assert tuple(rows) == TORCHSCRIPT
    parameters = sum(value.numel() for value in model.parameters())
    original, folded, frozen = (rows[name] for name in ("original", "bnfold.fold", "bnfold.freeze"))
    assert (original.parameters, original.batch_norms_run, original.operators_run) == (parameters, 2, 5)
    assert original.tensor_bytes == sum(value.nbytes for value in model.state_dict().values())
    for row in (folded, frozen):
        assert (row.parameters, row.batch_norms_run, row.operators_run) == (parameters - 2 * (5 + 4), 0, 3)
        assert row.tensor_bytes == 4 * row.parameters
        assert row.graph_nodes < original.graph_nodes
    assert all(row.unavailable is None and row.kernels_launched is None for row in rows.values())


def test_a_variant_without_contents_says_why(monkeypatch):
    monkeypatch.setitem(measuring.TORCHSCRIPT, "bnfold.fold", lambda scripted: scripted.nothing)
    row = next(row for row in measuring.contents(network(), IMAGE) if row.variant == "bnfold.fold")
    assert "nothing" in row.unavailable and row.parameters is None


def test_norms_take_a_share_of_the_time():
    assert 0 < measuring.norm_share(network(), IMAGE, FEW) < 1
    assert measuring.norm_share(nn.Conv2d(3, 4, 3).eval(), IMAGE, FEW) == 0


def test_the_environment_is_json():
    content = measuring.environment(measuring.Settings(threads=3))
    assert json.loads(json.dumps(content)) == content
    assert (content["threads"], content["torch"]) == (3, torch.__version__)
    assert {"date", "cpu", "cores", "load_average", "gpu", "cuda", "cudnn"} <= set(content)
    assert {"cudnn.benchmark", "cuda.matmul.allow_tf32", "cudnn.allow_tf32"} <= set(content)


# ---- the command


def run(monkeypatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["latency.py", *map(str, arguments)])
    return command.main()


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    """What the command writes for ResNet18 and small images."""
    directory = tmp_path_factory.mktemp("report") / "new" / "directory"
    arguments = ["resnet18", "--input", "3,32,32", "--runs", "6", "--threads", "1", "--out", str(directory)]
    variants = ["--variants", *QUICK]
    done = subprocess.run(
        [sys.executable, str(ROOT / "bench" / "latency.py"), *arguments, *variants], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "bnfold.freeze" in done.stdout and "Where the norms went" in done.stdout
    return directory


@pytest.fixture(scope="module")
def results(report) -> dict:
    return json.loads((report / "latency.json").read_text())


def test_clips_are_measured_in_both_orders(monkeypatch):
    sizes = ["--input", "3,4,32,32", "--memory-format", "contiguous", "channels_last", "--runs", 6]
    assert run(monkeypatch, "r3d_18", *sizes, "--variants", "bnfold.optimize_for_inference") == 0


def test_the_json_has_everything(results):
    assert set(results) == {"command", "environment", "models", "measurements"}
    assert results["command"].startswith(".venv/bin/python bench/latency.py resnet18 --input 3,32,32 ")
    (model,), (measurement,) = results["models"], results["measurements"]
    assert (model["name"], model["input"]) == ("resnet18", [3, 32, 32])
    assert model["folds"] == {"backward": 20, "forward": 0, "sideways": 0, "kept": 0}
    assert [row["batch_norms_run"] for row in model["contents"]] == [20, 0, 0, 0, 0]
    assert measurement["settings"] == {**measuring.Settings(runs=6, threads=1).as_dict(), "dtype": "float32"}
    assert [row["variant"] for row in measurement["variants"]] == QUICK
    assert 0 < measurement["norm_share"] < 1 and set(measurement["speed_up"]) == {"original", "torch.jit.freeze"}
    for row in measurement["variants"][: len(TORCHSCRIPT)]:
        assert row["low_ms"] <= row["median_ms"] <= row["high_ms"] and row["unavailable"] is None
        assert len(row["warm_up_ms"]) == measuring.WARM_UP_RUNS and len(row["runs_ms"]) == 6


def test_the_page_has_every_variant_and_the_plots(report, results):
    page = (report / "latency.md").read_text()
    assert f"$ {results['command']}\n" in page and f"- torch: {torch.__version__}\n" in page
    for row in results["measurements"][0]["variants"]:
        assert f"| {row['variant']} |" in page
    assert "| resnet18 | 20 | 20 | 0 | 0 | 0 |  |" in page
    stems = [f"{kind}_batch1_float32_contiguous" for kind in ("latency", "speed_up")] + ["folds"]
    assert all(f"]({stem}.svg)" in page for stem in stems)
    pictures = {f"{stem}{suffix}" for stem in stems for suffix in (".svg", ".png")}
    assert {path.name for path in report.iterdir()} == pictures | {"latency.md", "latency.json"}


def test_a_file_is_measured(monkeypatch, capsys, tmp_path):
    path = tmp_path / "small.pt"
    torch.jit.script(network()).save(str(path))
    assert run(monkeypatch, path, "--input", "3,9,9", "--runs", 6, "--variants", "bnfold.freeze", "torch.compile") == 0
    shown = capsys.readouterr().out
    assert "small" in shown and "not measured: needs the nn.Module, and this is TorchScript" in shown


def test_a_gpu_that_is_not_there_is_in_the_tables(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    path, out = tmp_path / "small.pt", tmp_path / "out"
    torch.jit.script(network()).save(str(path))
    assert run(monkeypatch, path, "--input", "3,9,9", "--device", "cuda", "--cuda-graphs", "--out", out) == 0
    page = (out / "latency.md").read_text()
    assert page.count("not measured: no CUDA device") == len(measuring.VARIANTS)
    assert page.count("| no CUDA device |") == len(TORCHSCRIPT)
    # There is nothing to draw but the folds.
    assert {path.name for path in out.iterdir()} == {"latency.json", "latency.md", "folds.svg", "folds.png"}


def test_a_full_disk_leaves_what_was_there(monkeypatch, capsys, tmp_path, results):
    def full(results, directory):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(command, "measure", lambda *arguments: results)
    monkeypatch.setattr(plots, "draw", full)
    (tmp_path / "latency.json").write_text("of yesterday")
    assert run(monkeypatch, "resnet18", "--out", tmp_path) == 1
    assert capsys.readouterr().err == f"latency: can't write to {tmp_path}: No space left on device\n"
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("latency.json", "of yesterday")]


def mistakes(directory: Path) -> list[tuple[list[object], str]]:
    """What can be wrong with the arguments, and what the command says."""
    file, missing, frozen = directory / "file", directory / "missing.pt", directory / "frozen.pt"
    file.touch()
    torch.jit.freeze(torch.jit.script(network())).save(str(frozen))
    return [
        ([], "the following arguments are required: MODEL"),
        (["resnet500"], "'resnet500' is no network of torchvision or timm; did you mean resnet50?"),
        (["9"], "'9' is no network of torchvision or timm, nor a .pt or .torchscript file"),
        (["resnet18", "resnet18"], "2 models have the name resnet18, so that their rows could not be told apart"),
        ([missing], f"{missing} is a file and needs the size of its images, as --input 3,224,224"),
        ([frozen, "--input", "3,9,9"], f"{frozen} is frozen; measure what was given to torch.jit.freeze"),
        (["resnet18", "--input", "3,224"], "argument --input: wants channels, height and width as 3,224,224, or a clip as 3,16,112,112, not '3,224'"),
        (["r3d_18"], "r3d_18 takes clips and needs their size, as --input 3,16,112,112"),
        (["resnet18", "--dtype", "int8"], "argument --dtype: invalid choice: 'int8' (choose from float, half, bfloat16)"),
        (["resnet18", "--batch", "0"], "batch and threads must be at least 1"),
        (["resnet18", "--runs", "5"], "runs must be at least 6: fewer have no 95 % interval of the median"),
        (["resnet18", "--cuda-graphs"], "cuda_graphs needs the device cuda"),
        (["resnet18", "--out", file / "out"], f"can't write to {file / 'out'}: Not a directory"),
    ]


def test_a_mistake_gives_one_sentence(monkeypatch, capsys, tmp_path):
    for arguments, sentence in mistakes(tmp_path):
        with pytest.raises(SystemExit) as exit:
            run(monkeypatch, *arguments)
        captured = capsys.readouterr()
        assert (exit.value.code, captured.out) == (2, "")
        # Which quotes argparse puts around choices depends on the version of Python.
        said = captured.err.replace("'float', 'half', 'bfloat16'", "float, half, bfloat16")
        assert said == f"latency: {sentence}; --help lists the options\n"


def test_a_file_that_is_missing(monkeypatch, capsys, tmp_path):
    with pytest.raises(SystemExit) as exit:
        run(monkeypatch, tmp_path / "missing.pt", "--input", "3,9,9")
    error = capsys.readouterr().err
    assert exit.value.code == 2 and "missing.pt" in error and error.count("\n") == 1


# ---- plots


def luminance(colour: str) -> float:
    """The relative luminance of WCAG 2.1 of "#rrggbb"."""
    channels = [int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("background", ["#ffffff", "#0d1117"])
@pytest.mark.parametrize("colour", [plots.TEXT, plots.BLUE, plots.GREEN, plots.ORANGE, plots.PINK])
def test_colours_show_on_light_and_dark(colour, background):
    dark, light = sorted((luminance(colour), luminance(background)))
    assert (light + 0.05) / (dark + 0.05) > 3.5


def test_plots_are_drawn_again_from_the_json(monkeypatch, report, tmp_path):
    monkeypatch.setattr(sys, "argv", ["plots.py", str(report / "latency.json"), str(tmp_path / "plots")])
    assert plots.main() == 0
    drawn = {path.name: path.read_bytes() for path in (tmp_path / "plots").iterdir()}
    assert drawn == {path.name: path.read_bytes() for path in report.iterdir() if path.suffix in (".svg", ".png")}


@pytest.mark.parametrize(
    "content, sentence",
    [
        (None, "can't read {path}: No such file or directory"),
        ("resnet18", "{path} is no JSON; pass the latency.json that bench/latency.py wrote"),
        ("{}", "{path} is not from bench/latency.py of this version; measure again"),
        ("[]", "{path} is not from bench/latency.py of this version; measure again"),
    ],
    ids=str,
)
def test_plots_of_something_else(monkeypatch, capsys, tmp_path, content, sentence):
    path = tmp_path / "latency.json"
    if content is not None:
        path.write_text(content)
    monkeypatch.setattr(sys, "argv", ["plots.py", str(path), str(tmp_path / "plots")])
    assert plots.main() == 2
    assert capsys.readouterr().err == f"plots: {sentence.format(path=path)}\n"
