"""
Which answers are not for the client: C{next_upstream} with each condition, as
nginx has it, and the budget.
"""

from __future__ import annotations

from typing import Any

from dynbalance.balancer.attempts import Cause
from dynbalance.net import dial
from tests.http.world import GET, OK, HttpTestCase, Wire, World, plain, post, sized

STATUSES = (403, 404, 429, 500, 502, 503, 504)
TROUBLE = sized(b"my own words", b"500 Trouble")


def conditions(*more: str) -> dict[str, Any]:
    return {"next_upstream": ("error", "timeout", *more)}


class RetryCase(HttpTestCase):
    """Requests that meet an unwelcome answer first."""

    def meet(self, world: World, answer: bytes, request: bytes = GET) -> tuple[Wire, Wire, bytes]:
        """
        @return: the client's and the first server's wire, and what the client
            has got after the first server's answer.
        """
        client, server, _ = world.request(request)
        server.send(answer)
        return client, server, client.take()

    def assert_retried(self, world: World, answer: bytes, request: bytes = GET) -> None:
        """The client sees nothing of C{answer}, and the other server's instead."""
        client, server, seen = self.meet(world, answer, request)
        self.assertEqual(b"", seen)
        second = world.backends[1].accept()
        self.assertEqual(request, plain(second.take()))
        second.send(OK)
        self.assertEqual(OK, client.take())
        self.assertTrue(server.over, "the connection with the unread answer was kept")

    def assert_passed_on(self, world: World, answer: bytes, request: bytes = GET) -> None:
        """The client gets C{answer} to the byte, and no other server is asked."""
        self.assertEqual(answer, self.meet(world, answer, request)[2])
        self.assertFalse(any(backend.waiting() for backend in world.backends[1:]))


class StatusTests(RetryCase):
    """Answers that the upstream's conditions name."""

    def test_named(self) -> None:
        """An answer with a status that is named is not for the client."""
        for status in STATUSES:
            world = self.world(2, upstream=conditions(f"http_{status}"))
            self.assert_retried(world, sized(b"no", b"%d No" % status))

    def test_not_named(self) -> None:
        """Every other answer is passed on unchanged, whatever else is named."""
        for status in (*STATUSES, 501, 505, 400, 410, 418):
            names = [f"http_{other}" for other in STATUSES if other != status]
            world = self.world(2, upstream=conditions(*names))
            self.assert_passed_on(world, sized(b"no", b"%d No" % status))

    def test_any_framing(self) -> None:
        """It does not matter how much of the answer has come, and how it is framed."""
        for answer in (
            b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 500 No\r\nContent-Length: 1000000\r\n\r\nthe beginning",
            b"HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n",
            b"HTTP/1.1 500 No\r\n\r\nuntil the end",
            b"HTTP/1.1 500 No\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno",
        ):
            self.assert_retried(self.world(2, upstream=conditions("http_500")), answer)

    def test_last_try(self) -> None:
        """When no try is left the server's own answer is passed on, with its body."""
        for settings, backends, down in (
            ({}, 1, 0),
            ({}, 2, 1),
            ({"next_upstream_tries": 1}, 2, 0),
        ):
            upstream = {**conditions("http_500", "http_404"), **settings}
            world = self.world(backends, upstream=upstream, down=down)
            self.assert_passed_on(world, TROUBLE)

    def test_all_answer_so(self) -> None:
        """Each server is asked once; the last one's answer is passed on."""
        world = self.world(3, upstream=conditions("http_500"))
        client, _, seen = self.meet(world, TROUBLE)
        for number, backend in enumerate(world.backends[1:]):
            self.assertEqual(b"", seen)
            backend.accept().send(sized(b"%d" % number, b"500 Trouble"))
            seen = client.take()
        self.assertEqual(sized(b"1", b"500 Trouble"), seen)
        self.assertEqual([1, 1, 1], [server.picks for server in world.servers])

    def test_no_descriptor_left(self) -> None:
        """
        Without a descriptor for a connection the client hears 503, at once; no
        server is blamed and none is asked in vain.
        """
        self.patch(dial, "below_for_traffic", lambda: 0)
        world = self.world(2, upstream={"policy": "ewma"}, max_fails=1)
        client = world.client()
        client.send(GET)
        world.until(lambda: client.take().startswith(b"HTTP/1.1 503 "))
        self.assertEqual(1, sum(server.picks for server in world.servers))
        self.assertEqual([0, 0], [server.failures for server in world.servers])
        self.assertEqual([0, 0], [server.held for server in world.servers])
        self.assertEqual([None, None], [server.timed_at for server in world.servers])

    def test_never_twice(self) -> None:
        """A server that was tried is not asked again, even if the policy would."""
        upstream = {**conditions("http_500"), "policy": "hash", "hash_key": "the same"}
        world = self.world(3, upstream=upstream, max_fails=0)
        client = world.client()
        client.send(GET)
        for _ in range(3):
            [backend] = [each for each in world.backends if each.waiting()]
            backend.accept().send(TROUBLE)
        self.assertEqual(TROUBLE, client.take())
        self.assertEqual([1, 1, 1], [server.picks for server in world.servers])

    def test_nobody_left(self) -> None:
        """
        The tries do not know who has failed before: an answer is discarded for
        a server that cannot be chosen, and the client gets 502, as from nginx.
        """
        world = self.world(2, upstream=conditions("http_500"))
        world.upstream.upstream.failed(world.servers[1])
        _, _, seen = self.meet(world, TROUBLE)
        self.assertIn(b" 502 ", seen)

    def test_too_late(self) -> None:
        """After C{next_upstream_timeout} an answer is passed on."""
        upstream = {**conditions("http_500"), "next_upstream_timeout": 3.0}
        world = self.world(2, upstream=upstream)
        client, server, _ = world.request()
        world.wait(3.5)
        server.send(TROUBLE)
        self.assertEqual(TROUBLE, client.take())

    def test_log(self) -> None:
        """The access log has the discarded answer's status and why it was discarded."""
        world = self.world(2, upstream=conditions("http_500"))
        self.assert_retried(world, TROUBLE)
        [entry] = world.entries()
        first, second = entry["attempts"]
        self.assertEqual((500, "http_500"), (first["status"], first["cause"]))
        self.assertEqual((200, ""), (second["status"], second["cause"]))
        self.assertEqual(200, entry["status"])


