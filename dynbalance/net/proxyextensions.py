"""
What may follow the addresses in a PROXY header of version 2: its extensions
(haproxy's proxy-protocol.txt, section 2.2).

Knows where each of them ends, and the checksum that one of them may hold;
refuses to know what the others say.
"""

from __future__ import annotations

import struct

_HEAD = 3
_CRC32C = 0x03
_CRC_SIZE = 4
_POLYNOMIAL = 0x82F63B78
_ALL = 0xFFFFFFFF


def fault_of(header: bytes, at: int) -> str:
    """
    @param header: a whole one.
    @param at: where its extensions begin.
    @return: why nobody should believe the header; empty if nothing is wrong.
    """
    checksum = 0
    while at < len(header):
        if len(header) - at < _HEAD:
            return "it ends within an extension"
        kind, length = struct.unpack_from("!BH", header, at)
        value = at + _HEAD
        at = value + length
        if at > len(header):
            return "an extension is longer than the header"
        if kind != _CRC32C:
            continue
        if checksum or length != _CRC_SIZE:
            return "it does not have one checksum of four bytes"
        checksum = value
    if checksum and not _is_right(header, checksum):
        return "its checksum is wrong"
    return ""


def _is_right(header: bytes, at: int) -> bool:
    """Section 2.2.3: it is that of the header with nothing in its place."""
    after = at + _CRC_SIZE
    blank = header[:at] + bytes(_CRC_SIZE) + header[after:]
    return crc32c(blank) == int.from_bytes(header[at:after], "big")


def crc32c(data: bytes) -> int:
    """The Castagnoli CRC of RFC 4960, appendix B."""
    rest = _ALL
    for byte in data:
        rest = _TABLE[(rest ^ byte) & 0xFF] ^ (rest >> 8)
    return rest ^ _ALL


def _entry(rest: int) -> int:
    for _ in range(8):
        rest = (rest >> 1) ^ (_POLYNOMIAL if rest & 1 else 0)
    return rest


_TABLE = tuple(map(_entry, range(256)))
