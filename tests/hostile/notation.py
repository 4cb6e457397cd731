"""
Bytes with lengths in them, as a file can say them.

=============== ==============================================================
C{16 0301}      bytes in hexadecimal
C{'a.example'}  the characters' bytes
C{<2 ...>}      what is within, behind its length in two bytes
C{<2+7 ...>}    the same with a lie: seven more than there are; C{<2-7 ...>}
C{( ... )}      together
C{00*32}        what stands before it, so many times: a byte, text or group
C{$NAME}        what the file says that it stands for
=============== ==============================================================
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_TOKEN = re.compile(
    r"\s*(?:(?P<hex>(?:[0-9A-Fa-f]{2})+)|'(?P<text>[^']*)'|<(?P<size>\d)(?P<lie>[+-]\d+)?"
    r"|(?P<close>[>)])|(?P<group>\()|\*(?P<times>\d+)|\$(?P<name>[A-Z0-9_]+))"
)


def bytes_of(notation: str, words: Mapping[str, str]) -> bytes:
    """
    @param words: what the names stand for.
    @raise ValueError: it says nothing.
    """
    stack: list[tuple[str, int, int, list[bytes]]] = []
    items: list[bytes] = []
    at = 0
    notation = notation.strip()
    while at < len(notation):
        token = _TOKEN.match(notation, at)
        if token is None:
            raise ValueError(f"{notation[at:][:20]!r} says nothing")
        at = token.end()
        if token["hex"]:
            data = bytes.fromhex(token["hex"])
            items += [data[each : each + 1] for each in range(len(data))]
        elif token["text"] is not None:
            items.append(token["text"].encode("latin-1"))
        elif token["name"]:
            items.append(bytes_of(words[token["name"]], words))
        elif token["times"]:
            items[-1] *= int(token["times"])
        elif token["close"]:
            due, size, lie, outer = stack.pop()
            if token["close"] != due:
                raise ValueError(f"{token['close']} where {due} is due")
            body = b"".join(items)
            length = (len(body) + lie).to_bytes(size, "big") if size else b""
            items = [*outer, length + body]
        else:
            size = int(token["size"] or 0)
            stack.append((">" if size else ")", size, int(token["lie"] or 0), items))
            items = []
    if stack:
        raise ValueError(f"{stack[-1][0]} is missing")
    return b"".join(items)
