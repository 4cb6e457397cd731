"""
One scene before nginx and before dynbalance: the same configuration, the same
servers, the same requests.  Where the two differ on purpose C{docs/nginx.rst}
has the reason.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from attrs import evolve

from tests.endtoend.beside import (
    Beside,
    Player,
    Scene,
    Script,
    absent,
    ask,
    asks,
    bursts,
    held,
    keeps,
    named,
    player,
)
from tests.endtoend.stage import (
    CLOSE,
    HANG,
    OK,
    RESET,
    Act,
    Answer,
    Client,
    answer,
    bare,
    request,
)

STATUSES = (403, 404, 429, 500, 502, 503, 504)
BAD_HEAD = Act(b"HTTP/1.1 200 OK\r\nNo colon\r\n\r\n", "close")
FAILURES = {
    "error": CLOSE,
    "timeout": HANG,
    "invalid_header": BAD_HEAD,
    **{f"http_{status}": answer(f"{status} Said") for status in STATUSES},
}
METHODS = ("GET", "HEAD", "PUT", "DELETE", "OPTIONS", "POST", "LOCK", "PATCH", "ANY")


def word(*parts: object) -> str:
    """A scene's name, which has to be a host."""
    return "-".join(str(part).replace("_", "-").lower() for part in parts)


def half_a_body(scene: Scene, port: int) -> Sequence[Answer]:
    """A client that waits for its answer in the midst of its request; then another one."""
    client = Client(port)
    client.send(named(scene, request("POST", body=b"1234567890"))[:-5])
    answers = [client.listen("POST")]
    client.close()
    return [*answers, ask(scene, port, request())]


def leaves(*requests: bytes) -> Script:
    """A client that does not wait for the answer to its first request, and then asks these."""

    def script(scene: Scene, port: int) -> Sequence[Answer]:
        client = Client(port)
        client.send(named(scene, request()))
        time.sleep(0.5)
        client.close()
        time.sleep(0.5)
        return asks(*requests)(scene, port)

    return script


def invalid(name: str, fields: str) -> Scene:
    """A server whose answer has these fields."""
    act = bare(f"HTTP/1.1 200 OK{fields}", b"ok", "close")
    return Scene(name=name, players=[player(act)], script=asks())


