"""
The two corpora of what connections begin with, as values: PROXY headers and
ClientHellos.
"""

from __future__ import annotations

from typing import Any

from attrs import frozen

from tests.hostile.corpus import document
from tests.hostile.notation import bytes_of


def _sent(table: dict[str, Any], words: dict[str, str]) -> bytes:
    if "bytes" in table:
        return bytes_of(table.pop("bytes"), words)
    repeated, times = table.pop("repeat", ["", 0])
    text: str = table.pop("sent")
    return text.replace("REPEAT", repeated * times).encode("latin-1")


@frozen(kw_only=True)
class PrefaceCase:
    """
    What comes where a PROXY header is due.

    @ivar section: of proxy-protocol.txt.
    @ivar why: what is said there.
    @ivar source: whom it names; C{None} for nobody, or nobody with a port.
    @ivar path: the unix socket that it names.
    @ivar broken: a pattern of why the connection is closed.
    @ivar waits: whether more has to come.
    @ivar own: what C{sent} holds of the connection's own bytes.
    """

    name: str
    section: str
    why: str
    sent: bytes
    source: tuple[str, int] | None = None
    path: bytes | None = None
    broken: str = ""
    waits: bool = False
    own: bytes = b""

    @classmethod
    def of(cls, table: dict[str, Any], words: dict[str, str]) -> PrefaceCase:
        said = {"source", "path", "broken", "waits"} & table.keys()
        assert len(said) == 1, table
        source = table.pop("source", None)
        path = table.pop("path", None)
        return cls(
            sent=_sent(table, words),
            source=tuple(source) if source else None,
            path=None if path is None else path.encode(),
            own=table.pop("own", "").encode(),
            **table,
        )

    @property
    def is_read(self) -> bool:
        """Whether a connection begins behind it."""
        return not self.broken and not self.waits


@frozen(kw_only=True)
class HelloCase:
    """
    What comes where a ClientHello is looked for.

    @ivar rfc: number and section.
    @ivar why: what is said there.
    @ivar server_name: that it asks for; empty for none.
    @ivar broken: a pattern of why it is none.
    @ivar waits: whether more has to come.
    """

    name: str
    rfc: str
    why: str
    sent: bytes
    server_name: str = ""
    broken: str = ""
    waits: bool = False

    @classmethod
    def of(cls, table: dict[str, Any], words: dict[str, str]) -> HelloCase:
        said = {"server_name", "broken", "waits"} & table.keys()
        assert len(said) == 1, table
        if "message" in table:
            message = bytes_of(table.pop("message"), words)
            size = table.pop("record", 16384)
            pieces = [message[at : at + size] for at in range(0, len(message), size)]
            sent = b"".join(b"\x16\x03\x01%s%s" % (len(p).to_bytes(2, "big"), p) for p in pieces)
        else:
            sent = _sent(table, words)
        return cls(sent=sent, **table)


def _cases(name: str, of: Any) -> tuple[Any, ...]:
    read = document(name)
    return tuple(of(table, read["words"]) for table in read["case"])


PREFACES: tuple[PrefaceCase, ...] = _cases("prefaces.toml", PrefaceCase.of)
HELLOS: tuple[HelloCase, ...] = _cases("hellos.toml", HelloCase.of)
