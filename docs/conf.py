"""
How Sphinx builds these pages::

    sphinx-build -W -b html docs build/docs
    sphinx-build -W -b man docs build/man
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

import tables  # noqa: E402

from dynbalance import __version__  # noqa: E402

project = "dynbalance"
author = "the dynbalance developers"
copyright = "the dynbalance developers"
version = release = __version__
root_doc = "index"
exclude_patterns = ["examples"]
default_role = None
highlight_language = "none"
nitpicky = True
templates_path: list[str] = []
html_theme = "alabaster"
html_theme_options = {
    "description": "A load balancer whose servers come and go at run time",
    "page_width": "1180px",
    "code_font_size": "0.8em",
    "body_max_width": "none",
}
html_show_copyright = False
html_copy_source = False
man_pages = [
    ("man/dynbalance", "dynbalance", "load balancer for HTTP and raw TCP", [], 1),
    ("man/dynbalancectl", "dynbalancectl", "look at and change a running dynbalance", [], 1),
    ("man/dynbalance.toml", "dynbalance.toml", "configuration of dynbalance", [], 5),
]


class Written(SphinxDirective):
    """What L{tables} writes; an argument is passed on."""

    optional_arguments = 1
    write: Callable[..., str]

    def run(self) -> list[nodes.Node]:
        for source in (tables.__file__, tables.EXAMPLE):
            self.env.note_dependency(str(source))
        return self.parse_text_to_nodes(type(self).write(*self.arguments))


def _root() -> str:
    return tables.option_pages("")


def _add_the_rest(app: Sphinx, page: str, source: list[str]) -> None:
    """Pages that the index does not name yet are at its end."""
    if page == root_doc:
        named = set(re.findall(r"(?m)^   (?:.*<)?([\w./-]+)>?$", source[0]))
        rest = sorted(path.stem for path in Path(app.srcdir).glob("*.rst"))
        source[0] += "".join(f"   {name}\n" for name in rest if name not in {*named, page})


def setup(app: Sphinx) -> dict[str, bool]:
    """The directives of the reference."""
    for name, write in {
        "dynbalance-root-options": _root,
        "dynbalance-options": tables.option_pages,
        "dynbalance-all-options": tables.all_options,
        "dynbalance-endpoints": tables.endpoint_pages,
        "dynbalance-metrics": tables.metric_pages,
        "dynbalance-daemon": tables.daemon_options,
        "dynbalance-commands": tables.command_pages,
    }.items():
        app.add_directive(name, type(name, (Written,), {"write": staticmethod(write)}))
    app.connect("source-read", _add_the_rest)
    return {"parallel_read_safe": True}
