"""
How a request's server is found when it is more than the next one: keys,
cookies, the waiting line.
"""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from dynbalance.config.template import KEY_VARIABLES, TRAFFIC_VARIABLES
from dynbalance.config.upstream import StickyConfig
from dynbalance.http.forwarded import Origin
from dynbalance.http.request import parse_request
from dynbalance.http.variables import Template, cookie
from dynbalance.net.deadlines import TICK
from tests.http.world import GET, OK, HttpTestCase, Wire, World

REQUEST = (
    b"GET /a/b?user=7&Tenant=x%20y&user=8 HTTP/1.1\r\nHost: Shop.Example:8080\r\n"
    b"X-Api-Key: secret\r\nCookie: a=1; session=s=3;b=2\r\nCookie: late=9\r\n\r\n"
)


class TemplateTests(SynchronousTestCase):
    """L{Template}."""

    def test_variables(self) -> None:
        """Each variable stands for what the request says, as it was sent."""
        head, origin = parse_request(REQUEST), Origin("10.0.0.9", b"1.1.1.1, 10.0.0.9", b"https")
        for text, key in {
            "$remote_addr": b"10.0.0.9",
            "$request_uri": b"/a/b?user=7&Tenant=x%20y&user=8",
            "$host": b"shop.example",
            "$http_x_api_key": b"secret",
            "$http_host": b"Shop.Example:8080",
            "$cookie_session": b"s=3",
            "$cookie_late": b"9",
            "$arg_user": b"7",
            "$arg_tenant": b"x%20y",
            "$remote_addr|$arg_user": b"10.0.0.9|7",
            "all the same": b"all the same",
            "$arg_none$cookie_none$http_none": b"",
        }.items():
            self.assertEqual(key, Template(text, KEY_VARIABLES).fill(head, origin), text)
        for text, value in {
            "$scheme://$host": b"https://shop.example",
            "for=$proxy_add_x_forwarded_for;": b"for=1.1.1.1, 10.0.0.9;",
        }.items():
            self.assertEqual(value, Template(text, TRAFFIC_VARIABLES).fill(head, origin), text)

    def test_refused(self) -> None:
        """A variable that is not for this text is refused when it is made."""
        self.assertRaises(ValueError, Template, "$cookie_a", TRAFFIC_VARIABLES)
        self.assertRaises(ValueError, Template, "$scheme", KEY_VARIABLES)

    def test_cookie(self) -> None:
        """The first cookie of the name counts, and its name is taken exactly."""
        head = parse_request(b"GET / HTTP/1.1\r\nHost: a\r\nCookie: r=1; xr=2; r=3; R=4\r\n\r\n")
        self.assertEqual((b"1", b"4", b""), tuple(cookie(head, n) for n in (b"r", b"R", b"x")))


def with_field(line: bytes) -> bytes:
    return GET[:-2] + line + b"\r\n\r\n"


class ChoosingCase(HttpTestCase):
    """One request after the other, over connections that are not kept."""

    def begin(self, backends: int, **upstream: Any) -> World:
        return self.world(backends, upstream={"keepalive": 0, **upstream})

    def ask(self, world: World, request: bytes = GET, answer: bytes = OK) -> tuple[int, bytes]:
        """@return: which server was asked, and what the client got."""
        client = world.client()
        client.send(request)
        [place] = [n for n, backend in enumerate(world.backends) if backend.waiting()]
        world.backends[place].accept().send(answer)
        return place, client.take()


