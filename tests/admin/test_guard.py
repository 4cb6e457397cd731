"""Tests of who is let in, and as whom."""

from __future__ import annotations

import base64
from collections.abc import Callable, Coroutine
from ipaddress import ip_network
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from dynbalance.admin import passwords
from dynbalance.admin.answers import Refused
from dynbalance.admin.caller import Caller, Role
from dynbalance.admin.certificate import Certificate
from dynbalance.admin.credentials import Password
from dynbalance.admin.guard import (
    GUESSES,
    OPEN,
    PAUSE,
    Guard,
    Knowledge,
    Shown,
    Wrong,
    guesses,
    refuse_others,
    refuse_strangers,
    require,
)
from dynbalance.admin.limits import Buckets
from dynbalance.admin.passwords import Busy, Passwords
from dynbalance.admin.tokens import Tokens
from dynbalance.config import TokenConfig, UserConfig
from dynbalance.hashes import hash_password, hash_token

HASH = hash_password("right")
USERS = tuple(UserConfig(name=name, password_hash=HASH, role="admin") for name in ("ann", "bob"))
TOKENS = Tokens([TokenConfig(name="web", token_hash=hash_token("t"), role="agent")])
HERE = "192.0.2.1"


def basic(name: str, secret: str) -> bytes:
    return b"Basic " + base64.b64encode(f"{name}:{secret}".encode())