class UnsafeTests(RetryCase):
    """Methods whose request must not reach two servers."""

    def test_own_answer(self) -> None:
        """POST, LOCK and PATCH get the server's own answer, not one of ours."""
        for method in (b"POST", b"LOCK", b"PATCH"):
            world = self.world(2, upstream=conditions("http_404", "http_500"))
            request = post(b"body").replace(b"POST", method)
            self.assert_passed_on(world, sized(b"not here", b"404 No"), request)

    def test_allowed(self) -> None:
        """C{non_idempotent} lets them be sent twice, with their body."""
        world = self.world(2, upstream=conditions("http_500", "non_idempotent"))
        self.assert_retried(world, TROUBLE, post(b"body"))

    def test_others(self) -> None:
        """All other methods may be sent twice, with their body."""
        for method in (b"PUT", b"DELETE", b"OPTIONS"):
            world = self.world(2, upstream=conditions("http_500"))
            self.assert_retried(world, TROUBLE, post(b"body").replace(b"POST", method))

    def test_chunked_body(self) -> None:
        """A chunked body is sent again whole, in chunks."""
        world = self.world(2, upstream=conditions("http_503"))
        request = b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        request += b"2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n"
        client, _, seen = self.meet(world, sized(b"", b"503 No"), request)
        self.assertEqual(b"", seen)
        second = world.backends[1].accept()
        self.assertTrue(second.take().endswith(b"5\r\nabcde\r\n0\r\n\r\n"))
        second.send(OK)
        self.assertEqual(OK, client.take())

    def test_body_not_kept(self) -> None:
        """A body that is too long to be kept cannot be sent again."""
        upstream = {**conditions("http_500"), "body_buffer": 10}
        world = self.world(2, upstream=upstream)
        self.assert_passed_on(world, TROUBLE, post(b"b" * 100).replace(b"POST", b"PUT"))

    def test_half_sent_body(self) -> None:
        """An answer before the end of the body: what has come is sent again, then the rest."""
        world = self.world(2, upstream=conditions("http_503"))
        client, server, _ = world.request(post(b"ab").replace(b"POST", b"PUT")[:-1])
        server.send(sized(b"", b"503 No"))
        second = world.backends[1].accept()
        self.assertTrue(second.take().endswith(b"\r\n\r\na"))
        client.send(b"b")
        self.assertEqual(b"b", second.take())
        second.send(OK)
        self.assertEqual(OK, client.take())


