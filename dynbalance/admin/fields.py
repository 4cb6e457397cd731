"""
The fields of a request to the API, whatever form they came in.

Form fields, query fields and JSON members all become plain text by name here,
each once; what a text means is said in L{dynbalance.admin.parameters}.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from urllib.parse import parse_qsl

from dynbalance.admin.answers import Refused

SEPARATOR = "\n"
"""Between the texts of a name that came several times."""

_MOST = 100
"""More fields than this are nobody's honest request."""


def gather(
    query: bytes,
    body: bytes,
    content_type: bytes | None,
    structured: Collection[str] = (),
    repeatable: Collection[str] = (),
) -> dict[str, str]:
    """
    @param content_type: what C{body} says it is; C{None} means a form.
    @param structured: the names whose values may be JSON of any shape; their
        text is that JSON.
    @param repeatable: the names that may come several times; their texts are
        joined by L{SEPARATOR}.
    @return: name -> text.
    @raise Refused: for what cannot be read, and for a name that comes twice.
    """
    pairs = _form(query, "query")
    if body:
        kind = (content_type or b"").partition(b";")[0].strip().lower()
        if kind == b"application/json":
            pairs += _json(body, structured)
        elif kind in (b"", b"application/x-www-form-urlencoded"):
            pairs += _form(body, "request body")
        else:
            name = kind.decode("ascii", "backslashreplace")
            raise Refused(415, f"Unsupported content type: {brief(name)}")
    return _once(pairs, repeatable)


def brief(text: str) -> str:
    """A stranger's text, short enough to be quoted back."""
    return text if len(text) <= 100 else f"{text[:100]}..."


def _once(pairs: Iterable[tuple[str, str]], repeatable: Collection[str]) -> dict[str, str]:
    fields: dict[str, str] = {}
    for name, text in pairs:
        if name not in fields:
            fields[name] = text
        elif name in repeatable:
            fields[name] += SEPARATOR + text
        else:
            raise Refused(400, f"Repeated parameter: {brief(name)}")
    return fields


def _form(raw: bytes, what: str) -> list[tuple[str, str]]:
    try:
        return parse_qsl(
            raw.decode("utf-8"), keep_blank_values=True, errors="strict", max_num_fields=_MOST
        )
    except ValueError:
        raise Refused(400, f"Failed to parse {what}") from None


def _json(raw: bytes, structured: Collection[str]) -> list[tuple[str, str]]:
    """
    Numbers keep the digits they were written with, so that 8080.0 and 1e3 are
    judged by the same rule as in a form; null is the same as left out.
    """
    try:
        document = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_Members,
            parse_int=str,
            parse_float=str,
            parse_constant=str,
        )
        if not isinstance(document, _Members):
            raise Refused(400, "Failed to parse request body: not a JSON object")
        shaped = {name for name, value in document if isinstance(value, list)} & set(structured)
        # Numbers inside of a value of any shape are numbers, if Python can make them that.
        plain = json.loads(raw) if shaped else {}
    except (ValueError, RecursionError):
        raise Refused(400, "Failed to parse request body") from None
    if len(document) > _MOST:
        raise Refused(400, "Failed to parse request body")
    return [
        (name, json.dumps(plain[name]) if name in shaped else _text(name, value))
        for name, value in document
        if value is not None
    ]


class _Members(list[tuple[str, object]]):
    """A JSON object as it was written: a name that comes twice is still seen."""


def _text(name: str, value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value
    raise Refused(400, f"Invalid {brief(name)}: neither text nor number")
