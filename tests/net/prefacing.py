"""
What is made of a PROXY header that comes in pieces.
"""

from __future__ import annotations

from dynbalance.net.proxyprotocol import BrokenHeader, PrefaceReader


def outcome(pieces: list[bytes]) -> object:
    """
    What a reader makes of C{pieces}: C{None} while it waits, the words of its
    refusal, or whom it read of, and what is behind.
    """
    reader = PrefaceReader()
    for number, piece in enumerate(pieces):
        try:
            preface = reader.feed(piece)
        except BrokenHeader as broken:
            return str(broken)
        if preface is not None:
            rest = preface.rest + b"".join(pieces[number + 1 :])
            return (preface.source, preface.destination, rest)
    return None
