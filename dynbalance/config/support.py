"""
Which options do not work yet.

An option is known, and its value checked, before its feature exists; until
then any value but those named here is refused rather than ignored.  A feature
that works takes its line out of the table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping


def _only(*values: object) -> Callable[[object], bool]:
    return lambda value: value in values


SUPPORTED: Mapping[str, Callable[[object], bool]] = {
    "admin.tls": _only({}),
    "admin.users": _only([]),
    "admin.tokens": _only([]),
    "admin.jwt": _only({}),
    "admin.allow": _only([]),
    "admin.rate_limit": _only({}),
    "admin.audit_log": _only(""),
}
"""
The path of an option -> whether a value of it works; C{*} stands for any name
and C{[]} for any place in an array.
"""


def unsupported(document: object) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """
    The options of a parsed file that do not work yet.

    @return: the path of each, and what to say of it.
    """
    for pattern, works in SUPPORTED.items():
        for path, value in _find(document, tuple(pattern.split("."))):
            if not works(value):
                yield path, "not supported yet"


def _find(
    value: object, pattern: tuple[str, ...], path: tuple[str | int, ...] = ()
) -> Iterator[tuple[tuple[str | int, ...], object]]:
    if not pattern:
        yield path, value
        return
    wanted, rest = pattern[0], pattern[1:]
    if wanted == "[]":
        members = list(enumerate(value)) if isinstance(value, list) else []
        for index, member in members:
            yield from _find(member, rest, (*path, index))
    elif isinstance(value, dict):
        for name, member in value.items():
            if wanted in ("*", name):
                yield from _find(member, rest, (*path, name))
