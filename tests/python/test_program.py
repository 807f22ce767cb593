"""The program: every exit code with its sentence, what it writes, and what it leaves alone."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from calibrate import calibrate, relative_error
from cases import double, prepared
from test_files import from_a_gpu
from tested import LIBRARY, PROGRAM
from torch import nn

VARIABLES = {**os.environ, "OMP_NUM_THREADS": "1"}

# What the program's help promises to scripts.
DONE, CHECK_FAILED, USAGE, CANNOT_LOAD, NORM_KEPT, CANNOT_WRITE = range(6)

IMAGE = ("--input", "2,3,9,9")


class Embedded(nn.Module):
    """Two arguments of different dtypes and ranks."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(2, 6)
        self.linear = nn.Linear(6, 5)
        self.norm = nn.BatchNorm1d(5)
        self.out = nn.Linear(5, 2)

    def forward(self, index, scale):
        return self.out(self.norm(self.linear(self.embedding(index))) * scale)


class Noisy(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3)
        self.norm = nn.BatchNorm2d(5)

    def forward(self, x):
        return self.norm(self.conv(x)) + torch.rand_like(x)[:, :1, :7, :7]


def conv_and_norm() -> nn.Sequential:
    return prepared(nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU()), (double(2, 3, 9, 9),))


def one_folded_one_kept() -> nn.Sequential:
    # The second norm stands behind a sigmoid, which no affine passes.
    layers = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Sigmoid(), nn.BatchNorm2d(5))
    return prepared(layers, (double(2, 3, 9, 9),))


def ill_conditioned() -> nn.Sequential:
    # In float, a bias of ten millions leaves no digit to the signal, until the fold takes bias and mean off each other.
    layers = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5)).eval()
    layers[0].bias.fill_(1e7)
    layers[1].running_mean.fill_(1e7)
    return layers


class Parallel(nn.Module):
    def __init__(self):
        super().__init__()
        self.large, self.small = nn.Conv2d(3, 5, 3, padding=1), nn.Conv2d(3, 5, 1)

    def forward(self, x):
        return self.large(x) + self.small(x)


class BehindAnIntegral(nn.Module):
    """Nothing but a run tells the rank of an integral."""

    def __init__(self):
        super().__init__()
        self.linear, self.norm = nn.Linear(4, 6), nn.BatchNorm1d(6)

    def forward(self, x):
        return self.norm(self.linear(torch.trapz(x)))


class Methods(nn.Module):
    """An exported method that another one calls, so that nobody knows that it was exported."""

    def __init__(self):
        super().__init__()
        self.body, self.head, self.labels = conv_and_norm(), nn.Conv2d(5, 2, 1), ["cat", "dog"]

    @torch.jit.export
    def encode(self, x):
        return self.body(x)

    def forward(self, x):
        return self.head(self.encode(x))


