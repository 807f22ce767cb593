"""What goes wrong while files are written: full disks, processes that are killed or meet at one path, and streams that nobody reads.

At every moment OUT is what it was before or the whole new file.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import random
import resource
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import double, prepared
from tested import PROGRAM
from torch import nn

import bnfold

FOLDERS = [str(Path(bnfold.__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]
VARIABLES = {**os.environ, "PYTHONPATH": os.pathsep.join(FOLDERS), "OMP_NUM_THREADS": "1"}

# What the program's help promises to scripts.
DONE, USAGE, CANNOT_WRITE = 0, 2, 5

# Left behind where a process is killed between naming a file and renaming it, or where the file system has no files without a name.
LITTER = ".bnfold-"


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "model.pt"
    with torch.no_grad():
        model = prepared(nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Linear(7, 300)), (double(2, 3, 9, 9),))
    torch.jit.script(model).save(str(path))
    return path


@pytest.fixture
def module(saved) -> torch.jit.ScriptModule:
    return torch.jit.load(str(saved))


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def run(*arguments: Any, code: int, **options: Any) -> subprocess.CompletedProcess:
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    result = subprocess.run([PROGRAM, *map(str, arguments)], env=VARIABLES, text=True, timeout=120, **options)
    assert result.returncode == code, result.stderr
    return result


def assert_is_folded(path: Path) -> None:
    assert "batch_norm" not in str(bnfold.load(path).inlined_graph)


# ---- what OUT is


def test_a_link_stays_a_link(module, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "model.pt").write_text("what was there")
    (tmp_path / "link.pt").symlink_to("folder/model.pt")
    bnfold.save(module, tmp_path / "link.pt")
    assert (tmp_path / "link.pt").is_symlink() and names(tmp_path) == ["folder", "link.pt"]
    assert names(tmp_path / "folder") == ["model.pt"]
    bnfold.load(tmp_path / "folder" / "model.pt")


@pytest.mark.parametrize("target", ["nothing", "link.pt"])
def test_a_link_to_nothing_is_refused(target, module, tmp_path):
    (tmp_path / "link.pt").symlink_to(target)
    with pytest.raises(bnfold.SaveError, match="is a link to nothing"):
        bnfold.save(module, tmp_path / "link.pt")
    assert (tmp_path / "link.pt").is_symlink() and names(tmp_path) == ["link.pt"]


def test_the_other_name_of_a_file_keeps_what_was_there(module, tmp_path):
    (tmp_path / "model.pt").write_text("what was there")
    os.link(tmp_path / "model.pt", tmp_path / "other.pt")
    bnfold.save(module, tmp_path / "model.pt")
    assert (tmp_path / "other.pt").read_text() == "what was there"
    bnfold.load(tmp_path / "model.pt")


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_permissions(mask, module, tmp_path):
    before = os.umask(mask)
    try:
        bnfold.save(module, tmp_path / "new.pt")
        (tmp_path / "old.pt").write_text("what was there")
        (tmp_path / "old.pt").chmod(0o640)
        bnfold.save(module, tmp_path / "old.pt")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new.pt").stat().st_mode) == 0o666 & ~mask
    # A file that only some may read does not become one that everybody may.
    assert stat.S_IMODE((tmp_path / "old.pt").stat().st_mode) == 0o640


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_what_is_no_regular_file_stays(kind, module, tmp_path):
    # Renaming would put a file in its place.
    os.mkfifo(tmp_path / "pipe")
    path = {"pipe": tmp_path / "pipe", "device": Path("/dev/null")}[kind]
    with pytest.raises(bnfold.SaveError, match="is no regular file"):
        bnfold.save(module, path)
    assert (tmp_path / "pipe").is_fifo() and Path("/dev/null").is_char_device()


# ---- no room


@pytest.fixture
def tiny_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(disk)]
    if os.geteuid() != 0 or shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("a full disk takes a mount")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_full_disk(tiny_disk):
    large = torch.jit.script(nn.Linear(100, 100))
    path = tiny_disk / "model.pt"
    path.write_text("what was there")
    with pytest.raises(bnfold.SaveError, match="No space left on device") as error:
        bnfold.save(large, path)
    assert "\n" not in str(error.value)
    assert path.read_text() == "what was there"
    assert names(tiny_disk) == ["model.pt"]


def limited(size: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.parametrize("before", ["what was there", None])
@pytest.mark.parametrize("size", [0, 1, 1000, 10_000])
def test_a_file_that_may_not_grow(size, before, saved, tmp_path):
    # As a full disk, but where no disk can be mounted.
    if before is not None:
        (tmp_path / "folded.pt").write_text(before)
    result = run(saved, tmp_path / "folded.pt", code=CANNOT_WRITE, preexec_fn=limited(size))
    assert result.stderr.endswith("folded.pt: can't be written: File too large\n") and result.stderr.count("\n") == 1
    assert names(tmp_path) == ([] if before is None else ["folded.pt"])
    assert before is None or (tmp_path / "folded.pt").read_text() == before


def test_a_report_that_may_not_grow(saved, tmp_path):
    result = run(saved, tmp_path / "folded.pt", "--json", tmp_path / "report.json", code=CANNOT_WRITE, preexec_fn=limited(10))
    assert "report.json: the report can't be written: File too large" in result.stderr
    assert names(tmp_path) == ["report.json"]


@pytest.mark.parametrize("place", ["in", "out"])
def test_a_report_onto_a_module(place, saved, tmp_path):
    (tmp_path / "in.pt").write_bytes(saved.read_bytes())
    (tmp_path / "link").symlink_to(".")
    report = tmp_path / "link" / f"{place}.pt"
    result = run(tmp_path / "in.pt", tmp_path / "out.pt", "--json", report, code=USAGE)
    assert "--json would write the report onto" in result.stderr
    assert (tmp_path / "in.pt").read_bytes() == saved.read_bytes() and names(tmp_path) == ["in.pt", "link"]


# ---- streams


def closed(*descriptors: int) -> Callable[[], None]:
    def close() -> None:
        for descriptor in descriptors:
            os.close(descriptor)

    return close


@pytest.mark.parametrize("descriptors", [(0,), (1,), (2,), (0, 1, 2)])
def test_streams_that_are_closed(descriptors, saved, tmp_path):
    # The file that is written must not get the number of a stream: what is printed would go into it.
    code = CANNOT_WRITE if 1 in descriptors else DONE
    result = run(saved, tmp_path / "folded.pt", code=code, preexec_fn=closed(*descriptors))
    if descriptors == (1,):
        assert result.stderr == "bnfold: the report can't be printed: Bad file descriptor; OUT is written\n"
    assert names(tmp_path) == ["folded.pt"]
    assert_is_folded(tmp_path / "folded.pt")


@contextlib.contextmanager
def broken_pipe():
    reading, writing = os.pipe()
    os.close(reading)
    yield writing
    os.close(writing)


@contextlib.contextmanager
def full_device():
    if not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full")
    descriptor = os.open("/dev/full", os.O_WRONLY)
    yield descriptor
    os.close(descriptor)


@pytest.mark.parametrize("stream, sentence", [(broken_pipe, "Broken pipe"), (full_device, "No space left on device")])
def test_a_stream_that_takes_nothing(stream, sentence, saved, tmp_path):
    with stream() as descriptor:
        result = run(saved, tmp_path / "folded.pt", code=CANNOT_WRITE, stdout=descriptor)
        assert result.stderr == f"bnfold: the report can't be printed: {sentence}; OUT is written\n"
        assert_is_folded(tmp_path / "folded.pt")
        # Who reads the report as JSON should not find a result without it.
        result = run(saved, tmp_path / "other.pt", "--json", "-", code=CANNOT_WRITE, stdout=descriptor)
        assert result.stderr == f"bnfold: -: the report can't be written: {sentence}\n"
    assert names(tmp_path) == ["folded.pt"]


# ---- several at once


def test_two_processes_write_one_file(saved, tmp_path):
    alone = tmp_path / "alone.pt"
    run(saved, alone, code=DONE)
    expected = {alone.read_bytes(), None}
    run(saved, alone, "--frozen", code=DONE)
    expected.add(alone.read_bytes())
    alone.unlink()
    for _ in range(3):
        commands = [[PROGRAM, str(saved), str(tmp_path / "folded.pt"), *options] for options in ([], ["--frozen"])]
        processes = [subprocess.Popen(command, env=VARIABLES, stdout=subprocess.DEVNULL) for command in commands]
        assert [process.wait(timeout=120) for process in processes] == [DONE, DONE]
        assert (tmp_path / "folded.pt").read_bytes() in expected
        assert names(tmp_path) == ["folded.pt"]


def test_threads_write_and_load_one_file(module, tmp_path):
    """A file that is loaded stays the one that was opened, though another one takes its place meanwhile."""
    failures = []
    modules = [module, torch.jit.script(nn.Linear(50, 60).eval())]

    def save(mine: torch.jit.ScriptModule) -> None:
        try:
            for _ in range(100):
                bnfold.save(mine, tmp_path / "model.pt")
                bnfold.load(tmp_path / "model.pt")
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=save, args=(mine,)) for mine in modules * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == [] and names(tmp_path) == ["model.pt"]


# ---- killed


def save_for_ever(module: torch.jit.ScriptModule) -> None:
    while True:
        bnfold.save(module, "model.pt")


def kill_writers(kills: int, seed: int) -> None:
    """Kills processes that write a file at random moments, and prints how many files were found whole or left behind."""
    torch.set_num_threads(1)
    small = torch.jit.script(nn.Linear(3, 4).eval())
    large = torch.jit.script(nn.Sequential(nn.Linear(500, 600), nn.Linear(600, 700)).eval())
    shapes = {tuple(module.state_dict()): module for module in (small, large)}
    moments = random.Random(seed)
    found = {"small": 0, "large": 0, "left behind": 0}
    bnfold.save(small, "model.pt")
    for number in range(kills):
        writer = os.fork()
        if writer == 0:
            save_for_ever((small, large)[number % 2])
        time.sleep(moments.uniform(0, 0.03))
        os.kill(writer, signal.SIGKILL)
        os.waitpid(writer, 0)
        state = bnfold.load("model.pt").state_dict()
        original = shapes[tuple(state)].state_dict()
        assert all(torch.equal(value, original[key]) for key, value in state.items())
        found["small" if len(state) == 2 else "large"] += 1
        left = [name for name in os.listdir() if name != "model.pt"]
        assert all(name.startswith(LITTER) for name in left), left
        found["left behind"] = len(left)
    print(json.dumps(found))


def has_files_without_names(directory: Path) -> bool:
    try:
        os.close(os.open(directory, os.O_TMPFILE | os.O_WRONLY))
    except OSError:
        return False
    return True


def test_killed_while_writing(tmp_path):
    code = "import test_faults; test_faults.kill_writers(80, 3)"
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], cwd=tmp_path, env=VARIABLES, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr[-2000:]
    found = json.loads(result.stdout)
    assert found["small"] > 0 and found["large"] > 0
    if has_files_without_names(tmp_path):
        assert found["left behind"] <= 5  # of those between two system calls


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(number, saved, tmp_path):
    (tmp_path / "folded.pt").write_text("what was there")
    endless = ["--input", "64,3,64,9", "--check", "1000000"]
    command = [PROGRAM, str(saved), str(tmp_path / "folded.pt"), *endless]
    # Where the tests run in the background of a shell, SIGINT is ignored, by what they start as well.
    heeding = functools.partial(signal.signal, number, signal.SIG_DFL)
    process = subprocess.Popen(command, env=VARIABLES, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=heeding)
    time.sleep(1)
    process.send_signal(number)
    try:
        output = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == -number and output == (b"", b"")
    assert names(tmp_path) == ["folded.pt"] and (tmp_path / "folded.pt").read_text() == "what was there"