class KeyTests(ChoosingCase):
    """Policies that go by a key."""

    def test_hash(self) -> None:
        """The same key gets the same server, and many keys get all of them."""
        for consistent in (True, False):
            world = self.begin(
                3, policy="hash", hash_key="$arg_user", hash_consistent=consistent
            )
            places: dict[int, set[int]] = {}
            for _ in range(2):
                for user in range(40):
                    request = GET.replace(b"/ ", b"/?user=%d " % user, 1)
                    places.setdefault(user, set()).add(self.ask(world, request)[0])
            self.assertTrue(all(len(each) == 1 for each in places.values()), places)
            self.assertEqual({0, 1, 2}, set.union(*places.values()))

    def test_empty_key(self) -> None:
        """A request without what the key is made of goes in turn."""
        world = self.begin(2, policy="hash", hash_key="$arg_user")
        self.assertEqual([0, 1, 0, 1], [self.ask(world)[0] for _ in range(4)])

    def test_next_after_failure(self) -> None:
        """When the key's server refuses another one is asked."""
        world = self.begin(3, policy="hash", hash_key="$host")
        [first, _] = self.ask(world)
        world.backends[first].refuse()
        client = world.client()
        client.send(GET)
        others = [backend for n, backend in enumerate(world.backends) if n != first]
        [second] = [backend for backend in others if backend.waiting()]
        second.accept().send(OK)
        self.assertEqual(OK, client.take())

    def test_ip_hash(self) -> None:
        """By C{ip_hash} a client address gets the same server."""
        world = self.begin(3, policy="ip_hash")
        self.assertEqual(1, len({self.ask(world)[0] for _ in range(6)}))

    def test_client_behind_a_proxy(self) -> None:
        """The client is who a trusted proxy says that it is."""
        world = self.world(
            3,
            http={"trusted_proxies": (ip_network("127.0.0.0/8"),)},
            upstream={"keepalive": 0, "policy": "ip_hash"},
        )
        places = {
            self.ask(world, with_field(b"X-Forwarded-For: 10.%d.0.1" % n))[0] for n in range(16)
        }
        self.assertEqual({0, 1, 2}, places)

    def test_only_when_wanted(self) -> None:
        """No other policy has a key made for it."""
        world = self.begin(1)
        self.patch(world.upstream, "key", None)
        self.assertEqual((0, OK), self.ask(world))


