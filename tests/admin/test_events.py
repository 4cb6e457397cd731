"""Tests of the events that the admin API tells."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import jwt
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from dynbalance.admin import feed as feed_module
from dynbalance.admin.answers import Refused
from dynbalance.admin.feed import Feed
from dynbalance.admin.guard import Guard, Knowledge
from dynbalance.admin.rates import LOOKS
from dynbalance.admin.scene import Scene
from dynbalance.admin.tokens import LEEWAY, SignedTokens
from dynbalance.admin.trail import NO_TRAIL
from dynbalance.balancer.balancer import UpstreamOrder
from dynbalance.config import JwtConfig
from dynbalance.jwtkeys import key_of
from dynbalance.store.changes import Update
from tests.admin.sitecase import SiteCase
from tests.admin.test_history import A, ChangingCase
from tests.health.stores import order

clock: Any = reactor


class Ear:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.text = b""
        self.ended = False
        self.on_end: Callable[[], None] = lambda: None

    def tell(self, text: bytes) -> None:
        self.text += text

    def end(self) -> None:
        self.ended = True
        self.on_end()

    def heard(self, *names: str) -> list[Any]:
        """
        The events since the last call: their names and data.

        @param names: of those that matter; all if none is given.
        """
        text, self.text = self.text, b""
        return [
            (each["event"], json.loads(each["data"]))
            for each in parse(text)
            if not names or each["event"] in names
        ]


def parse(text: bytes) -> list[dict[str, str]]:
    """The events of a text as their fields."""
    blocks = text.decode("ascii").split("\n\n")
    lines = [block.split("\n") for block in blocks if "event: " in block]
    return [dict(line.split(": ", 1) for line in each) for each in lines]


class FeedTests(ChangingCase):
    """What is told to whom."""

    def setUp(self) -> None:
        super().setUp()
        scene = Scene(self.balancer, self.store, self.membership)
        self.feed = Feed(scene, self.clock)
        self.addCleanup(self.feed.stop)

    def listen(
        self, last: str = "", upstream: str = "default", lasts: float | None = None
    ) -> Ear:
        ear = Ear()
        stream = self.feed.open(self.balancer.upstream(upstream), last, lasts)
        ear.on_end = lambda: stream.detach(ear)
        stream.attach(ear)
        return ear

    def look(self, times: int = 1) -> None:
        self.clock.pump([0.5] * times)

    def test_hello(self) -> None:
        """Who comes hears how things are; and how long to wait before coming again."""
        self.order_of()
        ear = self.listen()
        self.assertTrue(ear.text.startswith(b"retry: 2000\n\n"))
        ((name, data),) = ear.heard()
        self.assertEqual(name, "hello")
        self.assertEqual(
            data,
            {
                "upstream": "default",
                "policy": "least_conn",
                "revision": 1,
                "store": "ok",
                "states": {A: {"state": "up"}},
            },
        )

    def test_changes(self) -> None:
        """Orders are told with who and what, and the states that follow from them."""
        ear = self.listen()
        other = self.listen(upstream="api")
        ear.heard()
        other.heard()
        self.order_of(weight=3)
        self.look()
        (kind, line), (_, state) = ear.heard("change", "state")
        self.assertEqual((kind, line["action"], line["by"]), ("change", "add", "192.0.2.7"))
        self.assertEqual(line["after"]["weight"], 3)
        self.assertEqual(state, {"server": A, "state": "up"})
        self.change("toggle", action="disable")
        self.change("remove")
        self.look()
        news = ear.heard("change", "state")
        self.assertEqual(
            [data.get("action") or data.get("state") for _, data in news],
            ["disable", "remove", "removed"],
        )
        self.look()
        self.assertEqual(ear.heard("change", "state"), [])
        self.assertEqual(other.heard("change", "state"), [])

    def test_observed(self) -> None:
        """What this node alone sees is told, too, with the reason."""
        self.order_of()
        self.order_of("10.0.0.2")
        ear = self.listen()
        ear.heard()
        server = self.upstream.server(A)
        assert server is not None
        self.upstream.failed(server)
        self.look()
        ((_, state),) = ear.heard("state")
        self.assertEqual((state["was"], state["state"]), ("up", "failed"))
        self.assertIn("max_fails", state["why"])

    def test_resume(self) -> None:
        """Who comes back and says where it was hears what it has missed, once."""
        ear = self.listen()
        self.order_of()
        self.look()
        last = next(each for each in parse(ear.text) if each["event"] == "change")
        for weight in (2, 3):
            self.change("update", weight=weight)
        self.look()
        again = self.listen(last["id"])
        events = parse(again.text)
        self.assertEqual([each["event"] for each in events], ["change", "change", "hello"])
        told = [json.loads(each["data"])["after"]["weight"] for each in events[:2]]
        self.assertEqual(told, [2, 3])
        self.assertEqual(events[1]["id"], events[2]["id"])
        again.heard()
        self.look()
        self.assertEqual(again.heard("change"), [])

    def test_order_of_greeting(self) -> None:
        """Who is still being told what it has missed is told nothing else before."""
        self.order_of()
        position = self.told()[0]["id"]
        self.listen()
        self.change("update", weight=2)
        self.look()
        self.store.slow = True
        late = self.listen(position)
        self.feed._watches["default"].tell(b": somebody else\n\n")
        self.assertEqual(late.text, b"")
        self.store.slow = False
        self.store.let_go()
        self.assertEqual([name for name, _ in late.heard()], ["change", "hello"])

    def test_resume_alone(self) -> None:
        """Also when nobody listened meanwhile."""
        self.order_of()
        position = self.told()[0]["id"]
        for weight in (2, 3):
            self.change("update", weight=weight)
        ear = self.listen(position)
        self.look()
        self.assertEqual(len(ear.heard("change")), 2)

    def test_too_late(self) -> None:
        """Who has missed what is not kept is told to begin anew."""
        self.order_of()
        self.clock.advance(1)
        for weight in range(10_001):
            update = Update(weight=weight % 7 + 1)
            self.successResultOf(self.store.inner.update("default", A, update, "x"))
        ear = self.listen("1-0")
        self.assertEqual([name for name, _ in ear.heard()], ["reset", "hello"])
        self.patch(feed_module, "_MISSED", 600)
        newest = self.told("history?limit=1000")[-1]["id"]
        ear = self.listen(newest)
        self.assertEqual([name for name, _ in ear.heard()], ["reset", "hello"])
        ear = self.listen("99999999999-0")
        self.assertEqual([name for name, _ in ear.heard()], ["reset", "hello"])

    def test_many_lines(self) -> None:
        """More lines than are read at once are all told."""
        self.order_of()
        ear = self.listen()
        for weight in range(1201):
            update = Update(weight=weight % 7 + 2)
            self.successResultOf(self.store.inner.update("default", A, update, "x"))
        self.look(2)
        self.assertEqual(len(ear.heard("change")), 1201)

    def test_figures(self) -> None:
        """Once a second each server's figures are told, as a second's."""
        self.order_of()
        ear = self.listen()
        self.look(2)
        server = self.upstream.server(A)
        assert server is not None
        ear.heard()
        server.responses[2] += 30
        server.responses[5] += 4
        server.failures += 2
        server.bytes_out += 5000
        self.look(1)
        self.assertEqual(ear.heard("figures"), [])
        self.look(1)
        ((_, data),) = ear.heard("figures")
        figures = data["servers"][A]
        self.assertEqual((figures["requests"], figures["errors"]), (34, 6))
        self.assertEqual((figures["bytes_out"], figures["bytes_in"]), (5000, 0))
        self.look(2)
        ((_, data),) = ear.heard("figures")
        self.assertEqual(data["servers"][A]["requests"], 0)

    def test_latency(self) -> None:
        """How long answers took is told of the last looks, for each server and together."""
        self.order_of()
        ear = self.listen()
        self.look(2)
        ear.heard()
        server = self.upstream.server(A)
        assert server is not None
        for seconds in (0.002, 0.002, 0.002, 0.9):
            server.times.note(seconds)
        for _ in range(LOOKS):
            self.look(2)
            ((_, data),) = ear.heard("figures")
            told = data["servers"][A]["latency"]
            self.assertApproximates(0.002, told["p50"], 0.001)
            self.assertApproximates(0.9, told["p99"], 0.2)
            self.assertEqual(told, data["latency"])
        self.look(2)
        ((_, data),) = ear.heard("figures")
        self.assertEqual(({}, {}), (data["latency"], data["servers"][A]["latency"]))

    def test_latency_of_a_new_server(self) -> None:
        """A server that came meanwhile is told of as soon as it answers."""
        ear = self.listen()
        self.look(2)
        self.order_of()
        self.look(2)
        ear.heard()
        server = self.upstream.server(A)
        assert server is not None
        server.times.note(0.002)
        self.look(2)
        ((_, data),) = ear.heard("figures")
        self.assertIn("p99", data["servers"][A]["latency"])

    def test_counted_anew(self) -> None:
        """A worker that counts from 0 again has not done less than nothing."""
        self.order_of()
        server = self.upstream.server(A)
        assert server is not None
        server.picks = 90
        ear = self.listen()
        self.look(2)
        ear.heard()
        server.picks = 3
        self.look(2)
        ((_, data),) = ear.heard("figures")
        self.assertEqual(data["servers"][A]["picks"], 0)

    def test_store(self) -> None:
        """The store's going and coming are told; what happened meanwhile, afterwards."""
        self.order_of()
        ear = self.listen()
        ear.heard()
        self.store.lose()
        self.look(2)
        self.assertEqual(ear.heard("store"), [("store", {"store": "away"})])
        late = self.listen("1-0")
        self.assertEqual([name for name, _ in late.heard()], ["reset", "hello"])
        self.successResultOf(self.store.inner.update("default", A, Update(weight=4), "x"))
        self.store.find()
        self.look(2)
        self.assertEqual(
            [name for name, _ in ear.heard("store", "change")], ["change", "store"]
        )
        self.assertEqual([name for name, _ in late.heard("change")], ["change"])

    def test_begun_without_a_store(self) -> None:
        """Who came while the store was away hears of changes when it is back."""
        self.store.lose()
        self.look(2)
        ear = self.listen()
        ((_, hello),) = ear.heard()
        self.assertEqual(hello["store"], "away")
        self.store.find()
        self.look(3)
        self.assertEqual(ear.heard("reset"), [("reset", {"upstream": "default"})])
        self.order_of()
        self.look(3)
        self.assertEqual([name for name, _ in ear.heard("change")], ["change"])

    def test_silence(self) -> None:
        """A comment every 15 seconds shows that somebody is there."""
        ear = self.listen()
        self.look(60)
        self.assertEqual(ear.text.count(b"\n: \n\n"), 2)

    def test_nobody(self) -> None:
        """While nobody listens nothing is looked at."""
        stream = self.feed.open(self.upstream, "", None)
        ear = Ear()
        stream.attach(ear)
        self.assertEqual(self.feed.listening, 1)
        stream.detach(ear)
        stream.detach(ear)
        self.assertEqual(self.feed.listening, 0)
        self.store.calls.clear()
        self.order_of()
        self.look(4)
        self.assertNotIn("news", self.store.calls)

    def test_too_many(self) -> None:
        """There is an end to how many may listen."""
        for _ in range(feed_module.LISTENERS):
            self.listen()
        refused = self.assertRaises(Refused, self.feed.open, self.upstream, "", None)
        self.assertEqual(refused.status, 503)

    def test_stop(self) -> None:
        """At the end everybody is let go."""
        ears = [self.listen(), self.listen(upstream="api")]
        self.feed.stop()
        self.assertEqual([ear.ended for ear in ears], [True, True])

    def test_expires(self) -> None:
        """Who was let in by what expires hears until then, and others go on."""
        brief, other = self.listen(lasts=70.0), self.listen()
        forever = self.listen(lasts=1e300)
        self.look(139)
        self.assertFalse(brief.ended)
        self.look(1)
        self.assertEqual([True, False, False], [ear.ended for ear in (brief, other, forever)])
        self.assertEqual(2, self.feed.listening)
        self.assertLessEqual(
            max(call.getTime() for call in self.clock.getDelayedCalls()),
            feed_module.LONGEST + self.clock.seconds(),
        )
        # Whoever leaves before leaves nothing behind.
        before = len(self.clock.getDelayedCalls())
        self.listen(lasts=70.0).end()
        self.assertEqual(before, len(self.clock.getDelayedCalls()))

    def test_reload(self) -> None:
        """Who listens to an upstream that a reload takes away is let go."""
        ears = [self.listen(), self.listen(upstream="api")]
        order = UpstreamOrder(name="default")
        self.balancer.follow([order], {})
        self.look()
        self.assertEqual([ear.ended for ear in ears], [False, True])
        self.assertEqual(self.feed.listening, 1)

    def test_mounted(self) -> None:
        """Where an answer has to have an end, there are no events."""
        self.refused(self.get("events"), 406, "Events are told on the admin listener only")