class GuardCase(SynchronousTestCase):
    """
    @ivar checked: how many passwords were.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.checked = 0
        self.passwords = Passwords(USERS, self.in_thread, self.clock.seconds, b"key")

    def in_thread(self, check: Callable[[], bool]) -> Deferred[bool]:
        self.checked += 1
        return succeed(check())

    def run_now(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self.successResultOf(Deferred.fromCoroutine(coroutine))

    def guard(self, **more: Any) -> Guard:
        known = Knowledge(passwords=self.passwords, tokens=TOKENS)
        return Guard(more.pop("knowledge", known), guesses=guesses(self.clock.seconds), **more)

    def who(self, guard: Guard, authorization: bytes | None = None, **more: Any) -> Caller:
        shown = Shown(**{"address": HERE, "authorization": authorization, **more})
        caller: Caller = self.run_now(guard.identify(shown))
        return caller

    def turned_away(self, guard: Guard, authorization: bytes | None = None, **more: Any) -> Refused:
        shown = Shown(**{"address": HERE, "authorization": authorization, **more})
        deferred = Deferred.fromCoroutine(guard.identify(shown))
        refused: Refused = self.failureResultOf(deferred, Refused).value
        return refused


class IdentityTests(GuardCase):
    """L{Guard.identify}."""

    def test_nothing_asked(self) -> None:
        """Where nothing is asked for, everybody is an admin without a name."""
        self.assertEqual(Caller(address=HERE, role=Role.ADMIN), self.who(OPEN, b"Bearer x"))

    def test_credentials(self) -> None:
        """A name with its password, or a token, say who it is; the scheme in any case."""
        guard = self.guard()
        ann = Caller(address=HERE, role=Role.ADMIN, name="ann")
        self.assertEqual(ann, self.who(guard, basic("ann", "right")))
        self.assertEqual(ann, self.who(guard, basic("ann", "right").replace(b"Basic", b"BASIC")))
        web = Caller(address=HERE, role=Role.AGENT, name="web")
        self.assertEqual(web, self.who(guard, b"bearer  t "))

    def test_nothing_shown(self) -> None:
        """Who shows nothing is told what could be shown, and not taken for a liar."""
        refused = self.turned_away(self.guard())
        self.assertNotIsInstance(refused, Wrong)
        self.assertEqual(401, refused.status)
        schemes = [value.partition(b" ")[0] for _, value in refused.headers]
        self.assertEqual([b"Basic", b"Bearer"], schemes)
        refused = self.turned_away(self.guard(knowledge=Knowledge(tokens=TOKENS)))
        self.assertEqual([b'Bearer realm="dynbalance"'], [value for _, value in refused.headers])

    def test_wrong(self) -> None:
        """
        Whatever is wrong, the answer is the same, and neither it nor the log
        repeats a secret.
        """
        guard = self.guard()
        answers = set()
        with capturedLogs() as events:
            for wrong in (
                basic("ann", "s3cret"), basic("eve", "s3cret"), basic("eve", "right"),
                basic("", ""), b"Basic s3cret", b"Basic " + base64.b64encode(b"s3cret"),
                b"Basic \xff", b"Bearer s3cret", b"Bearer", b"Bearer s3cret x", b"Bearer \xe4",
                b"Digest s3cret", b"", b"s3cret",
            ):  # fmt: skip
                refused = self.turned_away(guard, wrong)
                self.assertIsInstance(refused, Wrong, wrong)
                answers.add((refused.status, str(refused), refused.headers))
        self.assertEqual(1, len(answers))
        self.assertEqual(14, len(events))
        self.assertNotIn("s3cret", repr(events) + repr(answers))

    def test_unknown_name_costs_the_same(self) -> None:
        """A password is checked for a name that nobody has, too."""
        self.turned_away(self.guard(), basic("eve", "right"))
        self.assertEqual(1, self.checked)

    def test_certificate(self) -> None:
        """A certificate is good for its role; what is shown in the request comes first."""
        shown = Certificate("box", frozenset({"box.example"}))
        knowledge = Knowledge(tokens=TOKENS, certificates=Role.AGENT)
        guard = self.guard(knowledge=knowledge)
        box = self.who(guard, certificate=shown)
        self.assertEqual(("box", Role.AGENT), (box.name, box.role))
        self.assertTrue(box.may_manage("box.example"))
        self.assertEqual("web", self.who(guard, b"Bearer t", certificate=shown).name)
        self.assertIsInstance(self.turned_away(guard, b"Bearer x", certificate=shown), Wrong)
        self.assertEqual(401, self.turned_away(guard).status)
        # Beside other credentials it is asked for, and is none itself.
        self.assertEqual(401, self.turned_away(self.guard(), certificate=shown).status)


class PasswordTests(GuardCase):
    """L{Passwords}, and how often one may guess."""

    def holder(self, name: str, secret: str) -> str | None:
        found = self.run_now(self.passwords.holder(Password(name, secret)))
        return found.name if found else None

    def test_remembered(self) -> None:
        """A password that was right is not checked again for a minute; a wrong one is."""
        for _ in range(3):
            self.assertEqual("ann", self.holder("ann", "right"))
        self.assertEqual(1, self.checked)
        self.assertEqual("bob", self.holder("bob", "right"))
        self.assertEqual(2, self.checked)
        for _ in range(2):
            self.assertIsNone(self.holder("ann", "wrong"))
        self.assertEqual(4, self.checked)
        self.clock.advance(passwords.LIFETIME)
        self.holder("ann", "right")
        self.assertEqual(5, self.checked)

    def test_nothing_of_it_is_kept(self) -> None:
        """What is remembered is no password, and differs from process to process."""
        self.holder("ann", "right")
        self.assertNotIn("right", repr(vars(self.passwords)))
        other = Passwords(USERS, self.in_thread, self.clock.seconds, b"another key")
        self.run_now(other.holder(Password("ann", "right")))
        self.assertNotEqual(set(self.passwords._known), set(other._known))

    def test_a_few_at_a_time(self) -> None:
        """Two are checked at once, a hundred wait, and more are refused."""
        checks: list[Deferred[bool]] = []

        def in_thread(check: Callable[[], bool]) -> Deferred[bool]:
            checks.append(Deferred())
            return checks[-1]

        slow = Passwords(USERS, in_thread, self.clock.seconds, b"key")
        room = passwords.AT_ONCE + passwords.WAITING
        asked = [
            Deferred.fromCoroutine(slow.holder(Password("ann", f"{number}")))
            for number in range(room)
        ]
        self.assertEqual(passwords.AT_ONCE, len(checks))
        more = Deferred.fromCoroutine(slow.holder(Password("ann", "more")))
        self.failureResultOf(more, Busy)
        for number in range(room):
            checks[number].callback(False)
        self.assertEqual([None] * room, [self.successResultOf(each) for each in asked])

    def test_busy_is_said(self) -> None:
        """Who cannot be judged now is told to come again."""
        slow = Passwords(USERS, lambda check: Deferred(), self.clock.seconds, b"key")
        guard = self.guard(knowledge=Knowledge(passwords=slow))
        shown = Shown(address=HERE, authorization=basic("ann", "x"))
        waiting = [
            Deferred.fromCoroutine(guard.identify(shown))
            for _ in range(passwords.AT_ONCE + passwords.WAITING)
        ]
        refused = self.turned_away(guard, basic("ann", "x"))
        self.assertEqual((503, ((b"retry-after", b"1"),)), (refused.status, refused.headers))
        for each in waiting:
            each.addErrback(lambda failure: None)
            each.cancel()

    def test_guesses(self) -> None:
        """
        An address may guess a few times; then it has to wait, but not who is
        known, and nobody elsewhere.
        """
        guard = self.guard()
        self.who(guard, basic("ann", "right"))
        for _ in range(GUESSES):
            self.assertEqual(401, self.turned_away(guard, basic("ann", "wrong")).status)
        checked = self.checked
        for secret in ("wrong", "right"):
            refused = self.turned_away(guard, basic("bob", secret))
            self.assertEqual(429, refused.status)
            self.assertEqual(((b"retry-after", b"%d" % PAUSE),), refused.headers)
        self.assertEqual(checked, self.checked)
        self.assertEqual("ann", self.who(guard, basic("ann", "right")).name)
        self.assertEqual("web", self.who(guard, b"Bearer t").name)
        self.assertEqual("bob", self.who(guard, basic("bob", "right"), address="192.0.2.2").name)
        self.clock.advance(PAUSE)
        self.assertEqual(401, self.turned_away(guard, basic("bob", "wrong")).status)


class AdmissionTests(GuardCase):
    """L{Guard.admit} and L{Guard.check_host}."""

    def status(self, call: Callable[..., None], *arguments: Any) -> int:
        try:
            call(*arguments)
        except Refused as refused:
            return refused.status
        return 200

    def test_networks(self) -> None:
        """Only the networks named are let in; a unix socket has none."""
        guard = self.guard(networks=(ip_network("10.0.0.0/8"), ip_network("2001:db8::/32")))
        for address, status in (
            ("10.1.2.3", 200), ("::ffff:10.1.2.3", 200), ("2001:db8::1", 200), ("", 200),
            ("11.0.0.1", 403), ("::1", 403), ("name", 403),
        ):  # fmt: skip
            self.assertEqual(status, self.status(guard.admit, address), address)
        self.assertEqual(200, self.status(self.guard().admit, "11.0.0.1"))

    def test_rate(self) -> None:
        """Above the limit comes 429 with the seconds to wait; wrong credentials cost more."""
        guard = self.guard(limit=Buckets(0.5, 8, self.clock.seconds))
        self.assertEqual([200] * 8, [self.status(guard.admit, HERE) for _ in range(8)])
        refused = self.assertRaises(Refused, guard.admit, HERE)
        self.assertEqual((429, ((b"retry-after", b"2"),)), (refused.status, refused.headers))
        self.assertEqual(200, self.status(guard.admit, "192.0.2.2"))
        self.assertEqual(200, self.status(guard.admit, ""))
        self.clock.advance(16)
        guard.admit(HERE)
        self.turned_away(guard, b"Bearer wrong")
        self.assertEqual([200, 200, 429], [self.status(guard.admit, HERE) for _ in range(3)])

    def test_host(self) -> None:
        """
        An API that asks for nothing is called by an address or by a name of
        this machine, never by a name that anybody could have.
        """
        guard = Guard(Knowledge(asks=False), hosts=("lb.example",))
        for host in (b"localhost", b"LOCALHOST:8081", b"a.localhost", b"127.0.0.1:1", b"[::1]:1",
                     b"10.0.0.1", b"lb.example:80", b"Lb.Example.", b"", None):  # fmt: skip
            self.assertEqual(200, self.status(guard.check_host, HERE, host), host)
        for host in (b"evil.example", b"localhost.evil.example", b"127.0.0.1.evil.example", b"a",
                     b"[::1", b"\xff", b"user@evil.example", b"lb.example.evil"):  # fmt: skip
            self.assertEqual(403, self.status(guard.check_host, HERE, host), host)
        self.assertEqual(200, self.status(guard.check_host, "", b"evil.example"))
        self.assertEqual(200, self.status(self.guard().check_host, HERE, b"evil.example"))

    def test_strangers(self) -> None:
        """Orders from pages of another origin are refused, by whichever field says so."""
        for origin, site, status in (
            (None, None, 200), (b"http://a:1", None, 200), (None, b"same-origin", 200),
            (None, b"none", 200), (b"HTTPS://A:1", b"same-origin", 200),
            (b"http://b", b"same-origin", 200),
            (b"http://b", None, 403), (b"null", None, 403), (b"http://[", None, 403),
            (None, b"cross-site", 403), (None, b"same-site", 403), (b"http://a:1", b"x", 403),
        ):  # fmt: skip
            found = self.status(refuse_strangers, origin, site, b"A:1")
            self.assertEqual(status, found, (origin, site))


class RoleTests(SynchronousTestCase):
    """What a role lets do."""

    def caller(self, role: Role, address: str = HERE, hosts: tuple[str, ...] = ()) -> Caller:
        return Caller(address=address, role=role, name="n", hosts=frozenset(hosts))

    def test_order(self) -> None:
        """Each role may do what those before it may; a refusal names what is missing."""
        for role in Role:
            for needed in Role:
                allowed = list(Role).index(role) >= list(Role).index(needed)
                if allowed:
                    require(self.caller(role), needed, "x")
                else:
                    refused = self.assertRaises(Refused, require, self.caller(role), needed, "x")
                    self.assertEqual(
                        (403, f"x needs the role {needed.value}; n@{HERE} has {role.value}"),
                        (refused.status, str(refused)),
                    )

    def test_own_servers(self) -> None:
        """An agent's servers are those of its own address and of its hosts."""
        agent = self.caller(Role.AGENT, hosts=("a.example",))
        for host in (HERE, "a.example"):
            refuse_others(agent, host)
        for host in ("192.0.2.2", "b.example", ""):
            self.assertRaises(Refused, refuse_others, agent, host)
        refuse_others(self.caller(Role.AGENT, "::ffff:10.0.0.1"), "10.0.0.1")
        self.assertRaises(Refused, refuse_others, self.caller(Role.AGENT, ""), "")
        refuse_others(self.caller(Role.ADMIN), "192.0.2.2")