class TimesTests(ChoosingCase):
    """C{ewma}."""

    def test_slow_server(self) -> None:
        """A server that answers slowly is asked less often."""
        world = self.begin(2, policy="ewma")
        asked = [0, 0]
        for _ in range(30):
            client = world.client()
            client.send(GET)
            [place] = [n for n, backend in enumerate(world.backends) if backend.waiting()]
            asked[place] += 1
            server = world.backends[place].accept()
            world.wait(2.0 if place else 0.01)
            server.send(OK)
            self.assertEqual(OK, client.take())
        self.assertGreater(asked[0], 5 * asked[1])

    def test_fast_failures(self) -> None:
        """A server that fails fast does not attract requests."""
        for answer in (b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", b"nonsense\r\n\r\n"):
            world = self.world(
                2, upstream={"keepalive": 0, "policy": "ewma"}, max_fails=0
            )
            asked = [0, 0]
            for _ in range(30):
                client = world.client()
                client.send(GET)
                [place] = [n for n, backend in enumerate(world.backends) if backend.waiting()]
                asked[place] += 1
                server = world.backends[place].accept()
                world.wait(0.0 if place else 0.1)
                server.send(answer if place else OK)
                client.take()
            self.assertGreater(asked[0], asked[1], answer)


class StickyTests(ChoosingCase):
    """C{sticky}."""

    def begin(self, backends: int, **upstream: Any) -> World:
        return super().begin(backends, sticky=StickyConfig(), **upstream)

    def route(self, seen: bytes) -> bytes:
        """The cookie that an answer sets, without its attributes; empty if it sets none."""
        return seen.partition(b"Set-Cookie: ")[2].partition(b";")[0]

    def test_first_answer(self) -> None:
        """The first answer names the server, by an opaque word."""
        world = self.begin(2)
        place, seen = self.ask(world)
        route = world.servers[place].route.encode()
        cookie = b"route=" + route + b"; Path=/; Max-Age=3600; HttpOnly; SameSite=Lax"
        head, _, body = seen.partition(b"\r\n\r\n")
        self.assertEqual(
            [b"HTTP/1.1 200 OK", b"Content-Length: 2", b"Set-Cookie: " + cookie],
            head.split(b"\r\n"),
        )
        self.assertEqual(b"ok", body)
        self.assertNotIn(b"127.0.0.1", route)

    def test_stays(self) -> None:
        """A client that has the cookie stays, and gets no other one."""
        world = self.begin(3)
        place, seen = self.ask(world)
        for _ in range(5):
            again, seen_again = self.ask(world, with_field(b"Cookie: a=b; " + self.route(seen)))
            self.assertEqual((place, OK), (again, seen_again))
        self.assertNotEqual(place, self.ask(world)[0])

    def test_server_gone(self) -> None:
        """A client whose server is out gets another one, and its cookie."""
        world = self.begin(2)
        place, seen = self.ask(world)
        world.upstream.upstream.set_checked(world.servers[place].key, True, "it is ill")
        other, again = self.ask(world, with_field(b"Cookie: " + self.route(seen)))
        self.assertEqual(1 - place, other)
        self.assertEqual(b"route=" + world.servers[other].route.encode(), self.route(again))

    def test_server_refuses(self) -> None:
        """The same when that is only found out by trying."""
        world = self.begin(2)
        place, seen = self.ask(world)
        world.backends[place].refuse()
        client = world.client()
        client.send(with_field(b"Cookie: " + self.route(seen)))
        world.backends[1 - place].accept().send(OK)
        self.assertEqual(
            b"route=" + world.servers[1 - place].route.encode(), self.route(client.take())
        )

    def test_nonsense(self) -> None:
        """A cookie that names no server is as none."""
        world = self.begin(2)
        for value in (b"route=", b"route=0", b"route=\xff\xfe", b"route=" + b"f" * 3000):
            _, seen = self.ask(world, with_field(b"Cookie: " + value))
            self.assertIn(b"Set-Cookie: route=", seen)

    def test_attributes(self) -> None:
        """The attributes are what the table says."""
        sticky = StickyConfig(
            cookie="srv", max_age=0, secure=True, httponly=False, samesite="none"
        )
        world = self.world(1, upstream={"keepalive": 0, "sticky": sticky})
        _, seen = self.ask(world)
        self.assertIn(b"; Path=/; Secure; SameSite=None\r\n", seen)
        self.assertIn(b"Set-Cookie: srv=", seen)

    def test_other_framing(self) -> None:
        """The cookie is in chunked answers, too, and beside those of the server."""
        world = self.begin(1)
        _, seen = self.ask(
            world,
            answer=b"HTTP/1.1 200 OK\r\nSet-Cookie: mine=1\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"2\r\nok\r\n0\r\n\r\n",
        )
        self.assertEqual(2, seen.count(b"Set-Cookie: "))
        self.assertTrue(seen.endswith(b"2\r\nok\r\n0\r\n\r\n"))

    def test_upgrade(self) -> None:
        """The answer to an upgrade has the cookie, too."""
        world = self.begin(1)
        upgrade = with_field(b"Connection: upgrade\r\nUpgrade: websocket")
        switched = b"HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nhello"
        _, seen = self.ask(world, upgrade, switched)
        self.assertIn(b"Set-Cookie: route=", seen)
        self.assertTrue(seen.endswith(b"\r\n\r\nhello"))


class LineTests(HttpTestCase):
    """C{queue}."""

    def begin(self, queue: int = 2, backends: int = 1, **more: Any) -> tuple[World, Wire, Wire]:
        """One place on each server, of which the first server's is taken."""
        world = self.world(
            backends, upstream={"queue": queue, "queue_timeout": 5.0, **more}, max_conns=1
        )
        client, server, _ = world.request()
        return world, client, server

    def waiting(self, world: World) -> int:
        return world.upstream.upstream.waiting

    def test_served_in_order(self) -> None:
        """Requests wait while all servers are full, and are served as they came."""
        world, first, server = self.begin()
        second, third = world.client(), world.client()
        second.send(GET.replace(b"/ ", b"/2 ", 1))
        third.send(GET.replace(b"/ ", b"/3 ", 1))
        self.assertEqual(2, self.waiting(world))
        for client, then in ((first, b"GET /2 "), (second, b"GET /3 "), (third, b"")):
            self.assertEqual(b"", client.take())
            server.send(OK)
            self.assertEqual(OK, client.take())
            self.assertEqual(then, server.take()[: len(then)])
        self.assertEqual(0, self.waiting(world))

    def test_no_place(self) -> None:
        """Whoever finds no place in the line gets 502 at once."""
        world, _, _ = self.begin(queue=1)
        world.client().send(GET)
        late = world.client()
        late.send(GET)
        self.assertIn(b" 502 ", late.take())
        self.assertEqual(1, self.waiting(world))

    def test_off(self) -> None:
        """Without a line it is 502 at once."""
        world, _, _ = self.begin(queue=0)
        late = world.client()
        late.send(GET)
        self.assertIn(b" 502 ", late.take())

    def test_too_long(self) -> None:
        """After C{queue_timeout} it is 502."""
        world, _, _ = self.begin()
        second = world.client()
        second.send(GET)
        world.wait(4.5)
        self.assertEqual(b"", second.take())
        world.wait(0.5 + 2 * TICK)
        self.assertIn(b" 502 ", second.take())
        self.assertEqual(0, self.waiting(world))

    def test_client_gone(self) -> None:
        """A client that leaves gives up its place, and nobody is asked for it."""
        world, client, server = self.begin()
        second, third = world.client(), world.client()
        second.send(GET.replace(b"/ ", b"/2 ", 1))
        third.send(GET.replace(b"/ ", b"/3 ", 1))
        second.close()
        self.assertEqual(1, self.waiting(world))
        server.send(OK)
        client.take()
        self.assertTrue(server.take().startswith(b"GET /3"))

    def test_nobody_to_wait_for(self) -> None:
        """When no server is merely full, waiting would be in vain: 502 at once."""
        world, _, _ = self.begin()
        world.upstream.upstream.set_checked(world.servers[0].key, True, "it is ill")
        second = world.client()
        second.send(GET)
        self.assertIn(b" 502 ", second.take())

    def test_body_waits(self) -> None:
        """The body of a request that waits is sent when it is served."""
        world, client, server = self.begin()
        second = world.client()
        second.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbo")
        second.send(b"dy")
        server.send(OK)
        client.take()
        self.assertTrue(server.take().endswith(b"\r\n\r\nbody"))
        server.send(OK)
        self.assertEqual(OK, second.take())

    def test_retry_waits(self) -> None:
        """A retry waits, too, and only for servers that were not tried."""
        world = self.world(2, upstream={"queue": 1, "keepalive": 0}, max_conns=1)
        busy, first, _ = world.request(backend=0)
        client, second, _ = world.request(backend=1)
        second.close()
        self.assertEqual(1, self.waiting(world))
        first.send(OK)
        busy.take()
        again = world.backends[0].accept()
        again.send(OK)
        self.assertEqual(OK, client.take())

    def test_drain(self) -> None:
        """When the listener drains, those who wait are still served."""
        world, client, server = self.begin()
        second = world.client()
        second.send(GET)
        world.listener.drain()
        server.send(OK)
        self.assertIn(b"ok", client.take())
        server.take()
        server.send(OK)
        self.assertIn(b"ok", second.take())

    def test_panic_is_no_waiting(self) -> None:
        """With C{panic} those that were good last are asked at once."""
        world = self.world(1, upstream={"queue": 1, "panic": "last_good"})
        world.upstream.upstream.set_checked(world.servers[0].key, True, "it is ill")
        client, server, _ = world.request()
        server.send(OK)
        self.assertEqual(OK, client.take())
