"""
HTTP/2 from clients that say anything at all.
"""

from __future__ import annotations

from hpack import Encoder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dynbalance.http.http2frames import PREFACE
from tests.http.h2client import Http2TestCase, Http2World
from tests.http.world import OK

_FIELDS = (
    [(":method", "GET"), (":path", "/"), (":scheme", "https"), (":authority", "a")],
    [(":method", "POST"), (":path", "/"), (":scheme", "https"), (":authority", "a")],
    [(":method", "POST"), (":path", "/"), (":scheme", "https"), ("content-length", "3")],
    [(":method", "CONNECT"), (":authority", "a")],
    [(":path", "/")],
    [("x-trailer", "1")],
    [],
)
_BLOCKS = [Encoder().encode(fields) for fields in _FIELDS]

_payloads = st.one_of(
    st.sampled_from(_BLOCKS),
    st.sampled_from([b"", b"\0\0\0\1", b"\0" * 8, b"\0\4\0\0\0\1", b"abc"]),
    st.binary(max_size=40),
)
_frames = st.builds(
    lambda kind, flags, stream, payload: (
        len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload
    ),
    st.integers(0, 11),
    st.sampled_from([0, 1, 4, 5, 8, 0x20, 0x25, 0xFF]),
    st.sampled_from([0, 1, 1, 1, 3, 3, 5, 2, 2**31 - 1]),
    _payloads,
)
_good = st.builds(
    lambda block, flags, stream: (
        len(block).to_bytes(3, "big") + bytes([1, flags]) + stream.to_bytes(4, "big") + block
    ),
    st.sampled_from(_BLOCKS[:3]),
    st.sampled_from([4, 5]),
    st.sampled_from([1, 3, 5, 7]),
)
_words = st.lists(st.one_of(_good, _good, _frames, st.binary(max_size=30)), max_size=12)
_LONGER = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx"
_answers = st.lists(
    st.sampled_from([OK, _LONGER, b"nonsense\r\n\r\n", b""]),
    min_size=1,
    max_size=4,
)


class AnythingTests(Http2TestCase):
    """Whatever is said, nothing is left of it and nobody else is disturbed."""

    @settings(
        max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    @given(_words, _answers, st.integers(1, 60))
    def test_anything(self, words: list[bytes], answers: list[bytes], size: int) -> None:
        """Frames in any order, in any pieces, to servers that may be rude themselves."""
        world = Http2World()
        self._worlds.append(world)
        client = world.client()
        data = PREFACE + b"\0\0\0\4\0\0\0\0\0" + b"".join(words)
        for at in range(0, len(data), size * 8):
            client.send(data[at : at + size * 8])
        for answer in answers:
            if not world.backends[0].waiting():
                break
            server = world.backends[0].accept()
            if answer:
                server.send(answer)
            else:
                server.cut()
        good = world.h2()
        stream = good.ask()
        for _ in range(6):
            if stream in good.look().ended:
                break
            for wire in world.wires:
                if wire is not client and wire is not good.wire and not wire.over:
                    wire.send(OK)
            while world.backends[0].waiting():
                world.backends[0].accept().send(OK)
        self.assertIn(good.status(stream), ("200", "502"))
        client.close()
        world.close()
        self.assert_nothing_left(world)
        self._worlds.remove(world)
        world.hub.close()
        world.backends[0].socket.close()