class _Client(Protocol):
    """Remembers what it gets."""

    def __init__(self) -> None:
        self.data = b""
        self.over: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: Failure) -> None:
        self.over.callback(None)


class EventsSiteTests(SiteCase):
    """Events over HTTP."""

    async def connect(self, more: str = "", query: str = "") -> _Client:
        client = _Client()
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self.listening)
        await connectProtocol(endpoint, client)
        assert client.transport is not None
        self.addCleanup(client.transport.abortConnection)  # type: ignore[attr-defined]
        request = f"GET /upstream/events{query} HTTP/1.1\r\nHost: localhost\r\n{more}\r\n"
        client.transport.write(request.encode())
        return client

    async def until(self, client: _Client, what: bytes) -> None:
        for _ in range(500):
            if what in client.data:
                return
            await deferLater(clock, 0.02)
        self.fail(f"{what!r} is not in {client.data!r}")

    async def test_stream(self) -> None:
        """A change reaches every client soon; the answer has the right type."""
        clients = [await self.connect() for _ in range(5)]
        for client in clients:
            await self.until(client, b"event: hello\n")
            self.assertIn(b"Content-Type: text/event-stream; charset=utf-8\r\n", client.data)
            self.assertIn(b"X-Accel-Buffering: no\r\n", client.data)
        await self.store.inner.add("default", order(9000), "ann")
        for client in clients:
            await self.until(client, b'"action":"add"')
            await self.until(client, b"event: figures\n")

    async def test_resume(self) -> None:
        """Last-Event-ID is understood, and refused if it is none."""
        await self.store.inner.add("default", order(9000), "ann")
        (line,) = (await self.store.inner.history("default", 1)).lines
        await self.store.inner.update("default", order(9000).address, Update(weight=3), "bob")
        client = await self.connect(f"Last-Event-ID: {line.id}\r\n")
        await self.until(client, b'"by":"bob"')
        wrong = await self.connect("Last-Event-ID: 7\r\n")
        await self.until(wrong, b"Invalid Last-Event-ID")

    async def test_expires(self) -> None:
        """A signed token opens events until it expires; then the answer ends in order."""
        config = JwtConfig(key="s" * 32)
        now = 1_000_000.0
        signed = SignedTokens(config, (key_of(config.key, config.algorithms),), lambda: now)
        guard = Guard(Knowledge(signed=signed))
        self.site.follow(self.operations, self.pages, guard, NO_TRAIL)
        claims = {"sub": "ann", "role": "read", "exp": now - LEEWAY + 0.5}
        token = jwt.encode(claims, config.key, "HS256")
        client = await self.connect(f"Authorization: Bearer {token}\r\n")
        await self.until(client, b"event: hello\n")
        await self.until(client, b"\r\n0\r\n\r\n")
        self.assertEqual(0, self.site._feed.listening)

    async def test_head(self) -> None:
        """HEAD gets the head."""
        printed = await self.curl("-I", f"{self.url}/upstream/events")
        self.assertIn("text/event-stream", printed)

    async def test_slow(self) -> None:
        """A client that takes nothing is dropped; the others hear on."""
        slow, quick = await self.connect(), await self.connect()
        await self.until(slow, b"event: hello\n")
        await self.until(quick, b"event: hello\n")
        slow.transport.pauseProducing()  # type: ignore[union-attr]
        feed = self.site._feed
        self.assertEqual(feed.listening, 2)
        for _ in range(400):
            if feed.listening == 1:
                break
            feed._watches["default"].tell(b": %b\n\n" % (b"x" * 100_000))
            await deferLater(clock, 0.005)
        self.assertEqual(feed.listening, 1)
        feed._watches["default"].tell(b": the end\n\n")
        await self.until(quick, b": the end\n\n")

    async def test_gone(self) -> None:
        """A client that leaves is forgotten."""
        client = await self.connect()
        await self.until(client, b"event: hello\n")
        client.transport.loseConnection()  # type: ignore[union-attr]
        await client.over
        for _ in range(100):
            if not self.site._feed.listening:
                return
            await deferLater(clock, 0.02)
        self.fail("it is still there")

    async def test_end(self) -> None:
        """When the listener closes, the answers end in order."""
        client = await self.connect()
        await self.until(client, b"event: hello\n")
        await self.port.stopListening()
        await self.until(client, b"\r\n0\r\n\r\n")
