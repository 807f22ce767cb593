"""The rules that the repository keeps about itself: nothing is untested, unlisted or undocumented."""

from __future__ import annotations

import collections
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import examples
import mutants
import pytest

ROOT = Path(__file__).resolve().parents[2]
PASSES, RULES, TESTS, DOCS = ROOT / "passes", ROOT / "passes" / "rules", ROOT / "tests", ROOT / "docs"

# Absolute paths of somebody's machine.
MACHINE_PATH = re.compile(r"(?<![\w.$}/-])/(?:work|root|home|Users)/\w")
# A Markdown link to something inside the repository: [text](docs/reasons.md#anchor).
LINK = re.compile(r"\[[^\]]*\]\((?!https?:|mailto:)([^)#\s]*)(?:#([^)\s]*))?\)")


def text(*parts: str) -> str:
    return ROOT.joinpath(*parts).read_text()


def repository_files() -> list[Path]:
    """What git tracks, and what it would add."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [path for path in (ROOT / name for name in listing.stdout.split("\0") if name) if path.is_file()]


def reasons() -> list[str]:
    body = re.search(r"enum class Reason \{(.*?)\};", text("include", "bnfold", "report.h"), re.DOTALL)
    return re.findall(r"^ *(\w+),", body.group(1), re.MULTILINE)


class Row(NamedTuple):
    """A row of the table of rules; a family may have several."""

    family: str
    overloads: list[str]


def rule_table() -> list[Row]:
    rows = re.findall(r'\{"(\w+)",\s*\{((?:\s*"[\w:.]+",?)+)\}', text("passes", "rules", "table.cpp"))
    return [Row(family, re.findall(r'"([^"]+)"', overloads)) for family, overloads in rows]


def families() -> list[str]:
    return sorted({row.family for row in rule_table()})


def anchors(markdown: str) -> set[str]:
    """The anchors of the headings, the way GitHub makes them."""
    titles = re.findall(r"^#+ +(.+?) *$", markdown, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_there_are_reasons_and_rules():
    # What follows reads the sources; an expression that finds nothing would prove nothing.
    assert len(reasons()) >= 20 and "value_has_other_readers" in reasons()
    in_table = text("passes", "rules", "table.cpp")
    overloads = [overload for row in rule_table() for overload in row.overloads]
    assert {"conv", "linear", "matmul", "activation"} <= set(families())
    assert {"aten::conv2d", "aten::conv2d.padding", "aten::relu", "aten::prelu", "prim::If"} <= set(overloads)
    assert len(overloads) == len(re.findall(r'"\w+::', in_table))


# ---- reasons


@pytest.mark.parametrize("reason", reasons())
def test_every_reason_is_asserted_in_a_cpp_test(reason):
    asserted = re.compile(rf"\bReason::{reason}\b")
    assert any(asserted.search(path.read_text()) for path in TESTS.rglob("*_test.cpp")), f"no C++ test names Reason::{reason}"


@pytest.mark.parametrize("reason", reasons())
def test_every_reason_is_given_in_the_passes(reason):
    given = re.compile(rf"\bReason::{reason}\b")
    sources = [path for path in PASSES.rglob("*.cpp") if path.name != "reasons.cpp"]
    assert any(given.search(path.read_text()) for path in sources), f"nothing declines with Reason::{reason}"


def test_every_reason_has_its_text_in_the_order_of_the_enum():
    assert re.findall(r"ReasonText\{Reason::(\w+), \"\w+\"", text("passes", "report", "reasons.cpp")) == reasons()


def test_the_reasons_are_documented_in_the_order_of_the_enum():
    assert re.findall(r"^### `(\w+)`$", text("docs", "reasons.md"), re.MULTILINE) == reasons()


EXAMPLES = {block.heading: block.code for block in examples.blocks("reasons.md") if block.language == "python"}
FIRST_LINES = next(block.code for block in examples.blocks("reasons.md") if block.language == "text")


def test_every_reason_has_an_example():
    assert sorted(EXAMPLES) == sorted(reasons())


@pytest.mark.parametrize("reason, code", EXAMPLES.items(), ids=list(EXAMPLES))
def test_the_example_of_a_reason_gives_that_reason(reason, code, tmp_path):
    (norm,) = examples.run(FIRST_LINES + code, tmp_path).result.report.kept
    # A reason may stand in one of the other ways than the one backward, which names the norm's own reason.
    assert reason in {norm.reason, *(obstacle.reason for obstacle in norm.obstacles)}


OBSTACLES = re.findall(r"^  (\w+), ", text("include", "bnfold", "optimize.h").partition("enum class FusionObstacle {")[2].partition("};")[0], re.MULTILINE)


@pytest.mark.parametrize("obstacle", OBSTACLES)
def test_every_obstacle_to_a_fusion_is_asserted_given_and_documented(obstacle):
    named = re.compile(rf"\bFusionObstacle::{obstacle}\b")
    assert any(named.search(path.read_text()) for path in TESTS.joinpath("fuse").glob("*_test.cpp"))
    assert any(named.search(path.read_text()) for path in PASSES.joinpath("fuse").glob("*.cpp"))
    assert f"| `{obstacle}` |" in text("docs", "optimizing.md")


def test_the_obstacles_are_named_in_the_order_of_the_enum():
    names = re.search(r"kObstacles = \{(.*?)\};", text("passes", "optimize_for_inference.cpp"), re.DOTALL)
    assert len(OBSTACLES) >= 8 and re.findall(r'"(\w+)"', names.group(1)) == OBSTACLES


# ---- rules


def rule_files() -> list[str]:
    return sorted(path.stem for path in RULES.glob("*.cpp") if path.stem != "table")


@pytest.mark.parametrize("stem", rule_files())
def test_every_rule_file_is_in_the_table_and_tested(stem):
    assert (TESTS / "rules" / f"{stem}_test.cpp").is_file()
    if stem in families():
        return
    # What is no rule is code that several rules share.
    include = f'#include "rules/{stem}.h"'
    users = [path.stem for path in RULES.glob("*.cpp") if path.stem in families() and include in path.read_text()]
    assert len(users) >= 2, f"{stem}.cpp is neither in the table nor shared by rules"


def test_every_line_of_the_table_has_its_file():
    assert families() == [stem for stem in rule_files() if stem in families()]


def test_no_overload_has_two_rules():
    counts = collections.Counter(overload for row in rule_table() for overload in row.overloads)
    assert [overload for overload, count in counts.items() if count > 1] == []


@pytest.mark.parametrize("stem", rule_files())
def test_the_header_of_a_rule_names_every_reason_that_it_gives(stem):
    source, header = RULES / f"{stem}.cpp", RULES / f"{stem}.h"
    if header.exists():
        comment = "\n".join(line for line in header.read_text().splitlines() if line.startswith("//"))
    else:
        comment = re.match(r"(//.*\n)+", source.read_text()).group()
    given = set(re.findall(r"\bReason::(\w+)", source.read_text()))
    assert {reason for reason in reasons() if re.search(rf"\b{reason}\b", comment)} == given


@pytest.mark.parametrize("family", families())
def test_every_rule_is_derived_in_the_docs(family):
    assert f"passes/rules/{family}.cpp" in text("docs", "exactness.md")


# ---- sources


@pytest.mark.parametrize("folder, pattern", [("passes", "**/*.cpp"), ("tools", "*.cpp"), ("tests", "**/*_test.cpp"), ("bench", "*.cpp")])
def test_every_source_is_built(folder, pattern):
    lists = {"passes": [ROOT / "CMakeLists.txt", ROOT / "cmake" / "BnfoldOneDnn.cmake"]}.get(folder, [ROOT / folder / "CMakeLists.txt"])
    listed = {name for one in lists for name in re.findall(r"[\w/]+\.cpp", one.read_text())}
    sources = sorted(ROOT.joinpath(folder).glob(pattern))
    assert sources
    missing = [str(path.relative_to(lists[0].parent)) for path in sources if str(path.relative_to(lists[0].parent)) not in listed]
    assert missing == []


def library_sources() -> list[Path]:
    files = [*PASSES.rglob("*.cpp"), *PASSES.rglob("*.h"), *ROOT.joinpath("include").rglob("*.h")]
    return sorted(files)


@pytest.mark.parametrize("path", library_sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_source_says_what_it_is(path):
    # In its first line, or in that of the header that it includes first.
    first, *rest = path.read_text().splitlines()
    own_header = path.with_suffix(".h")
    if path.suffix == ".cpp" and own_header.exists() and not first.startswith("// "):
        assert first == f'#include "{own_header.relative_to(PASSES)}"'
    else:
        assert first.startswith("// ")
    if path.suffix == ".h":
        assert "#pragma once" in rest


@pytest.mark.parametrize("path", sorted(PASSES.joinpath("algebra").iterdir()), ids=lambda path: path.name)
def test_the_algebra_knows_no_graph(path):
    assert "torch/csrc" not in path.read_text()


# From the lowest: a file includes what is in its own folder or in a lower one. On top of the doors stands what folds another format.
FLOORS = ("report", "algebra", "graph", "knowledge", "rules", "plan", "module", "files", "fuse", "", "exported", "onednn")


@pytest.mark.parametrize("path", sorted([*PASSES.rglob("*.cpp"), *PASSES.rglob("*.h")]), ids=lambda path: str(path.relative_to(PASSES)))
def test_no_file_includes_one_of_a_higher_folder(path):
    def floor(name: str) -> int:
        return FLOORS.index(name.rpartition("/")[0])

    included = [name for name in re.findall(r'^#include "(.+)"$', path.read_text(), re.MULTILINE) if not name.startswith("bnfold/")]
    assert [name for name in included if floor(name) > floor(str(path.relative_to(PASSES)))] == []


def test_what_a_list_holds_is_asked_in_one_place():
    """A list that is written out may be changed behind that, so whoever reads its items asks items_of_list."""
    asks = re.compile(r"node\(\)->kind\(\) [!=]= jit::prim::ListConstruct")
    assert [path.name for path in (ROOT / "passes").rglob("*.cpp") if asks.search(path.read_text())] == []


def test_no_test_compares_floats_element_by_element():
    # Beside a large element the rounding error of a small one may be as large as that one: how large it is depends on the CPU.
    by_element = re.compile(r"\b(?:all|is|assert_)close\(|\bEXPECT_(?:FLOAT|DOUBLE)_EQ\(")
    sources = [*TESTS.rglob("*.cpp"), *TESTS.rglob("*.h"), *TESTS.rglob("*.py")]
    assert [str(path.relative_to(TESTS)) for path in sources if by_element.search(path.read_text())] == []


def test_no_file_names_a_path_of_a_machine():
    found = []
    for path in repository_files():
        try:
            content = path.read_text()
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(ROOT)}: {line}" for line in content.splitlines() if MACHINE_PATH.search(line)]
    assert found == []


# ---- scripts


def script(name: str, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([ROOT / "scripts" / name, *arguments], capture_output=True, text=True)


@pytest.mark.parametrize("name", ["setup.sh", "test.sh"])
def test_help_lists_the_options(name):
    result = script(name, "--help")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith(f"usage: scripts/{name} ")
    assert "--torch VERSION " in result.stdout and "--libtorch debian " in result.stdout


@pytest.mark.parametrize("name", ["setup.sh", "test.sh"])
@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (("--torch",), "--torch takes a version as 2.11.0, not ''"),
        (("--torch", "newest"), "--torch takes a version as 2.11.0, not 'newest'"),
        (("--torch", "../../2.11.0"), "--torch takes a version as 2.11.0, not '../../2.11.0'"),
        (("--libtorch",), "--libtorch takes debian, not ''"),
        (("--libtorch", "fedora"), "--libtorch takes debian, not 'fedora'"),
        (("--torch", "2.11.0", "--libtorch", "debian"), "'--torch 2.11.0 --libtorch debian' is not understood"),
        (("--fast",), "'--fast' is not understood"),
        (("",), "'' is not understood"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_wrong_option_gives_one_sentence(name, arguments, sentence):
    result = script(name, *arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == f"{name.removesuffix('.sh')}: {sentence}; --help lists the options\n"


@pytest.mark.parametrize(
    "condition, switched",
    [
        ("a || b", "(a || b) && bnfold_holds(7)"),
        ("const auto decline = why_not(site)", "const auto decline = why_not(site); decline && bnfold_holds(7)"),
        ("const auto* decline = std::get_if<Decline>(&read)", "const auto* decline = std::get_if<Decline>(&read); decline && bnfold_holds(7)"),
        ("auto x = f(); x > 3", "auto x = f(); (x > 3) && bnfold_holds(7)"),
    ],
)
def test_a_mutant_has_its_condition_off(condition, switched):
    assert mutants.switched(condition, 7) == switched


# ---- documentation


def test_links_lead_somewhere():
    broken = []
    for path in repository_files():
        if path.suffix != ".md":
            continue
        for target, anchor in LINK.findall(path.read_text()):
            there = (path.parent / target).resolve() if target else path
            if not there.exists() or (anchor and there.suffix == ".md" and anchor not in anchors(there.read_text())):
                broken.append(f"{path.relative_to(ROOT)}: {target}#{anchor}")
    assert broken == []


@pytest.mark.parametrize("document", ["reasons.md", "exactness.md", "checking.md"])
def test_the_documents_are_there(document):
    assert (DOCS / document).read_text().startswith("# ")


def test_the_documented_tolerances_are_those_of_the_code():
    body = re.search(r"double tolerance\(at::ScalarType dtype\) \{(.*?)\n\}", text("passes", "check.cpp"), re.DOTALL).group(1)
    in_code = [float(value) for value in re.findall(r"return ([\d.e-]+);", body) if float(value) > 0]
    table = re.findall(r"^\| (?:double|float|half|bfloat16) \|.*\| ([\d.e-]+) \|$", text("docs", "checking.md"), re.MULTILINE)
    assert [float(value) for value in table] == in_code
