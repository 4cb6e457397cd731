"""
The dashboard: one page, its style, its script in modules, and nothing from other
hosts.

Knows the files and what a browser may do with them; refuses to know what they
show, which they ask of the API as everybody does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib import resources

from dynbalance.admin.answers import Page
from dynbalance.admin.api import Endpoint
from dynbalance.admin.scene import Ask

PAGE = "index.html"

PARTS = {
    "style.css": "text/css",
    "icon.svg": "image/svg+xml",
    "main.js": "text/javascript",
    "api.js": "text/javascript",
    "dialogs.js": "text/javascript",
    "model.js": "text/javascript",
    "view.js": "text/javascript",
    "words.js": "text/javascript",
}
"""What the page is made of, by its name below C{/dashboard/}."""

POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
    b" connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none';"
    b" require-trusted-types-for 'script'; trusted-types 'none'"
)
"""Nothing stands inline, nothing is made of text, nothing comes from elsewhere."""


def endpoints() -> tuple[Endpoint, ...]:
    """The page at C{/} and its parts; they hold nothing of anybody's."""
    get = (b"GET",)
    return (
        Endpoint(
            b"/",
            get,
            None,
            _showing(_page()),
            "Show the dashboard",
            # It asks for what it shows, and says who is asking.
            needs=None,
            produces="text/html",
        ),
        *(
            Endpoint(
                b"/dashboard/" + name.encode("ascii"),
                get,
                None,
                _showing(_file(name, kind)),
                "A part of the dashboard",
                needs=None,
                produces=kind,
            )
            for name, kind in PARTS.items()
        ),
    )


def _showing(page: Page) -> Callable[[Ask], Awaitable[Page]]:
    async def show(ask: Ask) -> Page:
        return page

    return show


def _page() -> Page:
    return _file(PAGE, "text/html", ((b"content-security-policy", POLICY),))


def _file(name: str, kind: str, headers: tuple[tuple[bytes, bytes], ...] = ()) -> Page:
    body = (resources.files(__package__) / "web" / name).read_bytes()
    content_type = f"{kind}; charset=utf-8".encode("ascii")
    return Page(content_type=content_type, body=body, headers=headers)
