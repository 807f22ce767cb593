"""How Sphinx makes a site of the documentation: scripts/docs.sh.

The source folder is the root of the repository, so that the links between pages lead to the same places on the site and on GitHub.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.config import Config

SITE = Path(__file__).resolve().parent
ROOT = SITE.parents[1]
sys.path.insert(0, str(ROOT / "python_bindings"))

import bnfold  # noqa: E402

project = "bnfold"
release = version = bnfold.__version__
root_doc = "docs/index"
include_patterns = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/**.md"]
exclude_patterns = ["build*", ".*"]  # folders that are not even looked through

extensions = ["breathe", "myst_parser", "sphinx.ext.autodoc"]
highlight_language = "text"
smartquotes = False
nitpicky = True
# What belongs to PyTorch and to the standard libraries is not looked up.
nitpick_ignore_regex = [
    ("cpp:identifier", r"(torch|c10|at)(::.*)?|bnfold|int64_t|ExportedArchive"),
    ("py:class", r"torch\..*|collections\.abc\..*|os\.PathLike|ModuleLike|ExportedProgram"),
]
myst_heading_anchors = 4
autodoc_member_order = "bysource"
breathe_default_project = "bnfold"
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = "bnfold"
html_extra_path = ["index.html"]
html_static_path = ["site.css"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = False


def run_doxygen(app: Sphinx, config: Config) -> None:
    """Makes XML of the C++ headers, which breathe reads."""
    output = Path(app.doctreedir) / "doxygen"
    output.mkdir(parents=True, exist_ok=True)
    variables = {**os.environ, "DOXYGEN_OUTPUT": str(output), "DOXYGEN_SITE": str(SITE)}
    subprocess.run(["doxygen", str(SITE / "Doxyfile")], cwd=ROOT, env=variables, check=True)
    config.breathe_projects = {"bnfold": str(output / "xml")}


def escape_bars(app: Sphinx, what: str, name: str, item: object, options: object, lines: list[str]) -> None:
    """In docstrings, |x| is the size of x, and no substitution of reStructuredText."""
    lines[:] = [line.replace("|", r"\|") for line in lines]


def hide_constructor(app: Sphinx, what: str, name: str, item: object, options: object, signature: str | None, result: str | None):
    """The classes are results: a user reads their members and makes none."""
    return ("", None) if what == "class" and signature else None


def unlink_folders(app: Sphinx, document: nodes.document) -> None:
    """A folder is no page and can't be downloaded, so a link to one becomes its text. An anchor has no slash."""
    here = Path(app.env.doc2path(app.env.docname)).parent
    for reference in list(document.findall(addnodes.pending_xref)):
        target = reference["reftarget"]
        if reference["reftype"] == "myst" and reference["refdomain"] is None and "/" in target and (here / target).is_dir():
            reference.replace_self(reference.children)


def setup(app: Sphinx) -> None:
    app.connect("config-inited", run_doxygen)
    app.connect("autodoc-process-docstring", escape_bars)
    app.connect("autodoc-process-signature", hide_constructor)
    app.connect("doctree-read", unlink_folders)
