"""
ClientHellos that want to be led elsewhere.
"""

from __future__ import annotations

import re
import socket

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from dynbalance.net.clienthello import MAX_HELLO, NotTls, read_hello
from dynbalance.net.deadlines import Deadlines
from dynbalance.net.hellopeek import HelloPeek
from tests.fuzz.targets import name_by_openssl
from tests.hostile.notation import bytes_of
from tests.hostile.openings import HELLOS, HelloCase
from tests.net.building import NetCase
from tests.net.pump import Peer


def outcome(data: bytes) -> str | None:
    """@return: the name; C{None} while more is needed; behind a C{!} why it is no hello."""
    try:
        hello = read_hello(data[:MAX_HELLO])
    except NotTls as failed:
        return f"!{failed}"
    return None if hello is None else hello.server_name


def verdict(case: HelloCase, found: str | None) -> str:
    """@return: what is wrong with C{found}; empty for nothing."""
    if case.waits:
        fits = found is None
    elif case.broken:
        fits = found is not None and bool(re.match(f"!.*{case.broken}", found))
    else:
        fits = found == case.server_name
    return "" if fits else f"{found!r} is found"


class HelloCorpusTests(SynchronousTestCase):
    """Each asks for the server that it should, or for none."""

    def test_corpus(self) -> None:
        """Every part of it waits or says what the whole says."""
        wrong: list[str] = []
        for case in HELLOS:
            whole = outcome(case.sent)
            if fault := verdict(case, whole):
                wrong.append(f"{case.name}: {fault}")
            step = max(1, len(case.sent) // 400)
            for end in range(0, len(case.sent), step):
                part = outcome(case.sent[:end])
                if part not in (None, whole):
                    wrong.append(f"{case.name}, {end} bytes: {part!r}, not {whole!r}")
        self.assertEqual([], wrong, "\n".join(wrong))

    def test_openssl(self) -> None:
        """OpenSSL finds the same name, wherever it finds one."""
        found = 0
        for case in HELLOS:
            if case.broken or case.waits:
                continue
            theirs = name_by_openssl(case.sent)
            if theirs is not None:
                found += 1
                self.assertEqual(theirs, case.server_name, case.name)
        # Else the comparison says nothing.
        self.assertGreater(found, 9)

    def test_names(self) -> None:
        """Each case has a name of its own, a source and a reason."""
        self.assertEqual(len(HELLOS), len({case.name for case in HELLOS}))
        for case in HELLOS:
            self.assertRegex(case.rfc, r"\A\d{4} [\dE][\d.]*\Z")
            self.assertTrue(case.why)

    def test_judge(self) -> None:
        """The judge of these tests sees another name and another verdict."""
        good = next(case for case in HELLOS if case.name == "a name")
        found = outcome(good.sent)
        self.assertEqual(verdict(good, found), "")
        for other in (
            evolve(good, server_name="b.example"),
            evolve(good, broken="no name"),
            evolve(good, waits=True),
        ):
            self.assertNotEqual(verdict(other, found), "")


class PeekCorpusTests(NetCase):
    """The same in sockets, where every byte is left."""

    def setUp(self) -> None:
        super().setUp()
        self.deadlines = Deadlines(self.pump)
        self.told: list[str | None] = []

    def asked_for(self, server_name: str) -> None:
        self.told.append(server_name)

    def said_nothing(self) -> None:
        self.told.append(None)

    def play(self, server: socket.socket, case: HelloCase) -> None:
        """One case, in two parts."""
        self.told.clear()
        peer = Peer(self.pump, socket.create_connection(server.getsockname()))
        ours = server.accept()[0]
        ours.setblocking(False)
        self.closing += [peer, ours]
        HelloPeek(self.hub, self.deadlines, ours, self).start()
        half = len(case.sent) // 2
        peer.send(case.sent[:half])
        self.pump.turn()
        peer.send(case.sent[half:])
        if case.waits:
            self.pump.settle()
            self.assertEqual([], self.told, case.name)
            peer.end()
        self.pump.until(lambda: self.told)
        self.assertEqual([case.server_name], self.told, case.name)
        left = b""
        while len(left) < len(case.sent):
            left += ours.recv(65536)
        self.assertEqual(case.sent, left, case.name)

    def test_corpus(self) -> None:
        """Whoever comes next finds what the client sent, to the byte."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            for case in HELLOS:
                self.play(server, case)
        self.assertEqual(repr(self.deadlines), "<Deadlines 0 watched>")


class NotationTests(SynchronousTestCase):
    """What the files' notation says."""

    def test_bytes(self) -> None:
        """Each form of it stands for its bytes."""
        words = {"AB": "'ab' 00", "TWICE": "$AB $AB"}
        for notation, data in (
            ("", b""),
            ("16 0301", b"\x16\x03\x01"),
            ("160301", b"\x16\x03\x01"),
            ("'a b' 20 '>'", b"a b >"),
            ("<2 'abc'>", b"\0\3abc"),
            ("<1 <2 >>", b"\2\0\0"),
            ("<2+7 'abc'>", b"\0\x0aabc"),
            ("<1-1 'abc'>", b"\2abc"),
            ("0102*3", b"\1\2\2\2"),
            ("'ab'*2", b"abab"),
            ("(01 <1 'x'>)*2 03", b"\1\1x\1\1x\3"),
            ("<1 >*2", b"\0\0"),
            ("$TWICE", b"ab\0ab\0"),
        ):
            self.assertEqual(bytes_of(notation, words), data, notation)

    def test_nonsense(self) -> None:
        """What stands for nothing is an error, lest a case says less than it seems to."""
        for notation in ("1", "<2 00", "00>", "(00>", "<2 00)", "xyz", "'a", "? 00"):
            with self.assertRaises((ValueError, IndexError)):
                bytes_of(notation, {})