class NextUpstreamTests(Beside):
    """C{next_upstream}: whether another server is asked."""

    def test_conditions(self) -> None:
        """Each failure goes on where it is named, and ends in its own way where it is not."""
        self.assert_alike(
            *(
                Scene(
                    name=word(name, *conditions),
                    players=[player(act, OK), player(OK)],
                    upstream={"next_upstream": conditions, "read_timeout": 1.0},
                    # The others find the server out, or not.
                    script=asks(times=4),
                )
                for name, act in FAILURES.items()
                for conditions in ([name], [])
            ),
            Scene(name="reset", players=[player(RESET), player(OK)], script=asks()),
            Scene(name="refused", players=[absent(), player(OK)], script=asks(times=3)),
            Scene(
                name="refused-off", players=[absent(), player(OK)],
                upstream={"next_upstream": []}, script=asks(times=3),
            ),
        )  # fmt: skip

    def test_methods(self) -> None:
        """POST, LOCK and PATCH are not sent twice, but when nobody has got them."""
        several = [request(method) for method in METHODS]
        named = ["error", "http_500"]
        self.assert_alike(
            *(
                Scene(
                    name=word("once", len(more), *conditions),
                    players=[player(act, max_fails=0), player(OK, max_fails=0)],
                    upstream={"next_upstream": [*conditions, *more]},
                    script=asks(*several),
                )
                for act, conditions in ((CLOSE, ["error"]), (answer("500 Said"), ["http_500"]))
                for more in ([], ["non_idempotent"])
            ),
            Scene(
                name="refused", players=[absent(max_fails=0), player(OK)],
                upstream={"next_upstream": named}, script=asks(*several),
            ),
        )  # fmt: skip

    def test_bodies(self) -> None:
        """A request that was read whole is sent again whole, however it came."""
        chunks = b"4\r\nabcd\r\n1\r\ne\r\n0\r\n\r\n"
        self.assert_alike(
            *(
                Scene(
                    name=word("body", name),
                    players=[player(act, max_fails=0), player(OK)],
                    upstream={"next_upstream": ["error", "http_500"]},
                    script=asks(
                        request("PUT", body=b"12345"),
                        request("PUT", more="Transfer-Encoding: chunked\r\n") + chunks,
                        request("POST", body=b"12345"),
                    ),
                    buffered=True,
                )
                for name, act in (("error", CLOSE), ("answer", answer("500 Said")))
            )
        )

    def test_tries(self) -> None:
        """How often, and among whom."""
        no, failed = answer("404 Said"), [player(CLOSE, max_fails=0) for _ in range(4)]
        listed = {"next_upstream": ["error", "http_404", "http_500"]}
        scenes: dict[str, tuple[list[Player], dict[str, object]]] = {
            "all": (failed, {}),
            "one": (failed, {"next_upstream_tries": 1}),
            "two": (failed, {"next_upstream_tries": 2}),
            "more": (failed, {"next_upstream_tries": 9}),
            "single": ([player(CLOSE)], {}),
            "single-answer": ([player(no)], {}),
            "down": ([player(no), player(OK, down=True)], {}),
            "backup": ([player(CLOSE), player(CLOSE), player(OK, backup=True)], {}),
            "backup-answers": ([player(no), player(no), player(no, backup=True)], {}),
            "refusing-backup": ([player(CLOSE), absent(backup=True)], {}),
            "nobody-left": ([player(CLOSE), player(answer("500 Said"))], {}),
            "all-down": ([player(OK, down=True), player(OK, down=True)], {}),
            "weights": ([player(CLOSE, weight=5, max_fails=0), player(OK)], {}),
        }
        self.assert_alike(
            *(
                Scene(
                    name=name, players=players, upstream={**listed, **options}, script=asks(times=3)
                )
                for name, (players, options) in scenes.items()
            ),
            Scene(
                name="too-late",
                players=[player(HANG, max_fails=0) for _ in range(4)],
                upstream={"read_timeout": 1.0, "next_upstream_timeout": 1.7},
                script=asks(),
            ),
        )


