"""The site of the documentation: it builds without a warning, its links lead somewhere, nothing is missing, and its examples are true."""

from __future__ import annotations

import collections
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import examples
import pytest
import torch
from tested import LIBRARY, PROGRAM

import bnfold

ROOT = Path(__file__).resolve().parents[2]
HEADERS = sorted(ROOT.joinpath("include", "bnfold").glob("*.h"))
DOCUMENTS = sorted(path.relative_to(ROOT) for path in examples.DOCS.rglob("*.md"))


class Page(HTMLParser):
    """What can be linked to in a page, and what it links to."""

    def __init__(self, path: Path):
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            if name == "id":
                self.ids.add(value)
            elif name in ("href", "src"):
                self.links.append(value)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    options = ["-q", "-W", "--keep-going", "-d", folder / "cache", "-c", ROOT / "docs" / "site"]
    run = subprocess.run([sys.executable, "-m", "sphinx", *options, ROOT, folder / "html"], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return folder / "html"


@pytest.fixture(scope="module")
def pages(site) -> dict[Path, Page]:
    return {path: Page(path) for path in site.rglob("*.html")}


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


# ---- pages and links


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_every_document_is_a_page(document, site):
    assert site.joinpath(document).with_suffix(".html").is_file()


def leads_somewhere(link: str, path: Path, pages: dict[Path, Page]) -> bool:
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return True
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    anchor = unquote(parts.fragment)
    return target.is_file() and (not anchor or target not in pages or anchor in pages[target].ids)


def test_every_link_leads_somewhere(pages, site):
    broken = [
        f"{path.relative_to(site)}: {link}" for path, page in pages.items() for link in page.links if not leads_somewhere(link, path, pages)
    ]
    assert broken == []


@pytest.mark.parametrize("page", ["models.md", "field.md"])
def test_the_readme_has_the_totals_of_the_tables(page):
    totals = re.findall(r"[\d,]+ of [\d,]+ norms folded", (examples.DOCS / page).read_text())
    readme = " ".join((ROOT / "README.md").read_text().split())
    assert totals and all(total in readme for total in totals)


def test_a_link_that_leads_nowhere_is_found(pages, site):
    page = site / "docs" / "index.html"
    assert leads_somewhere("reasons.html#weight_not_static", page, pages) and leads_somewhere("../README.html", page, pages)
    assert not leads_somewhere("reasons.html#nothing", page, pages) and not leads_somewhere("README.html", page, pages)


# ---- reference


@pytest.mark.parametrize("name", bnfold.__all__)
def test_every_name_of_the_package_is_in_the_reference(name, pages, site):
    assert f"bnfold.{name}" in pages[site / "docs" / "reference" / "python.html"].ids


def mangled(*names: str) -> str:
    return "".join("cl" if name == "operator" else f"{len(name)}{name}" for name in ("bnfold", *names))  # operator() alone is declared


def declared(path: Path) -> list[str]:
    """The types, functions and methods of a header that are public, once for each overload."""
    header = re.sub(r"^ private:\n.*?^\};", "};", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    found = [mangled(name) for name in re.findall(r"^(?:struct|class|enum class) (\w+)\b(?!;)", header, re.MULTILINE)]
    found += [mangled(name) for name in re.findall(r"^(?!//|#)\w[\w:<>&*, ]*[ &](\w+)\(", header, re.MULTILINE)]
    for record, body in re.findall(r"^(?:struct|class) (\w+)[^;]*?\{\n(.*?)^\};", header, re.MULTILINE | re.DOTALL):
        found += [mangled(record, name) for name in re.findall(r"^  (?!//|using )\w[\w:<>&*, ]*[ &](\w+)\(", body, re.MULTILINE)]
    return found


def test_what_is_declared_is_found():
    names = [name for header in HEADERS for name in declared(header)]
    assert {mangled("fold"), mangled("Options"), mangled("Error"), mangled("Report", "to_json")} <= set(names)
    assert names.count(mangled("check")) == 2


@pytest.mark.parametrize("header", HEADERS, ids=lambda path: path.name)
def test_everything_in_a_header_is_in_the_reference(header, pages, site):
    # Sphinx makes anchors of the names as a linker knows them.
    anchors = pages[site / "docs" / "reference" / "cpp.html"].ids
    shown = {name: sum(anchor.startswith((f"_CPPv4N{name}E", f"_CPPv4NK{name}E")) for anchor in anchors) for name in declared(header)}
    # A function may have overloads in several headers, which share one name there.
    everywhere = collections.Counter(name for one in HEADERS for name in declared(one))
    assert shown == {name: everywhere[name] for name in declared(header)}


def test_every_operator_is_in_the_reference():
    schemas = re.findall(r'library\.def\("((?:[^"\\]|\\.)+)"', ROOT.joinpath("python_bindings", "ops.cpp").read_text())
    registered = [schema.replace('\\"', '"') for schema in schemas]
    assert registered
    listed = re.findall(r"^\| `([^`]+)` \|", examples.DOCS.joinpath("reference", "operators.md").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(registered)


@pytest.fixture(scope="module")
def help_text() -> str:
    return subprocess.run([PROGRAM, "--help"], capture_output=True, text=True, check=True).stdout


def test_the_help_is_in_the_reference(help_text):
    shown = next(block.code for block in examples.blocks("reference/command_line.md") if block.language == "text")
    assert shown == help_text


def test_the_options_in_the_reference_are_those_of_the_program(help_text):
    table = examples.DOCS.joinpath("reference", "command_line.md").read_text().partition("## Options\n")[2].partition("## Exit codes\n")[0]
    listed = [option for cell in re.findall(r"^\| (`-.*?) \|", table, re.MULTILINE) for option in re.findall(r"`(--?\w+)", cell)]
    options = [option for names in re.findall(r"^  (-\S+)", help_text, re.MULTILINE) for option in re.findall(r"(?<!\w)--?\w+", names)]
    assert listed == options


def members(value: object) -> set[str]:
    """The names of all members of a JSON value."""
    if isinstance(value, list):
        return set().union(*map(members, value))
    return set(value).union(*map(members, value.values())) if isinstance(value, dict) else set()


def test_every_member_of_the_report_is_in_the_reference(folder):
    code, _ = examples.program(examples.blocks("reference/report.md"))
    torch.jit.script(examples.run(code, folder).Model().eval()).save("model.pt")
    arguments = ["model.pt", "folded.pt", "--input", "1,3,9,9", "--bench", "1", "--json", "-"]
    report = json.loads(subprocess.run([PROGRAM, *arguments], capture_output=True, text=True, check=True).stdout)
    text = examples.DOCS.joinpath("reference", "report.md").read_text()
    assert [name for name in members(report) if f"`{name}`" not in text and f'"{name}"' not in text] == []


# ---- examples

TUTORIAL = examples.blocks("tutorial.md")
LAST_PROGRAM = "Run it without bnfold"


def assert_prints(output: str, expected: str) -> None:
    assert examples.without_varying_figures(output) == examples.without_varying_figures(expected)


@pytest.mark.parametrize(
    "blocks",
    [[block for block in TUTORIAL if block.heading != LAST_PROGRAM], examples.blocks("reference/report.md")],
    ids=["tutorial", "report"],
)
def test_an_example_prints_what_is_shown(blocks, folder, capsys):
    code, expected = examples.program(blocks)
    assert code and expected
    examples.run(code, folder)
    assert_prints(capsys.readouterr().out, expected)


def test_the_folded_file_of_the_tutorial_runs_without_bnfold(folder):
    examples.run(examples.program(block for block in TUTORIAL if block.heading != LAST_PROGRAM)[0], folder)
    code, expected = examples.program(block for block in TUTORIAL if block.heading == LAST_PROGRAM)
    code += "\nimport sys\nassert 'bnfold' not in sys.modules"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert_prints(run.stdout, expected)


def test_the_example_of_the_operators(folder):
    examples.save_model(folder / "model.pt")
    code, _ = examples.program(examples.blocks("reference/operators.md"))
    examples.run(code, folder, libbnfold_ops=LIBRARY)
    assert folder.joinpath("folded.pt").is_file()