def embedded() -> Embedded:
    model = Embedded().eval()
    calibrate(model, (torch.tensor([0, 1, 1]), torch.randn(3, 1)))
    return model


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> Path:
    """A directory of files to read: modules, and what is no module."""
    directory = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    with torch.no_grad():
        plain = conv_and_norm()
        modules = {
            "plain": plain,
            "float": conv_and_norm().float(),
            "kept": one_folded_one_kept(),
            "embedded": embedded(),
            "ill_conditioned": ill_conditioned(),
            "parallel": Parallel().double().eval(),
            "noisy": prepared(Noisy(), (double(2, 3, 9, 9),)),
            "along_length": prepared(nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6)), (double(3, 6, 4),)),
            "behind_an_integral": prepared(BehindAnIntegral(), (double(3, 4, 5),)),
            "methods": prepared(Methods(), (double(2, 3, 9, 9),)),
            "no_norm": nn.Sequential(nn.Conv2d(3, 5, 3)).double().eval(),
        }
        for name, model in modules.items():
            torch.jit.save(torch.jit.script(model), directory / f"{name}.pt")
        torch.jit.save(torch.jit.script(conv_and_norm().train()), directory / "training.pt")
        torch.jit.save(torch.jit.script(plain), directory / "labelled.pt", _extra_files={"names.txt": b"cat,dog"})
    torch.save(plain.state_dict(), directory / "state_dict.pt")
    (directory / "empty.pt").touch()
    (directory / "text.pt").write_text("these are no weights")
    content = (directory / "plain.pt").read_bytes()
    (directory / "truncated.pt").write_bytes(content[: len(content) // 2])
    return directory


@pytest.fixture
def bnfold(models, tmp_path):
    """Runs the program in an empty directory; IN is the name of a model where it is one."""

    def run(*arguments: Any, code: int) -> subprocess.CompletedProcess:
        command = [str(models / f"{one}.pt") if (models / f"{one}.pt").exists() else str(one) for one in arguments]
        result = subprocess.run([str(PROGRAM), *command], cwd=tmp_path, env=VARIABLES, capture_output=True, text=True)
        assert result.returncode == code, result.stdout + result.stderr
        # A user never sees where in C++ an exception came from.
        for text in ("frame #", "Exception raised from", "INTERNAL ASSERT"):
            assert text not in result.stdout + result.stderr
        assert (result.stderr == "") == (code == DONE)
        return result

    return run


def assert_says(result: subprocess.CompletedProcess, sentence: str) -> None:
    """The error is one line, in the name of the program, and matches."""
    assert re.fullmatch(r"bnfold: [^\n]+\n", result.stderr), result.stderr
    assert re.search(sentence, result.stderr), result.stderr


def written(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def assert_same_outputs(original: Path, folded: Path, *inputs: torch.Tensor, error: float = 1e-12) -> torch.jit.ScriptModule:
    module = torch.jit.load(str(folded))
    assert relative_error(torch.jit.load(str(original))(*inputs), module(*inputs)) <= error
    return module


# ---- 0: done


def test_folds_a_file(bnfold, models, tmp_path):
    result = bnfold("plain", "folded.pt", code=DONE)
    assert written(tmp_path) == ["folded.pt"]
    module = assert_same_outputs(models / "plain.pt", tmp_path / "folded.pt", double(2, 3, 9, 9))
    assert "batch_norm" not in str(module.inlined_graph)
    assert sorted(module.state_dict()) == ["0.bias", "0.weight"]
    assert re.search(r"norms folded +1 +of +1 +1 backward", result.stdout)
    assert re.search(r"parameters +150 +-> +140 +-10", result.stdout)


def test_the_result_needs_no_bnfold(bnfold, models, tmp_path):
    bnfold("plain", "folded.pt", code=DONE)
    bnfold("plain", "frozen.pt", "--frozen", code=DONE)
    code = (
        "import torch\n"
        "x = torch.ones(2, 3, 9, 9, dtype=torch.float64)\n"
        f"expected = torch.jit.load({str(models / 'plain.pt')!r})(x)\n"
        "for name in ('folded.pt', 'frozen.pt'):\n"
        "    difference = (torch.jit.load(name)(x) - expected).abs().max() / expected.abs().max()\n"
        "    assert 0 <= difference < 1e-12, difference\n"
        "assert not hasattr(torch.ops.bnfold, 'fold')\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=tmp_path, check=True)


def test_a_module_without_norms(bnfold, models, tmp_path):
    result = bnfold("no_norm", "folded.pt", "--strict", code=DONE)
    assert_same_outputs(models / "no_norm.pt", tmp_path / "folded.pt", double(2, 3, 9, 9), error=0)
    assert re.search(r"norms folded +0 +of +0", result.stdout)


def test_frozen(bnfold, models, tmp_path):
    bnfold("plain", "frozen.pt", "--frozen", *IMAGE, "--check", 1, code=DONE)
    module = assert_same_outputs(models / "plain.pt", tmp_path / "frozen.pt", double(2, 3, 9, 9))
    assert list(module.parameters()) == [] and list(module.buffers()) == []
    assert "batch_norm" not in str(module.inlined_graph)
    assert "GetAttr" not in str(module.inlined_graph)


def test_frozen_keeps_the_norms_that_the_fold_kept(bnfold, models, tmp_path):
    # A norm along the length of [N, L, F] with L == F: what torch.jit.freeze folds into the linear layer all the same.
    bnfold("along_length", "frozen.pt", "--frozen", "--input", "3,6,4", "--check", 2, code=DONE)
    assert_same_outputs(models / "along_length.pt", tmp_path / "frozen.pt", double(3, 6, 4))


def test_out_may_be_in(bnfold, models, tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes((models / "plain.pt").read_bytes())
    bnfold(path, path, *IMAGE, "--check", 1, code=DONE)
    assert written(tmp_path) == ["model.pt"]
    assert_same_outputs(models / "plain.pt", path, double(2, 3, 9, 9))
    # What is folded already has nothing left to fold.
    again = bnfold(path, path, code=DONE)
    assert re.search(r"norms folded +0 +of +0", again.stdout)


def test_out_is_replaced(bnfold, models, tmp_path):
    (tmp_path / "folded.pt").write_text("what was there")
    bnfold("plain", "folded.pt", code=DONE)
    assert written(tmp_path) == ["folded.pt"]
    assert_same_outputs(models / "plain.pt", tmp_path / "folded.pt", double(2, 3, 9, 9))


def test_in_stays_as_it_was(bnfold, models):
    before = (models / "plain.pt").read_bytes()
    bnfold("plain", "folded.pt", *IMAGE, "--check", 2, "--bench", 1, code=DONE)
    assert (models / "plain.pt").read_bytes() == before


@pytest.mark.parametrize("model, tolerance", [("plain", "1e-10"), ("float", "1e-04")])
def test_check(model, tolerance, bnfold):
    result = bnfold(model, "folded.pt", *IMAGE, "--check", 3, code=DONE)
    line = re.search(r"error +(\S+) +of +(\S+) allowed +on 3 random inputs, relative to the largest output", result.stdout)
    assert line and float(line.group(1)) < float(line.group(2)) == float(tolerance)


def test_check_of_a_module_that_draws_random_numbers(bnfold):
    bnfold("noisy", "folded.pt", *IMAGE, "--check", 2, code=DONE)


def peak_of_check(model: Path, out: Path, count: int) -> int:
    """The kilobytes that the program has at most while it checks `count` images of 12 MB."""
    command = [str(PROGRAM), str(model), str(out), "--input", "1,3,1024,1024", "--check", str(count)]
    process = subprocess.Popen(command, env=VARIABLES, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == DONE
    return usage.ru_maxrss


def test_a_check_holds_one_input_at_a_time(models, tmp_path):
    out = tmp_path / "folded.pt"
    assert peak_of_check(models / "float.pt", out, 22) - peak_of_check(models / "float.pt", out, 2) < 60_000


VARIANTS = ["original", "torch.jit.freeze", "torch.jit.optimize_for_inference", "folded", "folded, frozen"]


def test_bench(bnfold):
    result = bnfold("plain", "folded.pt", *IMAGE, "--bench", 3, code=DONE)
    assert re.search(r"latency +median +range +3 runs in turn, 1 thread\n", result.stdout)
    for variant in VARIANTS:
        assert re.search(rf"^  {variant} +\d+\.\d\d ms +\d+\.\d\d – \d+\.\d\d", result.stdout, re.MULTILINE)


@pytest.mark.parametrize("names", [("long", "float"), ("int64", "float32")])
def test_several_inputs_of_different_dtypes(names, bnfold, models, tmp_path):
    inputs = ("--input", f"3:{names[0]}", "--input", f"3,1:{names[1]}")
    bnfold("embedded", "folded.pt", *inputs, "--check", 4, "--strict", code=DONE)
    index, scale = torch.tensor([1, 0, 1]), torch.randn(3, 1)
    module = assert_same_outputs(models / "embedded.pt", tmp_path / "folded.pt", index, scale, error=1e-5)
    assert "batch_norm" not in str(module.inlined_graph)


def test_an_input_has_the_dtype_of_the_parameters(bnfold):
    # A double model does not run on a float input, nor the other way round.
    bnfold("plain", "folded.pt", *IMAGE, "--check", 1, code=DONE)
    bnfold("float", "folded.pt", *IMAGE, "--check", 1, code=DONE)
    bnfold("embedded", "folded.pt", "--input", "3:long", "--input", "3,1", "--check", 1, code=DONE)


def test_ranks_come_from_the_inputs(bnfold, tmp_path):
    # The module checks the rank, which nothing proves: a convolution takes images without a batch too.
    for arguments in ((), IMAGE):
        bnfold("plain", "folded.pt", *arguments, code=DONE)
        assert "RaiseException" in str(torch.jit.load(str(tmp_path / "folded.pt")).graph)


def test_a_run_on_the_inputs_tells_ranks(bnfold):
    bnfold("behind_an_integral", "folded.pt", "--strict", "--input", "3,4,5", "--check", 2, code=DONE)
    # Their twins: features elsewhere, and such that the module can't run on.
    result = bnfold("behind_an_integral", "folded.pt", "--strict", "--input", "3,6,4,5", code=NORM_KEPT)
    assert "affine_varies_elsewhere" in result.stdout
    assert_says(bnfold("behind_an_integral", "folded.pt", "--input", "3,7,5", code=USAGE), "the module can't run on the given input: ")


def test_explain(bnfold):
    result = bnfold("kept", "folded.pt", "--explain", code=DONE)
    assert re.search(r"^ +1  backward into 0$", result.stdout, re.MULTILINE)
    assert re.search(r"^ +operator_not_affine\n +No scale or shift passes", result.stdout, re.MULTILINE)
    assert "sigmoid is curved" in result.stdout
    assert re.search(r"^ +What to do: Put the norm in front of this operator", result.stdout, re.MULTILINE)


def test_explain_tells_what_was_merged(bnfold):
    result = bnfold("parallel", "folded.pt", "--explain", code=DONE)
    assert re.search(r"^merged +1 ", result.stdout, re.MULTILINE)
    assert re.search(r"^merged\n  small  into large$", result.stdout, re.MULTILINE)


def test_help(bnfold):
    text = bnfold("--help", code=DONE).stdout
    for option in ("--input", "--check", "--bench", "--frozen", "--strict", "--explain", "--json", "--version"):
        assert option in text
    assert "Examples:\n  bnfold resnet50.pt folded.pt" in text
    codes = ("0 done", "1 the check failed", "2 wrong usage", "3 IN can't be loaded", "4 --strict", "5 OUT, the report or the picture can't be written")
    for code in codes:
        assert code in text
    assert max(map(len, text.splitlines())) <= 130


def test_version(bnfold):
    assert re.fullmatch(r"bnfold \d+\.\d+\.\d+\n", bnfold("--version", code=DONE).stdout)


# ---- the report as JSON


def test_json_in_a_file(bnfold, tmp_path):
    result = bnfold("kept", "folded.pt", *IMAGE, "--check", 2, "--bench", 2, "--json", "report.json", code=DONE)
    assert "norms folded" in result.stdout
    assert written(tmp_path) == ["folded.pt", "report.json"]
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["folded"] == [{"name": "1", "direction": "backward", "into": ["0"]}]
    (kept,) = report["kept"]
    assert (kept["name"], kept["reason"]) == ("3", "operator_not_affine")
    assert kept["detail"] and re.fullmatch(r".+\.py:\d+", kept["source"])
    assert report["parameters_before"] - report["parameters_after"] == 10
    assert report["check"]["passed"] is True and report["check"]["inputs"] == 2
    assert 0 <= report["check"]["largest_error"] < report["check"]["tolerance"] == 1e-10
    assert report["latency"]["runs"] == 2 and report["latency"]["threads"] == 1
    assert [row["name"] for row in report["latency"]["variants"]] == VARIANTS
    assert all(0 < row["low_ms"] <= row["median_ms"] <= row["high_ms"] for row in report["latency"]["variants"])


def test_json_on_standard_output_is_nothing_but_json(bnfold, tmp_path):
    result = bnfold("kept", "folded.pt", *IMAGE, "--check", 1, "--bench", 1, "--explain", "--json", "-", code=DONE)
    assert set(json.loads(result.stdout)) >= {"folded", "kept", "check", "latency"}
    assert written(tmp_path) == ["folded.pt"]


def test_json_tells_why_nothing_was_written(bnfold, tmp_path):
    kept = json.loads(bnfold("kept", "folded.pt", "--strict", "--json", "-", code=NORM_KEPT).stdout)
    assert [norm["name"] for norm in kept["kept"]] == ["3"]
    failed = json.loads(bnfold("ill_conditioned", "folded.pt", *IMAGE, "--check", 1, "--json", "-", code=CHECK_FAILED).stdout)
    assert failed["check"]["passed"] is False
    assert failed["check"]["largest_error"] > failed["check"]["tolerance"] == 1e-4
    assert written(tmp_path) == []


# ---- 1: the check failed


def test_a_failed_check_writes_nothing(bnfold, tmp_path):
    result = bnfold("ill_conditioned", "folded.pt", *IMAGE, "--check", 2, code=CHECK_FAILED)
    assert_says(result, "the folded module differs from the original by more than rounding; nothing was written")
    assert re.search(r"error +\S+ +of +1e-04 allowed", result.stdout)
    assert written(tmp_path) == []
    # Its twin: without the check, the same module is written.
    bnfold("ill_conditioned", "folded.pt", *IMAGE, code=DONE)
    assert written(tmp_path) == ["folded.pt"]


def test_an_input_that_the_module_does_not_take(bnfold, tmp_path):
    result = bnfold("plain", "folded.pt", "--input", "2,4,9,9", "--check", 2, code=USAGE)
    assert_says(result, "the module can't run on the given input: .*to have 3 channels, but got 4 channels")
    result = bnfold("embedded", "folded.pt", "--input", "3:long", "--bench", 2, code=USAGE)
    assert_says(result, "missing value for argument 'scale'")
    assert written(tmp_path) == []


def test_a_failed_check_leaves_what_was_there(bnfold, tmp_path):
    (tmp_path / "folded.pt").write_text("what was there")
    bnfold("ill_conditioned", "folded.pt", *IMAGE, "--check", 2, code=CHECK_FAILED)
    assert written(tmp_path) == ["folded.pt"]
    assert (tmp_path / "folded.pt").read_text() == "what was there"


# ---- 2: usage


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        ((), "IN is required"),
        (("plain",), "OUT is required"),
        (("plain", "folded.pt", "more"), "not expected: more"),
        (("plain", "folded.pt", "--fast"), "not expected: --fast"),
        (("plain", "folded.pt", "--check", "2"), "give --input, as in --input 1,3,224,224"),
        (("plain", "folded.pt", "--bench", "2"), "give --input, as in --input 1,3,224,224"),
        (("plain", "folded.pt", *IMAGE, "--check", "0"), "--check"),
        (("plain", "folded.pt", *IMAGE, "--check", "-1"), "--check"),
        (("plain", "folded.pt", *IMAGE, "--check", "many"), "--check"),
        (("plain", "folded.pt", *IMAGE, "--bench", "0"), "--bench"),
        (("plain", "folded.pt", "--input", "large"), "'large' is no input; write its sizes as in 1,3,224,224"),
        (("plain", "folded.pt", "--input", "1,,3"), "'1,,3' is no input"),
        (("plain", "folded.pt", "--input", "1,3x"), "'1,3x' is no input"),
        (("plain", "folded.pt", "--input", "1,3,"), "'1,3,' is no input"),
        (("plain", "folded.pt", "--input", "1,-3"), "'1,-3' is no input"),
        (("plain", "folded.pt", "--input", "99999999999999999999"), "is no input"),
        (("plain", "folded.pt", "--input", "1,3:float8"), "'float8' is no dtype; use float, double, half"),
        (("plain", "folded.pt", "--input", "1,3:"), "'' is no dtype"),
        (("plain", "folded.pt", "--json"), "--json"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_usage(arguments, sentence, bnfold, tmp_path):
    result = bnfold(*arguments, code=USAGE)
    assert_says(result, re.escape(sentence))
    assert len(result.stderr) < 200 and result.stdout == ""
    assert written(tmp_path) == []


# ---- 3: cannot be loaded or folded


@pytest.mark.parametrize(
    "name, sentence",
    [
        ("nothing.pt", r"nothing\.pt: there is no such file"),
        (".", "is a directory; give the path of a .pt or .pt2 file"),
        ("empty", r"empty\.pt: the file is empty"),
        ("text", r"text\.pt: not a TorchScript file .*torch\.jit\.save"),
        ("state_dict", r"state_dict\.pt: a state_dict or pickled object, not a TorchScript module; .*torch\.jit\.save"),
        ("truncated", r"truncated\.pt: the file is truncated or damaged"),
        ("training", r"training\.pt: the module is in training mode; call \.eval\(\)"),
    ],
)
def test_what_cannot_be_loaded(name, sentence, bnfold, tmp_path):
    result = bnfold(name, "folded.pt", code=CANNOT_LOAD)
    assert_says(result, sentence)
    assert result.stdout == ""
    assert written(tmp_path) == []


# ---- 4: --strict


def test_strict(bnfold, models, tmp_path):
    result = bnfold("kept", "folded.pt", "--strict", code=NORM_KEPT)
    assert_says(result, r"norms were kept \(1\) and --strict is on; nothing was written")
    assert "operator_not_affine" in result.stdout
    assert written(tmp_path) == []
    # Its twins: without --strict, and with a module of which nothing is kept.
    bnfold("kept", "folded.pt", code=DONE)
    assert_same_outputs(models / "kept.pt", tmp_path / "folded.pt", double(2, 3, 9, 9))
    bnfold("plain", "folded.pt", "--strict", code=DONE)


def test_strict_leaves_what_was_there(bnfold, tmp_path):
    (tmp_path / "folded.pt").write_text("what was there")
    bnfold("kept", "folded.pt", "--strict", code=NORM_KEPT)
    assert (tmp_path / "folded.pt").read_text() == "what was there"


# ---- 5: cannot be written


def test_out_in_a_directory_that_is_not_there(bnfold, tmp_path):
    for arguments in (["no/folded.pt"], ["folded.pt", "--json", "no/report.json"], ["folded.pt", "--plot", "no/picture.svg"]):
        assert_says(bnfold("plain", *arguments, code=CANNOT_WRITE), "there is no folder no to write it into")
    assert_says(bnfold("nothing", "no/folded.pt", code=CANNOT_WRITE), "no/folded.pt: there is no folder")  # before anything is read
    assert written(tmp_path) == []


def test_out_is_a_directory(bnfold, tmp_path):
    (tmp_path / "folded.pt").mkdir()
    assert_says(bnfold("plain", "folded.pt", code=CANNOT_WRITE), r"folded\.pt: is a directory")
    assert written(tmp_path) == ["folded.pt"] and written(tmp_path / "folded.pt") == []


def test_out_in_a_directory_that_may_not_be_written(bnfold, tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    (tmp_path / "closed").mkdir(mode=0o500)
    assert_says(bnfold("plain", "closed/folded.pt", code=CANNOT_WRITE), "Permission denied")
    assert written(tmp_path / "closed") == []


def test_out_is_no_regular_file(bnfold, tmp_path):
    # Renaming onto a device or a pipe would put a file in its place, on /dev/null too for root.
    os.mkfifo(tmp_path / "pipe")
    assert_says(bnfold("plain", "pipe", code=CANNOT_WRITE), "pipe: ")
    assert (tmp_path / "pipe").is_fifo() and written(tmp_path) == ["pipe"]


def test_a_report_that_cannot_be_written(bnfold, tmp_path):
    (tmp_path / "report.json").mkdir()
    result = bnfold("plain", "folded.pt", "--json", "report.json", code=CANNOT_WRITE)
    assert_says(result, r"report\.json: the report can't be written: Is a directory")
    # Who asked for a report and did not get one should not find a result either.
    assert written(tmp_path) == ["report.json"]


def on_terminal(command: list[Any], stream: str, **variables: str) -> str:
    """What the program writes to `stream`, which is a terminal."""
    ours, theirs = pty.openpty()
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, stream: theirs}
    environment = {**VARIABLES, "TERM": "xterm", **variables}
    process = subprocess.Popen([str(one) for one in [PROGRAM, *command]], env=environment, **streams)
    os.close(theirs)
    written = b""
    try:
        while part := os.read(ours, 4096):
            written += part
    except OSError:  # how a terminal ends that nobody writes to any more
        pass
    os.close(ours)
    assert process.wait() == DONE
    return written.decode()


def test_a_terminal_shows_colors(models, tmp_path):
    command = [models / "kept.pt", tmp_path / "out.pt"]
    assert "\x1b[33moperator_not_affine\x1b[0m" in on_terminal(command, "stdout", NO_COLOR="")
    assert "\x1b" not in on_terminal(command, "stdout", NO_COLOR="1")
    assert "\x1b" not in on_terminal(command, "stdout", TERM="dumb")


def test_a_pipe_shows_no_colors(bnfold):
    assert "\x1b" not in bnfold("kept", "out.pt", code=DONE).stdout


def test_a_terminal_shows_progress(models, tmp_path):
    shown = on_terminal([models / "plain.pt", tmp_path / "out.pt", *IMAGE, "--bench", "2"], "stderr")
    for step in ("loading", "folding", "checking on input 1 of 1", "measuring, run 2 of 2", "writing"):
        assert f"\r\x1b[K{step}" in shown
    assert shown.endswith("\r\x1b[K")
    assert on_terminal([models / "plain.pt", tmp_path / "out.pt"], "stderr", TERM="dumb") == ""


OPTIONS = ("--help", "--version", "--input", "--check", "--bench", "--preserve", "--device", "--load-library", "--frozen", "--strict", "--explain")
OPTIONS += ("--json", "--plot", "--target", "--fold-limit", "--completion")


def test_completion_in_bash(bnfold, tmp_path):
    script = bnfold("--completion", "bash", code=DONE).stdout
    (tmp_path / "model.pt").touch()

    def completed(*words: str) -> list[str]:
        line = f"COMP_WORDS=(bnfold {' '.join(words)}); COMP_CWORD={len(words)}; "
        command = f"{script}\n{line} _bnfold; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        run = subprocess.run(["bash", "-euc", command], cwd=tmp_path, capture_output=True, text=True, check=True)
        return run.stdout.split()

    assert completed("--ch") == ["--check"]
    assert sorted(completed("--")) == sorted(OPTIONS)
    assert completed("mo") == ["model.pt"]
    assert completed("--json", "mo") == ["model.pt"]
    assert completed("--check", "mo") == []
    assert completed("--completion", "f") == ["fish"]
    assert completed("--target", "o") == ["onnxruntime", "openvino"]


@pytest.mark.parametrize(("shell", "check"), [("zsh", ("-n",)), ("fish", ("--no-execute",))])
def test_completion_in_other_shells(shell, check, bnfold, tmp_path):
    script = bnfold("--completion", shell, code=DONE).stdout
    for option in OPTIONS:
        assert option in script or f"-l {option[2:]} " in script
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell} to read its completion")
    (tmp_path / "completion").write_text(script)
    subprocess.run([shell, *check, str(tmp_path / "completion")], check=True)


def test_completion_for_no_shell(bnfold):
    assert "tcsh not in {bash,zsh,fish}" in bnfold("--completion", "tcsh", code=USAGE).stderr


def test_plot(bnfold, tmp_path):
    bnfold("kept", "out.pt", "--plot", "graph.svg", code=DONE)
    picture = (tmp_path / "graph.svg").read_text()
    assert picture.startswith("<?xml") and "operator_not_affine" in picture and (tmp_path / "out.pt").exists()


def test_plot_as_text_needs_no_graphviz(bnfold, tmp_path, monkeypatch):
    monkeypatch.setitem(VARIABLES, "PATH", "")
    bnfold("kept", "out.pt", "--plot", "graph.dot", code=DONE)
    assert (tmp_path / "graph.dot").read_text().startswith("digraph bnfold {")


def test_plot_without_graphviz(bnfold, tmp_path, monkeypatch):
    monkeypatch.setitem(VARIABLES, "PATH", "")
    assert "install graphviz" in bnfold("kept", "out.pt", "--plot", "graph.svg", code=CANNOT_WRITE).stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("path", "sentence"), [("graph.jpeg2", "can't tell the format"), ("out.pt", "is a module")])
def test_plot_into_what_is_no_picture(path, sentence, bnfold, tmp_path):
    assert sentence in bnfold("kept", "out.pt", "--plot", path, code=USAGE).stderr
    assert list(tmp_path.iterdir()) == []


# ---- what a module needs, and what it is to keep


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("preserved", [False, True])
def test_preserve(preserved, frozen, bnfold, models, tmp_path):
    names = ("--preserve", "encode", "--preserve", "labels") if preserved else ()
    bnfold("methods", "out.pt", *names, *(("--frozen",) if frozen else ()), code=DONE)
    image = double(2, 3, 9, 9)
    module = assert_same_outputs(models / "methods.pt", tmp_path / "out.pt", image)
    assert hasattr(module, "encode") == hasattr(module, "labels") == preserved
    if preserved:
        original = torch.jit.load(models / "methods.pt")
        assert relative_error(original.encode(image), module.encode(image)) <= 1e-12
        assert module.labels == ["cat", "dog"]


def test_preserve_what_is_not_there(bnfold, tmp_path):
    assert_says(bnfold("methods", "out.pt", "--preserve", "decode", code=CANNOT_LOAD), "the module has no attribute 'decode' to preserve")
    assert written(tmp_path) == []


@pytest.mark.parametrize("options", [(), ("--frozen",)])
def test_extra_files_are_in_out_too(options, bnfold, tmp_path):
    bnfold("labelled", "out.pt", *options, code=DONE)
    files = {"names.txt": ""}
    torch.jit.load(tmp_path / "out.pt", _extra_files=files)
    assert files["names.txt"] == b"cat,dog"


without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


@without_gpu
@pytest.mark.parametrize("options", [(), ("--device", "cpu")])
def test_a_file_from_a_gpu_is_loaded_onto_the_cpu_and_the_program_says_so(options, bnfold, models, tmp_path):
    path = from_a_gpu(models / "plain.pt", tmp_path / "gpu.pt")
    result = bnfold(path, "out.pt", *options, code=DONE)
    assert re.search(r"^device +saved from cuda:0, loaded onto cpu$", result.stdout, re.MULTILINE)
    assert_same_outputs(models / "plain.pt", tmp_path / "out.pt", double(2, 3, 9, 9))
    assert "device" not in bnfold("plain", "out.pt", *options, code=DONE).stdout


@without_gpu
def test_a_device_that_is_not_there(bnfold, tmp_path):
    result = bnfold("plain", "out.pt", "--device", "cuda:0", code=CANNOT_LOAD)
    assert_says(result, "can't be loaded onto cuda:0, as there is no GPU; load it onto the CPU")
    assert written(tmp_path) == []


def test_a_device_that_is_none(bnfold):
    assert_says(bnfold("plain", "out.pt", "--device", "gpu", code=USAGE), "'gpu' is no device; name one as in --device cpu or --device cuda:0")


class Suppressing(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = conv_and_norm()

    def forward(self, x, boxes):
        kept = torchvision.ops.nms(boxes, boxes[:, 0], 0.5)
        return self.body(x), boxes[kept]


def test_operators_of_torchvision_are_found_beside_torch(bnfold, tmp_path):
    if not Path(torchvision.__file__).with_name("_C_stable.so").exists():
        pytest.skip("the operators of this torchvision need Python")
    torch.jit.script(prepared(Suppressing(), (double(2, 3, 9, 9), double(4, 4)))).save(tmp_path / "model.pt")
    bnfold("model.pt", "out.pt", "--input", "2,3,9,9", "--input", "4,4", "--check", "2", code=DONE)
    module = torch.jit.load(tmp_path / "out.pt")
    assert "batch_norm" not in str(module.inlined_graph)


class CallsBnfold(nn.Module):
    def forward(self, x):
        return torch.ops.bnfold.fold(x)


def test_load_library(bnfold, tmp_path):
    # The operators of bnfold itself, which the program does not have.
    torch.jit.script(CallsBnfold().eval()).save(tmp_path / "model.pt")
    result = bnfold("model.pt", "out.pt", code=CANNOT_LOAD)
    assert_says(result, "needs an operator or class that is not here: Unknown builtin op: bnfold::fold")
    assert "load the library that has it first, with torch.ops.load_library, dlopen or --load-library" in result.stderr
    bnfold("model.pt", "out.pt", "--load-library", LIBRARY, code=DONE)
    assert written(tmp_path) == ["model.pt", "out.pt"]


def test_a_library_that_is_none(bnfold, models, tmp_path):
    result = bnfold("plain", "out.pt", "--load-library", "none.so", code=CANNOT_LOAD)
    assert_says(result, "--load-library none.so can't be loaded")
    assert written(tmp_path) == []


@pytest.mark.parametrize("target", ["onnxruntime", "openvino", "ncnn", "coreml", "quantization"])
def test_target(target, bnfold, models, tmp_path):
    bnfold("plain", "out.pt", "--target", target, "--input", "2,3,9,9", "--strict", code=DONE)
    module = assert_same_outputs(models / "plain.pt", tmp_path / "out.pt", double(2, 3, 9, 9))
    assert "RaiseException" not in str(module.inlined_graph)
    # Its twin: no input tells the rank, which would have to be checked.
    result = bnfold("plain", "out.pt", "--target", target, "--strict", code=NORM_KEPT)
    assert "example inputs" in result.stdout


def test_a_target_that_is_none(bnfold):
    assert "--target: tensorrt not in {libtorch,onnxruntime,openvino,ncnn,coreml,quantization}" in bnfold(
        "plain", "out.pt", "--target", "tensorrt", code=USAGE
    ).stderr


@pytest.mark.parametrize("limit, folded", [(0, 0), (1, 1), (5, 1)])
def test_fold_limit(limit, folded, bnfold, models, tmp_path):
    bnfold("plain", "out.pt", "--fold-limit", limit, "--json", "report.json", code=DONE)
    assert len(json.loads((tmp_path / "report.json").read_text())["folded"]) == folded
    module = assert_same_outputs(models / "plain.pt", tmp_path / "out.pt", double(2, 3, 9, 9))
    assert ("batch_norm" in str(module.inlined_graph)) == (folded == 0)