class JudgementTests(Beside):
    """C{max_fails} and C{fail_timeout}: who is out, and for how long."""

    def test_failures(self) -> None:
        """What counts, and how much of it takes a server out."""
        third = [act for _ in range(10) for act in (OK, OK, CLOSE)]
        said = answer("500 Said")
        listed = {"next_upstream": ["error", "http_500"]}
        cut = bare("HTTP/1.1 200 OK\nContent-Length: 9", b"short", "close")
        scenes: dict[str, tuple[list[Player], dict[str, object]]] = {
            "each-third": ([player(*third, max_fails=3), player(OK)], {}),
            "each-third-of-one": ([player(*third, max_fails=1), player(OK)], {}),
            "never": ([player(CLOSE, max_fails=0), player(OK)], {}),
            "alone": ([player(*third)], {}),
            "alone-with-one-down": ([player(*third), player(OK, down=True)], {}),
            "alone-with-backup": ([player(*third), player(OK, backup=True)], {}),
            "all": ([player(CLOSE), player(CLOSE)], {}),
            "answers-two": ([player(said, max_fails=2), player(OK)], listed),
            "answers-all": ([player(said, max_fails=2), player(said)], listed),
            "cut-off": ([player(cut), player(OK)], {}),
            "invalid": ([player(BAD_HEAD), player(OK)], {}),
            "heavy": ([player(*third, weight=4, max_fails=2), player(OK)], {}),
        }
        self.assert_alike(
            *(
                Scene(
                    name=name,
                    players=players,
                    # What a kept connection's end says is judged differently.
                    upstream={"keepalive": 0, **options},
                    script=asks(times=30),
                )
                for name, (players, options) in scenes.items()
            )
        )

    def test_left(self) -> None:
        """A client that leaves says nothing against the server, whose connection is closed."""
        left = Scene(
            name="left",
            players=[player(HANG, OK, fail_timeout=60), player(OK)],
            script=leaves(*[request()] * 4),
        )
        played = self.assert_alike(left)["left"]
        self.assertEqual([0, 1, 0, 1, 0], played.servers)
        self.assertEqual([200] * 4, played.statuses)

    def test_times(self) -> None:
        """A server has its time between two reads; what comes too late cuts the answer off."""
        slow = bare("HTTP/1.1 200 OK\nContent-Length: 3", b"abc")
        stuck = bare("HTTP/1.1 200 OK\nContent-Length: 9", b"short", "hang")
        times = {"read_timeout": 1.0}
        self.assert_alike(
            Scene(
                name="slow", players=[player(evolve(slow, pause=0.45))],
                upstream=times, script=asks(),
            ),
            Scene(
                name="too-slow", players=[player(evolve(slow, pause=1.8)), player(OK)],
                upstream=times, script=asks(request(), request(), request()),
            ),
            Scene(
                name="stuck", players=[player(stuck), player(OK)],
                upstream=times, script=asks(times=4),
            ),
            Scene(
                name="without-a-word", players=[player(HANG, OK), player(OK)],
                upstream={**times, "next_upstream": ["error"]}, script=asks(times=4),
            ),
        )  # fmt: skip

    def test_windows(self) -> None:
        """After C{fail_timeout} one request is a probe; its failure costs as much again."""
        probed = {
            "recovers": [CLOSE, OK],
            "fails-again": [CLOSE, CLOSE, OK],
            "fails-on": [CLOSE],
            "patient": [CLOSE, OK, CLOSE, OK],
        }
        self.assert_alike(
            *(
                Scene(
                    name=name,
                    players=[
                        player(*acts, fail_timeout=2, max_fails=1 + (name == "patient")),
                        player(OK),
                    ],
                    upstream={"keepalive": 0},
                    script=bursts(3, 4, 3.1),
                )
                for name, acts in probed.items()
            )
        )


