"""Sphinx: the site of `make docs`. Its pages are the documents of this folder, as they are read on the web host."""

from __future__ import annotations

import importlib.metadata
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

project = "EIE kit"
copyright = "the authors of the EIE kit"
try:
    release = importlib.metadata.version("eie-kit")
except importlib.metadata.PackageNotFoundError:
    release = ""
extensions = ["myst_parser", "sphinx.ext.autodoc", "numpydoc"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
root_doc = "index"
myst_heading_anchors = 4
myst_enable_extensions = ["deflist"]
numpydoc_show_class_members = False
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # docstrings say types and shapes
default_role = "literal"
html_theme = "alabaster"  # comes with Sphinx: no fonts, no scripts from elsewhere
html_theme_options = {"description": "From a trained network to a verified sparse accelerator", "page_width": "1100px"}
html_show_sourcelink = False
suppress_warnings = ["misc.highlighting_failure"]  # traces and transcripts in blocks of a language that they only quote
linkcheck_timeout = 20
linkcheck_retries = 2


_LINK = re.compile(r"\[([^\]]*)\]\(([^)#\s:]+)(#[^)\s]*)?\)")


def _outside(app: Any, name: str, source: list[str]) -> None:
    """Links to folders, and to files outside of docs/, become their names: the site has no such pages.

    What is not there at all stays a link, which Sphinx reports.
    """
    folder = Path(app.srcdir, name).parent

    def shown(match: re.Match[str]) -> str:
        target = (folder / match[2]).resolve()
        if target.is_dir() or (target.exists() and not target.is_relative_to(app.srcdir)):
            return f"{match[1]} (`{target.relative_to(ROOT)}`)"
        return match[0]

    source[0] = _LINK.sub(shown, source[0])
    if not source[0].lstrip().startswith(("# ", "<")) and name != root_doc:  # tables that a command wrote
        source[0] = f"# {name.removesuffix('/summary').removesuffix('/report').rpartition('/')[2]}\n\n{source[0]}"


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("source-read", _outside)
