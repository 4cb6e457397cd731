"""
PROXY headers that want to name somebody else.
"""

from __future__ import annotations

import re
import socket
from typing import Any

from attrs import evolve
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.protocol import ServerFactory
from twisted.trial.unittest import SynchronousTestCase

from dynbalance.net.deadlines import Deadlines
from dynbalance.net.prefaced import Prefaced
from dynbalance.net.proxyextensions import crc32c
from dynbalance.net.proxyprotocol import plain_host
from tests.hostile.openings import PREFACES, PrefaceCase
from tests.net.building import NetCase, logged
from tests.net.prefacing import outcome

OWN = b"the connection's own"

FEW = 400
"""Bytes up to which a header is cut at each of them."""


def cuts(data: bytes) -> list[list[bytes]]:
    """Two pieces for every place of a cut (of long ones: fewer), and byte by byte."""
    step = max(1, len(data) // FEW)
    pairs = [[data[:at], data[at:]] for at in range(1, len(data), step)]
    return [*pairs, [data[at : at + step] for at in range(0, len(data), step)]]


def verdict(case: PrefaceCase, found: object) -> str:
    """@return: what is wrong with C{found}; empty for nothing."""
    if case.waits:
        return "" if found is None else f"does not wait: {found}"
    if case.broken:
        fits = isinstance(found, str) and re.search(case.broken, found)
        return "" if fits else f"not {case.broken!r}: {found}"
    if not isinstance(found, tuple):
        return f"is not read: {found}"
    source, destination, rest = found
    if rest != case.own + OWN:
        return f"leaves {rest!r}"
    if (source is None) != (destination is None):
        return "has one end"
    if case.path is not None:
        named = isinstance(source, UNIXAddress) and source.name == case.path
    elif case.source is not None:
        named = (plain_host(source), source.port) == case.source
    else:
        named = source is None
    return "" if named else f"names {source}"


class PrefaceCorpusTests(SynchronousTestCase):
    """Each header names whom it should, or none, however it is cut."""

    def test_corpus(self) -> None:
        """Whole, in two pieces, and byte by byte."""
        wrong: list[str] = []
        for case in PREFACES:
            sent = case.sent + (OWN if case.is_read else b"")
            whole = outcome([sent])
            if fault := verdict(case, whole):
                wrong.append(f"{case.name} {fault}")
            wrong += [
                f"{case.name}, cut: {found}, not {whole}"
                for pieces in cuts(sent)
                if (found := outcome(pieces)) != whole
            ]
        self.assertEqual([], wrong, "\n".join(wrong))

    def test_hopeless(self) -> None:
        """What follows a broken header makes it no better, and a waiting one is not over."""
        for case in PREFACES:
            if case.broken:
                self.assertEqual(outcome([case.sent + b"\r\n" * 9]), outcome([case.sent]))
            if case.waits:
                self.assertEqual(outcome([case.sent, b""]), None)

    def test_names(self) -> None:
        """Each case has a name of its own, a section and a reason."""
        self.assertEqual(len(PREFACES), len({case.name for case in PREFACES}))
        for case in PREFACES:
            self.assertRegex(case.section, r"\A[24](\.\d)+\Z")
            self.assertTrue(case.why)

    def test_judge(self) -> None:
        """The judge of these tests sees another name, another rest and another verdict."""
        good = next(case for case in PREFACES if case.name == "TCP4")
        found = outcome([good.sent + OWN])
        self.assertEqual(verdict(good, found), "")
        for other in (
            evolve(good, source=("192.0.2.2", 56324)),
            evolve(good, source=None),
            evolve(good, own=b"x"),
            evolve(good, path=b"/run/a"),
            evolve(good, broken="two addresses"),
            evolve(good, waits=True),
        ):
            self.assertNotEqual(verdict(other, found), "")

    def test_checksum(self) -> None:
        """CRC32c is that of RFC 3720, appendix B.4."""
        for data, expected in (
            (b"", 0),
            (b"123456789", 0xE3069283),
            (bytes(32), 0x8A9136AA),
            (b"\xff" * 32, 0x62A8AB43),
            (bytes(range(32)), 0x46DD794E),
        ):
            self.assertEqual(crc32c(data), expected)


class _Sockets(ServerFactory):
    """Takes bare sockets, with all that is left in them."""

    noisy = False

    def __init__(self) -> None:
        self.taken: list[tuple[Any, socket.socket]] = []

    def accept_socket(self, skt: socket.socket, peer: Any, port: Any) -> None:
        self.taken.append((peer, skt))


class PrefacedCorpusTests(NetCase):
    """The same before a port: sockets, and what is in them."""

    def setUp(self) -> None:
        super().setUp()
        self.deadlines = Deadlines(self.pump)
        self.sockets = _Sockets()
        self.prefaced = Prefaced(self.sockets, self.hub, self.deadlines, on_broken=self.note)
        self.told: list[str] = []
        self.at = self.listen(self.prefaced)

    def note(self, peer: Any, why: str) -> None:
        self.told.append(why)

    def play(self, case: PrefaceCase) -> object:
        """@return: as L{outcome}."""
        self.told.clear()
        self.sockets.taken.clear()
        peer = self.client(self.at)
        peer.send(case.sent + (OWN if case.is_read else b""))
        if case.waits:
            self.pump.until(lambda: self.prefaced.active)
            self.pump.settle()
            self.assertEqual([], self.told)
            peer.end()
        self.pump.until(lambda: self.told or self.sockets.taken)
        if self.told:
            self.assertEqual([], self.sockets.taken)
            peer.expect_end()
            return self.told[0]
        (host, port, *_), skt = self.sockets.taken[0]
        self.closing.append(skt)
        of = IPv6Address if ":" in host else IPv4Address
        source = None if (host, port) == peer.skt.getsockname() else of("TCP", host, port)
        return (source, source, skt.recv(4096))

    def test_corpus(self) -> None:
        """Who is served is whom the header names, and gets just what is behind it."""
        wrong: list[str] = []
        broken = 0
        with logged() as lines:
            for case in PREFACES:
                # A transport of TCP's comes from no path.
                due = evolve(case, path=None)
                if case.waits:
                    due = evolve(due, waits=False, broken=f"it ends after {len(case.sent)} bytes")
                if fault := verdict(due, self.play(case)):
                    wrong.append(f"{case.name} {fault}")
                broken += bool(due.broken)
        self.assertEqual([], wrong, "\n".join(wrong))
        self.assertEqual(broken, self.prefaced.broken)
        self.assertEqual(broken, sum("broken header from" in line for line in lines))
        self.assertEqual(self.prefaced.active, 0)
        self.assertEqual(repr(self.deadlines), "<Deadlines 0 watched>")