class TurnTests(Beside):
    """Who is chosen."""

    def test_turns(self) -> None:
        """Round robin, with weights, retries, backups and servers that are down."""
        casts = {
            "even": [player(OK), player(OK), player(OK)],
            "one-two": [player(OK, weight=1), player(OK, weight=2)],
            "one-two-three": [player(OK, weight=n) for n in (1, 2, 3)],
            "five-one-one": [player(OK, weight=n) for n in (5, 1, 1)],
            "retries-shift": [player(CLOSE, max_fails=0, weight=2), player(OK), player(OK)],
            "failures-lighten": [player(CLOSE, OK, max_fails=3, weight=6), player(OK, weight=3)],
            "backups-wait": [player(OK), player(OK, down=True), player(OK, backup=True)],
            "backups-serve": [absent(), player(OK, backup=True, weight=2), player(OK, backup=True)],
        }
        self.assert_alike(
            *(Scene(name=name, players=c, script=asks(times=24)) for name, c in casts.items())
        )

    def test_keys(self) -> None:
        """C{hash} and C{ip_hash}, also past servers that fail or are down."""
        several = [request(target=f"/{number}?{number}") for number in range(30)]
        casts = {
            "keys": [player(OK), player(OK, weight=3), player(OK)],
            "keys-down": [player(OK), player(OK, down=True), player(OK)],
            "keys-fail": [player(CLOSE), player(OK), player(OK)],
        }
        self.assert_alike(
            *(
                Scene(
                    name=word(name, policy),
                    players=players,
                    upstream={
                        "policy": policy, "hash_key": "$request_uri", "hash_consistent": False
                    },
                    script=asks(*several),
                )
                for name, players in casts.items()
                for policy in ("hash", "ip_hash")
            )
        )  # fmt: skip

    def test_one_address(self) -> None:
        """Lines with one address: turns, failures, tries, limits and keys of their own."""
        failing = {"max_fails": 0}
        several = [request(target=f"/{number}?{number}") for number in range(20)]
        plain = {"hash_key": "$request_uri", "hash_consistent": False}
        scenes = [
            Scene(name="turns", players=[player(OK, weight=2), player(OK)], script=asks(times=12)),
            Scene(
                name="fails", players=[player(CLOSE), player(OK)], again=[(0, {"weight": 2})],
                script=asks(times=8),
            ),
            Scene(
                name="tries", players=[player(CLOSE, **failing), player(CLOSE, **failing)],
                again=[(0, {**failing, "backup": True})], script=asks(times=4),
            ),
            Scene(
                name="limits", players=[player(HANG, max_conns=1)], again=[(0, {"max_conns": 2})],
                script=held(4),
            ),
            *(
                Scene(
                    name=word(policy),
                    players=[player(OK), player(OK, weight=2), player(CLOSE, **failing)],
                    again=[(0, {"weight": 3}), (2, {})],
                    upstream={"policy": policy, **plain},
                    script=asks(*several),
                )
                for policy in ("hash", "ip_hash")
            ),
        ]  # fmt: skip
        self.assert_alike(
            *(
                # There lines with one address share their kept connections, here they do not.
                evolve(scene, again=scene.again or [(0, {})],
                       upstream={**scene.upstream, "keepalive": 0})
                for scene in scenes
            )
        )  # fmt: skip

    def test_least(self) -> None:
        """C{least_conn} leaves a server alone that does not come to an end."""

        def stuck(scene: Scene, port: int) -> Sequence[Answer]:
            clients = [Client(port) for _ in range(2)]
            for client in clients:
                client.send(named(scene, request()))
                client.hears(0.3)
            clients[0].close()
            time.sleep(0.5)
            answers = asks(times=6)(scene, port)
            clients[1].close()
            return answers

        scene = Scene(
            name="least",
            players=[player(HANG, OK), player(HANG, OK)],
            upstream={"policy": "least_conn"},
            script=stuck,
        )
        for played in self.play(scene)["least"]:
            self.assertEqual([200] * 6, played.statuses)
            self.assertEqual({0, 1}, set(played.servers[:2]))
            self.assertEqual({played.servers[0]}, set(played.servers[2:]))

    def test_full(self) -> None:
        """C{max_conns} is kept; a backup serves while all are full; the last hear 502."""
        one = {"max_conns": 1}
        self.assert_alike(
            Scene(
                name="full", players=[player(HANG, **one), player(HANG, **one)], script=held(3)
            ),
            Scene(
                name="spare",
                players=[player(HANG, **one), player(HANG, max_conns=2), player(OK, backup=True)],
                script=held(5),
            ),
            Scene(
                name="full-retried",
                players=[absent(max_fails=0), player(HANG, **one)],
                script=held(2),
            ),
            Scene(
                name="given-back", players=[player(CLOSE, **one, max_fails=0)], script=asks(times=3)
            ),
            Scene(name="idle-is-free", players=[player(OK, **one)], script=asks(times=3)),
            Scene(
                name="left", players=[player(HANG, OK, **one)],
                script=leaves(request(), request()),
            ),
        )  # fmt: skip