class BucketTests(SynchronousTestCase):
    """L{Buckets}."""

    def test_memory_is_bounded(self) -> None:
        """Of a flood of addresses those that came last are remembered."""
        clock = Clock()
        buckets = Buckets(1, 1, clock.seconds)
        for number in range(10_500):
            buckets.take(f"10.0.{number >> 8}.{number & 255}")
        self.assertEqual("<Buckets of 10000 addresses>", repr(buckets))
        self.assertEqual(1, buckets.wait("10.0.41.3"))
        self.assertEqual(0, buckets.wait("10.0.0.1"))

    def test_site_of_v6(self) -> None:
        """Who has a /64 has one bucket."""
        clock = Clock()
        buckets = Buckets(1, 1, clock.seconds)
        buckets.take("2001:db8::1")
        self.assertEqual(1, buckets.wait("2001:db8::2:3"))
        self.assertEqual(0, buckets.wait("2001:db8:0:1::1"))

    def test_debt_is_bounded(self) -> None:
        """However much was taken, what a bucket holds is its longest debt."""
        clock = Clock()
        buckets = Buckets(1, 10, clock.seconds)
        for _ in range(100):
            buckets.take("a", 5)
        self.assertEqual(11, buckets.wait("a"))
        clock.advance(1000)
        self.assertEqual(0, buckets.wait("a"))
