"""
The Lua scripts, as they are sent.

Knows which files make a script; refuses to know what they do.  A script is the
only way in which the store is changed, so that each change is whole.
"""

from __future__ import annotations

import hashlib
from importlib.resources import files

from attrs import frozen

_PARTS = {
    "add": ("names", "meta", "gap", "counts", "admission"),
    "remove": ("names", "meta", "counts", "removal"),
    "drained": ("names", "meta", "gap", "counts", "removal"),
    "intent": ("names", "meta", "gap", "orders"),
    "update": ("names", "meta", "gap", "orders"),
    "amend": ("names", "meta", "gap", "counts", "removal", "admission", "orders"),
    "history": ("names",),
    "beat": ("names", "meta", "gap"),
    "expire": ("names", "meta", "gap"),
    "snapshot": ("names",),
    "probe": ("names", "meta", "gap", "claims"),
    "verdict": ("names", "meta", "claims"),
    "sync": ("names", "meta", "counts", "gap", "totals", "removal", "era", "repair"),
    "restore": ("names", "meta", "counts", "removal", "era"),
    "grant": ("names", "meta", "counts", "gap", "totals"),
    "leave": ("names", "meta", "counts", "gap"),
    "recount": ("names", "meta", "counts", "gap"),
}
"""Script -> the files that it stands on."""


@frozen(slots=True, repr=False)
class Script:
    """
    @ivar sha: by which the server remembers it.
    """

    name: str
    text: str
    sha: str

    def __repr__(self) -> str:
        return f"<Script {self.name} {self.sha[:8]}>"


def load() -> dict[str, Script]:
    """All scripts by name."""
    return {name: _load(name, parts) for name, parts in _PARTS.items()}


def _load(name: str, parts: tuple[str, ...]) -> Script:
    here = files("dynbalance.store")
    text = "\n".join((here / f"{part}.lua").read_text("utf-8") for part in (*parts, name))
    # The server's name for a script, not a secret.
    return Script(name, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())