class KeptTests(Beside):
    """Which connections to the servers are used again."""

    def test_kept(self) -> None:
        """After a whole answer, and only when neither side has said that it ends."""
        get, head = request(), request("HEAD")
        acts = {
            "length": OK,
            "empty": answer(body=b""),
            "chunked": bare("HTTP/1.1 200 OK\nTransfer-Encoding: chunked", b"2\r\nok\r\n0\r\n\r\n"),
            "trailer": bare(
                "HTTP/1.1 200 OK\nTransfer-Encoding: chunked", b"2\r\nok\r\n0\r\nA: b\r\n\r\n"
            ),
            "no-content": bare("HTTP/1.1 204 No Content"),
            "not-modified": bare("HTTP/1.1 304 Not Modified"),
            "not-modified-length": bare("HTTP/1.1 304 Not Modified\nContent-Length: 9"),
            "says-close": answer(more="Connection: close\r\n"),
            "until-end": bare("HTTP/1.1 200 OK", b"ok", "close"),
            "old": bare("HTTP/1.0 200 OK\nContent-Length: 2", b"ok", "close"),
            "error": answer("500 Said"),
            "surplus": bare("HTTP/1.1 200 OK\nContent-Length: 2", b"okHTTP/1.1"),
            "cut-off": bare("HTTP/1.1 200 OK\nContent-Length: 9", b"short", "close"),
        }
        self.assert_alike(
            *(
                Scene(name=name, players=[player(act)], script=asks(get, get, head, get))
                for name, act in acts.items()
            )
        )

    def test_limits(self) -> None:
        """For so many requests, so long, and so many of them."""
        pair = [player(OK), player(OK)]
        options: dict[str, tuple[list[Player], dict[str, object], Sequence[float]]] = {
            "requests": ([player(OK)], {"keepalive_requests": 2}, ()),
            "time": ([player(OK)], {"keepalive_time": 1.0}, (0, 1.5)),
            "idle": ([player(OK)], {"max_idle_time": 0.5}, (1.2, 1.2)),
            "not-idle": ([player(OK)], {"max_idle_time": 9.0}, (0.5, 1.0)),
            "server-ends": ([player(answer(then="close"))], {}, (0.4, 0.4, 0.4, 0.4)),
            "one-for-both": (pair, {"keepalive": 1}, ()),
            "none": (pair, {"keepalive": 0}, ()),
        }
        self.assert_alike(
            *(
                Scene(
                    name=name,
                    players=players,
                    upstream=upstream,
                    script=asks(times=5, pauses=pauses),
                )
                for name, (players, upstream, pauses) in options.items()
            )
        )

    def test_clients(self) -> None:
        """A client's connection goes on behind every whole answer, unless it was to end."""
        chunked = request("PUT", more="Transfer-Encoding: chunked\r\n") + b"2\r\nab\r\n0\r\n\r\n"
        old = b"GET / HTTP/1.0\r\nHost: HOST\r\n"
        all_of_them = [
            request(), request("HEAD"), request("POST", body=b"abc"), chunked, request("OPTIONS"),
            old + b"Connection: keep-alive\r\n\r\n", request(more="Connection: close\r\n"),
            request(more="Connection: Keep-Alive, X-A\r\n"), old + b"\r\n", request(),
            old + b"Connection: close\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", request(),
        ]  # fmt: skip
        acts = {
            "good": OK,
            "chunks": bare("HTTP/1.1 200 OK\nTransfer-Encoding: chunked", b"1\r\na\r\n0\r\n\r\n"),
            "until-end": bare("HTTP/1.1 200 OK\nConnection: close", b"abc", "close"),
            "said-close": answer(more="Connection: close\r\n", then="close"),
            "nothing": bare("HTTP/1.1 204 Nothing"),
            "not-found": answer("404 No"),
            "failed": CLOSE,
        }
        self.assert_alike(
            *(
                Scene(
                    name=name,
                    players=[player(act)],
                    script=keeps(*all_of_them),
                    # Not buffered nginx counts those chunks that have come already.
                    buffered=True,
                )
                for name, act in acts.items()
            )
        )

    def test_died(self) -> None:
        """A kept connection that dies instead of answering: one more try, but not for POST."""
        self.assert_alike(
            *(
                Scene(
                    name=word(method, len(acts), *conditions),
                    players=[player(*acts)],
                    upstream={"next_upstream": conditions},
                    script=asks(request(), request(method), request(method)),
                )
                for method in ("GET", "POST", "DELETE")
                for acts in ([OK, CLOSE, OK], [OK, CLOSE, CLOSE, OK])
                for conditions in (["error"], ["timeout"])
            )
        )

    def test_early_answer(self) -> None:
        """A connection that was answered before it had the whole request is not used again."""
        early = Act(OK.answer, "keep", early=True)
        scene = Scene(name="early", players=[player(early, OK)], script=half_a_body)
        theirs, ours = self.play(scene)["early"]
        self.assertEqual([0, 1], [asked.connection for asked in ours.asked])
        self.assertEqual(theirs.asked, ours.asked)
        # nginx reads the rest and goes on; here the client has to come again.
        self.assertEqual([True, True], [answer.kept for answer in theirs.answers])
        self.assertEqual([False, True], [answer.kept for answer in ours.answers])


