"""What is in a file that is to be loaded: a TorchScript module, something else, or a damaged one; and under which name it lies."""

from __future__ import annotations

import collections
import contextlib
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from calibrate import relative_error
from cases import double, prepared
from torch import nn

import bnfold

FOLDERS = [str(Path(bnfold.__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]

HOW_TO_SAVE = r"save a ScriptModule with torch\.jit\.save"
DAMAGED = "the file is truncated or damaged"
NOBODY = 65534


@pytest.fixture(scope="module")
def model() -> nn.Module:
    layers = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Sigmoid(), nn.BatchNorm2d(5))
    with torch.no_grad():
        return prepared(layers, (double(2, 3, 9, 9),))


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "model.pt"
    torch.jit.script(model).save(str(path))
    return path


def rewritten(source: Path, target: Path, edit: Callable[[str, bytes], bytes | None], compression: int = zipfile.ZIP_STORED) -> Path:
    """A copy of an archive whose records went through ``edit``, which drops those that it returns None for."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compression) as new:
        for name in old.namelist():
            content = edit(name, old.read(name))
            if content is not None:
                new.writestr(name, content)
    return target


def assert_refused(path: object, sentence: str) -> None:
    with pytest.raises(bnfold.LoadError, match=sentence) as error:
        bnfold.fold(path)
    assert "\n" not in str(error.value) and len(str(error.value)) < 700
    assert "INTERNAL ASSERT" not in str(error.value) and "enforce fail" not in str(error.value)


# ---- something else


def write_state_dict(path: Path, model: nn.Module) -> None:
    torch.save(model.state_dict(), path)


def write_old_state_dict(path: Path, model: nn.Module) -> None:
    torch.save(model.state_dict(), path, _use_new_zipfile_serialization=False)


def write_pickled_module(path: Path, model: nn.Module) -> None:
    torch.save(model, path)


def write_onnx(path: Path, model: nn.Module) -> None:
    # The protobuf of a ModelProto: ir_version 8, producer_name, producer_version, graph.
    path.write_bytes(b"\x08\x08\x12\x07pytorch\x1a\x052.1.0:\x02\x12\x00")


def write_package(path: Path, model: nn.Module) -> None:
    with torch.package.PackageExporter(str(path)) as package:
        package.extern("**")
        package.save_pickle("model", "model.pkl", model)


def write_nothing(path: Path, model: nn.Module) -> None:
    path.touch()


def write_text(path: Path, model: nn.Module) -> None:
    path.write_text("these are no weights")


def write_archive_of_text(path: Path, model: nn.Module) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "no module")


def write_archive_of_nothing(path: Path, model: nn.Module) -> None:
    with zipfile.ZipFile(path, "w"):
        pass


def write_sparse(path: Path, model: nn.Module) -> None:
    with path.open("wb") as file:
        file.truncate(5 << 30)


def write_sparse_archive(path: Path, model: nn.Module) -> None:
    with path.open("wb") as file:
        file.write(b"PK\3\4")
        file.truncate(5 << 30)


@pytest.mark.filterwarnings("ignore")  # of torch.package and torch.export
@pytest.mark.parametrize(
    "write, sentence",
    [
        (write_state_dict, f"a state_dict or pickled object, not a TorchScript module; {HOW_TO_SAVE}"),
        (write_old_state_dict, rf"not a TorchScript file \(no zip archive\); {HOW_TO_SAVE}"),
        (write_pickled_module, f"a state_dict or pickled object, not a TorchScript module; {HOW_TO_SAVE}"),
        (write_onnx, rf"not a TorchScript file \(no zip archive\); {HOW_TO_SAVE}"),
        (write_package, f"a torch.package archive, not a TorchScript module; {HOW_TO_SAVE}"),
        (write_nothing, "the file is empty"),
        (write_text, rf"not a TorchScript file \(no zip archive\); {HOW_TO_SAVE}"),
        (write_archive_of_text, rf"not a TorchScript file \(another zip archive\); {HOW_TO_SAVE}"),
        (write_archive_of_nothing, rf"not a TorchScript file \(no zip archive\); {HOW_TO_SAVE}"),
        (write_sparse, rf"not a TorchScript file \(no zip archive\); {HOW_TO_SAVE}"),
        (write_sparse_archive, DAMAGED),
    ],
)
def test_something_else(write, sentence, model, tmp_path):  # a program of torch.export: test_exported.py
    write(tmp_path / "model.pt", model)
    assert_refused(tmp_path / "model.pt", sentence)


# ---- a module of another torch, or of another program


def test_a_module_that_was_packed_again(saved, tmp_path):
    path = rewritten(saved, tmp_path / "model.pt", lambda name, content: content, zipfile.ZIP_DEFLATED)
    x = double(2, 3, 9, 9)
    assert torch.equal(bnfold.load(path)(x), torch.jit.load(str(saved))(x))


@pytest.mark.parametrize("version", [1, 3])
def test_an_older_format(version, saved, tmp_path):
    number = str(version).encode()
    path = rewritten(saved, tmp_path / "model.pt", lambda name, content: number if name.endswith("/version") else content)
    assert len(bnfold.fold(path).report.folded) == 1


def test_a_newer_format(saved, tmp_path):
    path = rewritten(saved, tmp_path / "model.pt", lambda name, content: b"99" if name.endswith("/version") else content)
    assert_refused(path, "a newer PyTorch wrote it, in a format that this one can't read")


@pytest.mark.parametrize(
    "old, new, sentence",
    [
        (b"torch.batch_norm(", b"torch.batch_norm_of_tomorrow(", "needs an operator .* aten::batch_norm_of_tomorrow; load the library"),
        (b"torch.batch_norm(", b"ops.nosuch.norm(", "needs an operator or class that is not here: Unknown builtin op: nosuch::norm; load"),
        (b"mean : Tensor", b"mean : __torch__.torch.classes.nosuch.Mean", "needs an operator .*torch.classes.nosuch.Mean'; load"),
        (b"torch.batch_norm(", b"torch.batch_norm(1, ", "is damaged or a newer PyTorch wrote it: aten::batch_norm.* Expected a value"),
        (b"return", b"retur\xe9", "is damaged or a newer PyTorch wrote it: expected a valid token"),
        (b"return", b"retur", DAMAGED),
    ],
)
def test_code_that_this_torch_does_not_know(old, new, sentence, saved, tmp_path):
    def replaced(name: str, content: bytes) -> bytes:
        return content.replace(old, new) if name.endswith(".py") else content

    assert_refused(rewritten(saved, tmp_path / "model.pt", replaced), sentence)


@pytest.mark.parametrize(
    "missing, sentence",
    [
        ("/data.pkl", DAMAGED),
        ("/data/0", DAMAGED),
        ("/code/", DAMAGED),
        ("/constants.pkl", "a state_dict or pickled object"),
        ("/version", "not a TorchScript file"),
    ],
)
def test_missing_records(missing, sentence, saved, tmp_path):
    assert_refused(rewritten(saved, tmp_path / "model.pt", lambda name, content: None if missing in name else content), sentence)


# ---- damage


def damaged(content: bytes, kind: str, choices: random.Random) -> bytes:
    changed = bytearray(content)
    place = choices.randrange(len(changed))
    if kind == "flip":
        changed[place] ^= 1 << choices.randrange(8)
    elif kind == "byte":
        changed[place] = choices.randrange(256)
    elif kind == "block":
        length = choices.randrange(1, 600)
        changed[place : place + length] = choices.randbytes(length)
    elif kind == "hole":
        del changed[place : place + choices.randrange(1, 600)]
    else:
        del changed[place:]
    return bytes(changed)


DAMAGE = ("flip", "byte", "block", "hole", "truncation")


def fold_damaged(path: str, seed: int, count: int, assert_unharmed: Callable[[Any], None]) -> None:
    """Damages a file in ``count`` ways of each kind, folds each, and prints what happened: LoadError, or a fold of what was saved."""
    content = Path(path).read_bytes()
    damaged_path = f"damaged{Path(path).suffix}"
    choices = random.Random(seed)
    outcomes: collections.Counter[str] = collections.Counter()
    for kind in DAMAGE:
        for _ in range(count):
            Path(damaged_path).write_bytes(damaged(content, kind, choices))
            try:
                result = bnfold.fold(damaged_path)
            except bnfold.LoadError as error:
                assert "\n" not in str(error) and "INTERNAL ASSERT" not in str(error), str(error)
                outcomes[f"{kind} refused"] += 1
                continue
            assert_unharmed(result)
            outcomes[f"{kind} harmless"] += 1
    print(json.dumps(outcomes))


def outcomes_in_a_process(code: str, folder: Path) -> dict[str, int]:
    """What a call of fold_damaged prints, in a process of its own, so that a crash would be seen."""
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(FOLDERS), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], cwd=folder, env=variables, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr[-2000:]
    return json.loads(result.stdout)


def load_damaged(path: str, seed: int, count: int) -> None:
    original = torch.jit.load(path)
    x = double(2, 3, 9, 9)

    def assert_unharmed(result: bnfold.FoldResult) -> None:
        assert len(result.report.folded) == 1
        assert torch.equal(result.module(x), bnfold.fold(original).module(x)), "a damaged file was taken for what was saved"
        bnfold.save(result.module, "folded.pt")

    fold_damaged(path, seed, count, assert_unharmed)


@pytest.mark.parametrize("frozen", [False, True])
def test_damaged_files(frozen, model, tmp_path):
    module = torch.jit.script(model)
    (torch.jit.freeze(module, None, False) if frozen else module).save(str(tmp_path / "model.pt"))
    outcomes = outcomes_in_a_process("import test_files; test_files.load_damaged('model.pt', 7, 80)", tmp_path)
    # What no checksum covers are the names and dates of the archive, and the padding between its records.
    assert outcomes["truncation refused"] == 80 and outcomes["flip refused"] > outcomes["flip harmless"] > 0


def test_every_number_is_checked(saved, tmp_path):
    # torch.jit.load takes it, as other weights.
    content = bytearray(saved.read_bytes())
    with zipfile.ZipFile(saved) as archive:
        (weight,) = [one for one in archive.infolist() if one.filename.endswith("/data/0")]
    content[weight.header_offset + 200] ^= 1
    path = tmp_path / "model.pt"
    path.write_bytes(content)
    torch.jit.load(str(path))
    assert_refused(path, DAMAGED)


@pytest.mark.parametrize("part", [0.01, 0.1, 0.5, 0.9, 0.999])
def test_truncated_files(part, saved, tmp_path):
    content = saved.read_bytes()
    (tmp_path / "model.pt").write_bytes(content[: int(len(content) * part)])
    assert_refused(tmp_path / "model.pt", DAMAGED)


def claiming_huge_records(archive: bytes) -> bytes:
    content = bytearray(archive)
    place = content.find(b"PK\1\2")
    while place >= 0:
        struct.pack_into("<II", content, place + 20, 0xFFFFFFF0, 0xFFFFFFF0)
        place = content.find(b"PK\1\2", place + 4)
    return bytes(content)


def test_an_archive_that_claims_huge_records(saved, tmp_path):
    (tmp_path / "model.pt").write_bytes(claiming_huge_records(saved.read_bytes()))
    assert_refused(tmp_path / "model.pt", DAMAGED)


def test_a_record_that_unpacks_to_much_more(saved, tmp_path):
    path = tmp_path / "model.pt"
    bomb = bytes(1 << 28)
    rewritten(saved, path, lambda name, content: bomb if name.endswith("/data.pkl") else content, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 1 << 20
    assert_refused(path, "is damaged or a newer PyTorch wrote it: Expected PROTO opcode")


# ---- names and permissions


NAMES = [b"a b.pt", "größe.pt".encode(), b"\xff\xfe.pt", b"new\nline.pt", b"-.pt", b"x" * 252 + b".pt"]


@pytest.mark.parametrize("name", NAMES, ids=lambda name: repr(name[:12]))
def test_names(name, saved, tmp_path):
    x = double(2, 3, 9, 9)
    for path in (os.fsencode(tmp_path) + b"/" + name, os.fsdecode(os.fsencode(tmp_path) + b"/" + name)):
        bnfold.save(torch.jit.load(str(saved)), path)
        assert torch.equal(bnfold.load(path)(x), torch.jit.load(str(saved))(x))
    assert os.listdir(os.fsencode(tmp_path)) == [name]


@pytest.mark.parametrize("name", [b"nothing.pt", b"\xff\xfe.pt", b"new\nline.pt"])
def test_missing_files_of_such_names(name, tmp_path):
    assert_refused(os.fsdecode(os.fsencode(tmp_path) + b"/" + name), "there is no such file")


def test_names_that_are_none(saved, tmp_path):
    assert_refused(tmp_path / ("x" * 300), "File name too long")
    assert_refused("model.pt\0", "no path has a zero byte")
    assert_refused("", "there is no such file")
    assert_refused(saved / "model.pt", "there is no such file")
    module = torch.jit.load(str(saved))
    for name, sentence in (("x" * 300, "File name too long"), ("model.pt\0", "zero byte"), ("no/model.pt", "No such file")):
        with pytest.raises(bnfold.SaveError, match=sentence):
            bnfold.save(module, f"{tmp_path}/{name}")
    with pytest.raises(bnfold.SaveError):
        bnfold.save(module, "")
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_regular_file(tmp_path):
    # Opening a pipe that nobody writes into would wait for ever.
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link to nothing").symlink_to("nothing")
    (tmp_path / "link to itself").symlink_to("link to itself")
    assert_refused(tmp_path / "pipe", "is no regular file")
    assert_refused("/dev/zero", "is no regular file")
    assert_refused(tmp_path, "is a directory")
    assert_refused(tmp_path / "link to nothing", "there is no such file")
    assert_refused(tmp_path / "link to itself", "Too many levels of symbolic links")


@contextlib.contextmanager
def without_privileges() -> Iterator[None]:
    """As a user who may not do everything, for root too."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def public_directory() -> Iterator[Path]:
    """A directory that every user can reach, which tmp_path is not."""
    directory = Path(tempfile.mkdtemp())
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


def test_without_permission_to_read(saved, public_directory):
    path = public_directory / "model.pt"
    path.write_bytes(saved.read_bytes())
    with without_privileges():
        assert len(bnfold.fold(path).report.folded) == 1
    path.chmod(0)
    with without_privileges():
        assert_refused(path, "no permission to read it")
    path.chmod(0o644)
    (public_directory / "closed").mkdir(mode=0o700)
    path.rename(public_directory / "closed" / "model.pt")
    if os.geteuid() == 0:  # the owner of the directory may look into it
        with without_privileges():
            assert_refused(public_directory / "closed" / "model.pt", "Permission denied")


def test_without_permission_to_write(saved, public_directory):
    module = torch.jit.load(str(saved))
    public_directory.chmod(0o555)
    try:
        with without_privileges(), pytest.raises(bnfold.SaveError, match="Permission denied"):
            bnfold.save(module, public_directory / "model.pt")
    finally:
        public_directory.chmod(0o755)
    assert list(public_directory.iterdir()) == []


# ---- what stands beside the module


EXTRA = {"names.txt": b"cat,dog", "folder/table.bin": bytes(range(256)), "empty": b""}


def with_extra_files(model: nn.Module, path: Path) -> Path:
    torch.jit.save(torch.jit.script(model), str(path), _extra_files=EXTRA)
    return path


def extra_files_in(path: Path) -> dict[str, bytes]:
    files = dict.fromkeys(EXTRA, "")
    torch.jit.load(str(path), _extra_files=files)
    return {name: content if isinstance(content, bytes) else content.encode() for name, content in files.items()}


@pytest.mark.parametrize(
    "call",
    [
        bnfold.load,
        lambda path: bnfold.fold(path).module,
        lambda path: bnfold.fold(bnfold.load(path)).module,
        lambda path: bnfold.freeze(bnfold.load(path)),
        lambda path: bnfold.optimize_for_inference(str(path)),
    ],
)
def test_extra_files_are_kept(call, model, tmp_path):
    module = call(with_extra_files(model, tmp_path / "model.pt"))
    assert bnfold.extra_files_of(module) == EXTRA
    bnfold.save(module, tmp_path / "again.pt")
    assert extra_files_in(tmp_path / "again.pt") == EXTRA
    with pytest.raises(TypeError, match="extra_files must be texts or bytes by name, not int by 'labels'"):
        bnfold.save(module, tmp_path / "again.pt", {"labels": 3})


def test_extra_files_may_be_others(model, tmp_path):
    module = bnfold.load(with_extra_files(model, tmp_path / "model.pt"))
    bnfold.save(module, tmp_path / "other.pt", extra_files={"names.txt": "bird"})
    assert bnfold.extra_files_of(bnfold.load(tmp_path / "other.pt")) == {"names.txt": b"bird"}
    bnfold.save(module, tmp_path / "none.pt", extra_files={})
    assert bnfold.extra_files_of(bnfold.load(tmp_path / "none.pt")) == {}


def test_a_module_without_a_file_has_no_extra_files(model, saved):
    assert bnfold.extra_files_of(torch.jit.script(model)) == {}
    assert bnfold.extra_files_of(bnfold.load(saved)) == {}


def test_a_damaged_extra_file(model, tmp_path):
    path = with_extra_files(model, tmp_path / "model.pt")
    content = path.read_bytes()
    assert content.count(b"cat,dog") == 1
    path.write_bytes(content.replace(b"cat,dog", b"cat,cow"))
    assert_refused(path, DAMAGED)


# ---- devices


def from_a_gpu(source: Path, target: Path) -> Path:
    """A file as a GPU would write it."""

    def moved(name: str, content: bytes) -> bytes:
        return content.replace(b"X\x03\0\0\0cpu", b"X\x06\0\0\0cuda:0") if name.endswith(".pkl") else content

    return rewritten(source, target, moved)


without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


@without_gpu
def test_a_file_from_a_gpu(model, saved, tmp_path):
    path = from_a_gpu(saved, tmp_path / "model.pt")
    assert_refused(path, r'was saved from a GPU \(cuda:0\), and there is none; load it with map_location="cpu"')
    for module in (bnfold.load(path, map_location="cpu"), bnfold.fold(path, map_location=torch.device("cpu")).module):
        image = torch.ones(1, 3, 9, 9).double()
        assert relative_error(model(image), module(image)) < 1e-12


@without_gpu
def test_a_device_that_is_not_there(saved):
    with pytest.raises(bnfold.LoadError, match="can't be loaded onto cuda:0, as there is no GPU; load it onto the CPU"):
        bnfold.load(saved, map_location="cuda:0")


def test_a_device_that_is_none(saved):
    with pytest.raises(bnfold.LoadError, match="there is no device 'gpu'; name one as in cpu or cuda:0"):
        bnfold.load(saved, map_location="gpu")


def test_a_module_that_speaks_of_a_gpu_is_none_from_one(tmp_path):
    class Speaking(nn.Module):
        def __init__(self):
            super().__init__()
            self.name = "cuda:0"

        def forward(self, x):
            return x, self.name

    torch.jit.script(Speaking().eval()).save(str(tmp_path / "model.pt"))
    assert bnfold.load(tmp_path / "model.pt")(torch.ones(1))[1] == "cuda:0"


def test_map_location_is_for_files(model):
    with pytest.raises(TypeError, match=r"map_location is for the path of a file; move a module with \.to\(device\)"):
        bnfold.fold(torch.jit.script(model), map_location="cpu")