class BlameTests(RetryCase):
    """What an attempt says of the server (max_fails = 1)."""

    def failed(self, world: World) -> bool:
        return world.servers[0].failed

    def test_discarded(self) -> None:
        """A discarded answer counts against the server, but for 403 and 404."""
        for status in STATUSES:
            world = self.world(2, upstream=conditions(f"http_{status}"))
            self.assert_retried(world, sized(b"no", b"%d No" % status))
            self.assertEqual(status not in (403, 404), self.failed(world), status)

    def test_passed_on(self) -> None:
        """An answer that is passed on never does: named or not, last try or not."""
        for upstream in (conditions(), {**conditions("http_500"), "next_upstream_tries": 1}):
            world = self.world(2, upstream=upstream)
            self.assert_passed_on(world, TROUBLE)
            self.assertFalse(self.failed(world))

    def test_invalid_header(self) -> None:
        """What is no answer counts even where no condition names it."""
        nonsense = b"HTTP/1.1 nonsense\r\n\r\n"
        world = self.world(2, upstream=conditions("invalid_header"))
        self.assert_retried(world, nonsense)
        self.assertTrue(self.failed(world))
        for upstream in (conditions(), {"next_upstream": ()}):
            world = self.world(2, upstream=upstream)
            self.assertIn(b" 502 ", self.meet(world, nonsense)[2])
            self.assertTrue(self.failed(world))

    def test_not_found_proves_life(self) -> None:
        """A probe that is answered 404 brings the server back, though it is discarded."""
        world = self.world(2, upstream={**conditions("http_404"), "keepalive": 0})
        world.upstream.upstream.failed(world.servers[0])
        world.wait(11.0)
        # Its weight comes back by and by.
        world.request(backend=1)[1].send(OK)
        self.assert_retried(world, sized(b"no", b"404 No"))
        self.assertEqual((False, 0), (self.failed(world), world.servers[0].fails))

    def test_causes(self) -> None:
        """The statuses that may be named are those that are asked about here."""
        self.assertEqual(
            set(STATUSES), {s for s in range(100, 600) if Cause.of_status(s) is not None}
        )


class BudgetTests(RetryCase):
    """C{retry_budget}."""

    def retries(self, share: float, requests: int) -> tuple[int, bytes]:
        """
        Let every first server fail.

        @return: how many requests were tried again, and the last answer.
        """
        upstream = {**conditions("http_500"), "retry_budget": share, "keepalive": 0}
        world = self.world(2, upstream=upstream, max_fails=0)
        seen = b""
        for number in range(requests):
            client = world.client()
            client.send(GET)
            backend = next(each for each in world.backends if each.waiting())
            backend.accept().send(sized(b"%d" % number, b"500 No"))
            seen = client.take()
            for other in world.backends:
                if other.waiting():
                    other.accept().send(OK)
                    seen = client.take()
        return sum(server.picks for server in world.servers) - requests, seen

    def test_spent(self) -> None:
        """When it is spent the original answer is passed on."""
        self.assertEqual((3, sized(b"7", b"500 No")), self.retries(0.01, 8))

    def test_share(self) -> None:
        """Three retries a second are free, and a share of the requests."""
        retried, _ = self.retries(0.5, 20)
        self.assertEqual(3 + 10, retried)

    def test_off(self) -> None:
        """Without a budget every request is tried again."""
        self.assertEqual((8, OK), self.retries(0.0, 8))

    def test_dead_connection_is_free(self) -> None:
        """A kept connection that turns out dead costs no retry."""
        world = self.world(1, upstream={"retry_budget": 0.01})
        for _ in range(8):
            client, server, _ = world.request()
            server.send(OK)
            client.take()
            client.push(GET)
            server.close()
            again = world.backends[0].accept()
            again.send(OK)
            self.assertEqual(OK, client.take())
            again.close()