class MessageTests(Beside):
    """What is written on either side."""

    def test_request_fields(self) -> None:
        """The servers get the same fields, whatever the client has sent."""
        fields = {
            "none": "",
            "forwarded": "X-Forwarded-For: 192.0.2.1\r\n",
            "forwarded-list": "X-Forwarded-For: 192.0.2.1, 192.0.2.2\r\n",
            "forwarded-twice": "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-For: 192.0.2.2\r\n",
            "real-ip": "X-Real-IP: 192.0.2.1\r\nX-Forwarded-Proto: https\r\n",
            "keep-alive": "Connection: keep-alive\r\nKeep-Alive: timeout=5\r\n",
            "te": "TE: trailers\r\nConnection: te\r\n",
            "expect": "Expect: 100-continue\r\n",
            "twice": "X-A: 1\r\nX-A: 2\r\nCookie: a=1\r\nCookie: b=2\r\n",
            "spaces": "X-A:  b  c \t\r\nX-B:\r\n",
            "bytes": "X-A: \xe4\r\n",
            "others": "Accept-Encoding: gzip\r\nRange: bytes=0-1\r\nVia: 1.1 a\r\n"
            "Authorization: Basic YTpi\r\nIf-None-Match: *\r\nForwarded: for=a\r\n",
        }
        self.assert_alike(
            *(
                Scene(name=name, players=[player(OK)], script=asks(request(more=more)))
                for name, more in fields.items()
            )
        )

    def test_request_lines(self) -> None:
        """And the same request line, Host and framing."""
        chunks = b"3\r\nabc\r\n2;a=b\r\nde\r\n0\r\nX-A: b\r\n\r\n"
        chunked = request("POST", more="Transfer-Encoding: chunked\r\n") + chunks
        requests = {
            "query": request(target="/a/b?c=d&e"),
            "escaped": request(target="/a%2Fb/%E4?%20+"),
            "dots": request(target="/a/../b//c/./d"),
            "bytes": request(target="/\xe4?\xe4"),
            "absolute": b"GET http://HOST/a?b HTTP/1.1\r\nHost: HOST\r\n\r\n",
            "empty-lines": b"\r\n\r\n" + request(),
            "old": b"GET / HTTP/1.0\r\nHost: HOST\r\n\r\n",
            "old-kept": b"GET / HTTP/1.0\r\nHost: HOST\r\nConnection: keep-alive\r\n\r\n",
            "closing": request(more="Connection: close\r\n"),
            "body": request("POST", body=b"abcde"),
            "body-of-get": request("GET", body=b"abcde"),
            "body-of-delete": request("DELETE", body=b"abcde"),
            "empty-body": request("POST"),
            "expecting": request("POST", more="Expect: 100-Continue\r\n", body=b"abc"),
            "lower-case": request().replace(b"Host", b"host"),
        }
        self.assert_alike(
            *(
                Scene(
                    name=word(name, *["buffered"] * buffered),
                    players=[player(OK)],
                    script=asks(each),
                    buffered=buffered,
                )
                for name, each in requests.items()
                for buffered in (False, True)
            ),
            # Not buffered nginx counts those chunks that have come already.
            Scene(name="chunked", players=[player(OK)], script=asks(chunked), buffered=True),
        )

    def test_answers(self) -> None:
        """A client gets the same answer, in the same framing, as far as it goes."""
        chunked = "HTTP/1.1 200 OK\nTransfer-Encoding: chunked"
        acts = {
            "length": OK,
            "empty": answer(body=b""),
            "chunked": bare(chunked, b"2\r\nab\r\n1;x\r\nc\r\n0\r\n\r\n"),
            "trailer": bare(chunked, b"2\r\nab\r\n0\r\nX-A: b\r\n\r\n"),
            "until-end": bare("HTTP/1.1 200 OK", b"abc", "close"),
            "until-end-old": bare("HTTP/1.0 200 OK", b"abc", "close"),
            "no-content": bare("HTTP/1.1 204 No Content"),
            "not-modified": bare("HTTP/1.1 304 Not Modified\nETag: a"),
            "short": bare("HTTP/1.1 200 OK\nContent-Length: 9", b"short", "close"),
            "long": bare("HTTP/1.1 200 OK\nContent-Length: 3", b"abcdef", "close"),
            "cookies": answer(more="Set-Cookie: a=1\r\nSet-Cookie: b=2\r\n"),
            "challenges": answer(
                "401 No", more="WWW-Authenticate: Basic\r\nWWW-Authenticate: Digest\r\n"
            ),
            "fields": answer(more="X-A: 1\r\nX-A: 2\r\nVia: a\r\nETag: b\r\nVary: c\r\n"),
            "hop-by-hop": answer(more="Keep-Alive: timeout=5\r\nConnection: keep-alive\r\n"),
            "redirect": answer("302 Found", more="Location: /elsewhere\r\n"),
            "strange-status": answer("299 Strange"),
            "no-phrase": answer("200 "),
            "large": answer(body=b"x" * 300_000),
            "large-chunk": bare(chunked, b"30000\r\n%b\r\n0\r\n\r\n" % (b"x" * 0x30000)),
        }
        old = b"GET / HTTP/1.0\r\nHost: HOST\r\n\r\n"
        self.assert_alike(
            *(
                Scene(
                    name=name,
                    players=[player(act, max_fails=0)],
                    script=asks(request(), request("HEAD"), old),
                )
                for name, act in acts.items()
            ),
            *(
                Scene(
                    name=name,
                    players=[player(act, max_fails=0)],
                    script=asks(request(), request("HEAD")),
                )
                for name, act in {
                    # A client of HTTP/1.0 could not tell where nginx breaks off.
                    "short-chunks": bare(chunked, b"5\r\nab", "close"),
                    "no-last-chunk": bare(chunked, b"2\r\nab\r\n", "close"),
                    "required": answer("426 No", more="Upgrade: h9\r\nConnection: upgrade\r\n"),
                }.items()
            ),
        )

    def test_invalid_answers(self) -> None:
        """What is no answer is 502."""
        length, chunked = "\nContent-Length: 2", "\nTransfer-Encoding: chunked"
        refused = {"no-colon": "\nNo colon", "too-large": "\nX-A: " + "x" * 100_000}
        played = self.assert_alike(*(invalid(name, head) for name, head in refused.items()))
        # nginx 1.22 takes some of these for answers; later ones do not.
        forgiven = {
            "two-lengths": f"{length}\nContent-Length: 3",
            "same-length-twice": length * 2,
            "bad-length": "\nContent-Length: x",
            "negative-length": "\nContent-Length: -2",
            "both": length + chunked,
            "unknown-coding": "\nTransfer-Encoding: gzip",
            "two-codings": f"{chunked}, chunked",
            "coding-twice": chunked * 2,
            "no-colon-but-a-name": "\nX-A",
        }
        both = self.play(*(invalid(name, head) for name, head in forgiven.items()))
        for scene in [*played.values(), *(ours for _, ours in both.values())]:
            self.assertEqual([502], scene.statuses)

    def test_too_large(self) -> None:
        """A body above the limit is 413, at its limit it is not."""
        chunks = b"5\r\nabcde\r\n1\r\nf\r\n0\r\n\r\n"
        self.assert_alike(
            *(
                Scene(
                    name=word("limit", *["buffered"] * buffered),
                    players=[player(OK)],
                    upstream={"client_max_body_size": 5},
                    script=asks(
                        request("POST", body=b"abcde"),
                        request("POST", body=b"abcdef"),
                        request("PUT", more="Transfer-Encoding: chunked\r\n") + chunks,
                    ),
                    buffered=buffered,
                )
                for buffered in (False, True)
            )
        )

    def test_upgrade(self) -> None:
        """Another protocol, with what either side says early, up to the end."""
        asked = "Connection: upgrade\r\nUpgrade: echo\r\n"
        switched = "HTTP/1.1 101 Switching Protocols\nConnection: upgrade\nUpgrade: echo"

        def switching(scene: Scene, port: int) -> Sequence[Answer]:
            client = Client(port)
            answer = client.switch(named(scene, request(more=asked)), b"early", b"more", b"last")
            client.close()
            return [answer]

        played = self.assert_alike(
            Scene(
                name="switched", players=[player(bare(switched, b"first", "echo"))],
                script=switching,
            ),
            Scene(name="not-switched", players=[player(OK)], script=asks(request(more=asked))),
        )  # fmt: skip
        self.assertEqual(b"firstearlymorelast", played["switched"].answers[0].body)

    def test_refused_requests(self) -> None:
        """What is no request reaches no server."""
        line = b"GET / HTTP/1.1\r\n"
        host = b"Host: HOST\r\n"
        post = b"POST / HTTP/1.1\r\n" + host
        heads = {
            "no-host": line,
            "two-hosts": line + host + host,
            "bad-host": line + b"Host: a b\r\n",
            "empty-host": line + b"Host:\r\n",
            "two-lengths": post + b"Content-Length: 1\r\nContent-Length: 1\r\n",
            "bad-length": post + b"Content-Length: x\r\n",
            "both": post + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
            "two-codings": post + b"Transfer-Encoding: gzip, chunked\r\n",
            "coding-twice": post + b"Transfer-Encoding: chunked\r\n" * 2,
            "old-chunked": b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n" + host,
            "bad-chunk": post + b"Transfer-Encoding: chunked\r\n\r\nxx\r\n",
            "trace": b"TRACE / HTTP/1.1\r\n" + host,
            "http3": b"GET / HTTP/3.0\r\n" + host,
            "no-path": b"GET a HTTP/1.1\r\n" + host,
            "zero": line + host + b"X-A: \x00\r\n",
            "authorized-twice": line + host + b"Authorization: a\r\nAuthorization: b\r\n",
            "conditions": line + host + b"If-Match: a\r\nIf-Match: b\r\n",
            "expect-twice": line + host + b"Expect: 100-continue\r\n" * 2,
        }
        self.assert_alike(
            *(
                Scene(name=name, players=[player(OK)], script=asks(head + b"\r\n"))
                for name, head in heads.items()
            )
        )


