"""
Texts with variables in them, such as C{"$scheme://$host"}.

Knows the syntax and the names; refuses to know where the values come from.
"""

from __future__ import annotations

import re

from attrs import frozen

_VARIABLE = re.compile(r"\$([a-z0-9_]*)")

TRAFFIC_VARIABLES = (
    "remote_addr",
    "proxy_add_x_forwarded_for",
    "scheme",
    "host",
    "request_uri",
    "http_*",
)
"""What C{set_headers} and C{host} may hold; C{*} stands for a name."""

KEY_VARIABLES = ("remote_addr", "request_uri", "host", "http_*", "cookie_*", "arg_*")
"""What C{hash_key} may hold."""


@frozen(slots=True)
class Variable:
    """
    A place to be filled in.

    @ivar name: without the dollar sign; of a family (C{http_accept}) its
        first part (C{http}).
    @ivar member: of a family, which one (C{accept}); else empty.
    """

    name: str
    member: str = ""


def parse_template(text: str, allowed: tuple[str, ...]) -> tuple[str | Variable, ...]:
    """
    Split a text into its literal pieces and its variables, in order; empty
    pieces are left out.

    @param allowed: such as L{TRAFFIC_VARIABLES}.
    @raise ValueError: naming the variable that is not known.
    """
    pieces: list[str | Variable] = []
    end = 0
    for found in _VARIABLE.finditer(text):
        if found.start() > end:
            pieces.append(text[end : found.start()])
        pieces.append(_variable(found[1], allowed))
        end = found.end()
    if end < len(text):
        pieces.append(text[end:])
    return tuple(pieces)


def _variable(name: str, allowed: tuple[str, ...]) -> Variable:
    if name in allowed:
        return Variable(name)
    family, _, member = name.partition("_")
    if member and f"{family}_*" in allowed:
        return Variable(family, member)
    known = ", ".join("$" + each.replace("*", "NAME") for each in allowed)
    if not name:
        raise ValueError(f"a $ without a variable's name; known are {known}")
    raise ValueError(f"unknown variable ${name}; known are {known}")
