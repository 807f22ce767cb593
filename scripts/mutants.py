#!/usr/bin/env python3
"""Switches off each condition under which a function declines, fails or knows nothing, and lists those that no test notices: mutants.py --help."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build-mutants"
SOURCE = BUILD / "source"
SWITCH = """
#include <cstdlib>
static bool bnfold_holds(int condition) {
  static const char* const off = std::getenv("BNFOLD_MUTANT");
  return off == nullptr || std::atoi(off) != condition;
}
"""
# What stands behind such a condition: a decline, an error, or the answer that it is not so or can't be known.
DECLINES = r"return (Decline\{|\*?decline;|decline\(|refused\(|is_read_by\(|\{Reason::)"
FAILS = r"fail<|fail_with\(|throw "
KNOWS_NOTHING = r"return (std::nullopt|nullptr|false|true|\{\});"
GUARDED = re.compile(rf"\s*\{{?\s*({DECLINES}|{FAILS}|{KNOWS_NOTHING})")
TEST_BINARIES = (
    *(("tests/algebra_tests",), ("tests/rule_tests",), ("tests/pass_tests",), ("tests/fuse_tests",), ("tests/exported_tests",)),
    ("bin/fuzz_graphs", "200"),
)
# What a test in Python asks of a file of C++, which those in C++ can't.
PYTHON_TESTS = {
    "passes/files/load.cpp": ("test_files.py", "test_faults.py"),
    "passes/files/save.cpp": ("test_faults.py", "test_files.py"),
    "passes/exported": ("test_exported.py",),
    "passes/graph/order_in_memory.cpp": ("test_order_in_memory.py",),
    "passes/files/zip_checksums.cpp": ("test_files.py",),
    "tools": ("test_program.py", "test_faults.py", "test_files.py"),
    "python_bindings": ("test_errors.py", "test_result.py", "test_torchscript_features.py"),
    "": ("test_values.py", "test_errors.py"),
}
SECONDS_FOR_A_TEST = 900


class Condition(NamedTuple):
    number: int
    place: str
    text: str


def closing(text: str, opening: int) -> int:
    """Where the parenthesis that opens at `opening` closes."""
    depth = 0
    for place in range(opening, len(text)):
        depth += {"(": 1, ")": -1}.get(text[place], 0)
        if depth == 0:
            return place
    raise ValueError("a parenthesis does not close")


def end_of_declaration(condition: str) -> int | None:
    """Where the semicolon of `found = ...; found != end` is; those inside of a lambda are none."""
    depth = 0
    for place, character in enumerate(condition):
        depth += {"(": 1, "{": 1, ")": -1, "}": -1}.get(character, 0)
        if character == ";" and depth == 0:
            return place
    return None


def switched(condition: str, number: int) -> str:
    """The condition, false where BNFOLD_MUTANT is its number."""
    holds = f"bnfold_holds({number})"
    if (end := end_of_declaration(condition)) is not None:
        return f"{condition[:end]}; ({condition[end + 1 :].strip()}) && {holds}"
    if declared := re.match(r"(?:const )?auto\s*\*?\s*(\w+) = ", condition):
        return f"{condition}; {declared[1]} && {holds}"
    return f"({condition}) && {holds}"


def switch_in(path: Path, first: int) -> list[Condition]:
    """Puts a switch into every such condition of the file, and numbers them from `first`."""
    text = path.read_text()
    conditions, pieces, end = [], [], 0
    for found in re.finditer(r"\bif \(", text):
        opening = found.end() - 1
        close = closing(text, opening)
        if not GUARDED.match(text, close + 1):
            continue
        condition = text[opening + 1 : close]
        number = first + len(conditions)
        place = f"{path.relative_to(SOURCE)}:{text.count(chr(10), 0, opening) + 1}"
        conditions.append(Condition(number, place, " ".join(condition.split())))
        pieces += [text[end : opening + 1], switched(condition, number)]
        end = close
    if conditions:
        path.write_text("".join([SWITCH, *pieces, text[end:]]))
    return conditions


def build() -> list[Condition]:
    """A build of its own in which the environment says which condition is off."""
    shutil.rmtree(SOURCE, ignore_errors=True)
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, files.split("\0")):
        (SOURCE / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, SOURCE / name)
    conditions: list[Condition] = []
    for folder in ("passes", "tools", "python_bindings"):
        for path in sorted((SOURCE / folder).rglob("*.cpp")):
            conditions += switch_in(path, len(conditions))
    options = [f"-DLibTorch_PYTHON={ROOT / '.venv/bin/python'}", "-DBNFOLD_BENCH=OFF", "-DCMAKE_BUILD_TYPE=Release", "-G", "Ninja"]
    for command in (["cmake", "-S", SOURCE, "-B", BUILD, *options], ["cmake", "--build", BUILD]):
        subprocess.run(command, check=True, stdout=sys.stderr)
    return conditions


def fails(command: list[object], condition: Condition) -> bool:
    environment = os.environ | {"BNFOLD_MUTANT": str(condition.number), "BNFOLD_LIBRARY": str(BUILD / "lib/libbnfold_ops.so")}
    try:
        run = subprocess.run([str(part) for part in command], env=environment, cwd=ROOT, capture_output=True, timeout=SECONDS_FOR_A_TEST)
    except subprocess.TimeoutExpired:
        return True
    return run.returncode != 0


def noticed_by(condition: Condition) -> str:
    """The tests that fail while the condition is off; nothing where none does."""
    for binary, *arguments in TEST_BINARIES:
        if fails([BUILD / binary, *(arguments or ["--gtest_brief=1", "--gtest_fail_fast"])], condition):
            return binary
    tests = next(tests for beginning, tests in PYTHON_TESTS.items() if condition.place.startswith(beginning))
    for test in tests:
        if fails([ROOT / ".venv/bin/python", "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", ROOT / "tests/python" / test], condition):
            return test
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Builds bnfold in build-mutants/ with a switch in each condition under which a function declines a fold, fails or knows "
        "nothing, and runs the tests with one of them off at a time. Prints which fail then; a condition that none notices has no test or "
        "no use. A few hours for all on 2 cores."
    )
    parser.add_argument("paths", nargs="*", help="look at conditions in files whose paths begin with one of these only")
    parser.add_argument("--processes", type=int, default=2, help="how many run at once (default: %(default)s)")
    arguments = parser.parse_args()
    conditions = [one for one in build() if one.place.startswith(tuple(arguments.paths or [""]))]
    everything_on = Condition(-1, "", "nothing is off")
    if found := noticed_by(everything_on):
        print(f"mutants: {found} fails with every condition on", file=sys.stderr)
        return 2
    unnoticed = 0
    with ThreadPoolExecutor(arguments.processes) as pool:
        for condition, found in zip(conditions, pool.map(noticed_by, conditions), strict=True):
            unnoticed += not found
            print(f"{condition.place:<36} {found or 'NOTICED BY NO TEST':<28} {condition.text}", flush=True)
    print(f"{len(conditions)} conditions, {unnoticed} that no test notices")
    return 1 if unnoticed else 0


if __name__ == "__main__":
    sys.exit(main())