class TrustTests(Beside):
    """Who the client is behind proxies that are trusted."""

    trusted = ("127.0.0.0/8", "192.0.2.0/24", "2001:db8::/32")

    def test_client(self) -> None:
        """It is the last address on the list that is not a trusted proxy's."""
        lists = {
            "none": "",
            "one": "X-Forwarded-For: 198.51.100.1\r\n",
            "last": "X-Forwarded-For: 203.0.113.9, 198.51.100.1\r\n",
            "behind-one": "X-Forwarded-For: 203.0.113.9, 198.51.100.1, 192.0.2.7\r\n",
            "behind-two": "X-Forwarded-For: 198.51.100.1,192.0.2.7 , 192.0.2.8\r\n",
            "all-trusted": "X-Forwarded-For: 192.0.2.6, 192.0.2.7\r\n",
            "two-fields": "X-Forwarded-For: 198.51.100.1\r\nX-Forwarded-For: 192.0.2.7\r\n",
            "six": "X-Forwarded-For: 2001:db9::1, 2001:db8::1\r\n",
            "no-address": "X-Forwarded-For: 198.51.100.1, unknown\r\n",
            "no-address-first": "X-Forwarded-For: unknown, 192.0.2.7\r\n",
        }
        scenes = [
            Scene(name=name, players=[player(OK)], script=asks(request(more=more)))
            for name, more in lists.items()
        ]
        played = self.play(*scenes)
        told = {
            name: [dict(each.asked[0].fields)["x-real-ip"] for each in both]
            for name, both in played.items()
        }
        self.assertEqual({}, {name: both for name, both in told.items() if both[0] != both[1]})
        self.assertEqual("198.51.100.1", told["behind-two"][1])
