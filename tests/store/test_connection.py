"""
Tests for how L{dynbalance.store.redis} reaches a real server, and for what it
does when it cannot.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
import socket
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hiredis import ReplyError
from twisted.internet import reactor
from twisted.internet.defer import gatherResults
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.ssl import Certificate
from twisted.internet.task import deferLater
from twisted.protocols.basic import LineReceiver
from twisted.trial.unittest import TestCase

from dynbalance.errors import ServerExists, StoreUnavailable
from dynbalance.store.changes import Change, Edit
from dynbalance.store.endpoints import tcp_endpoint, tls_endpoint, unix_endpoint
from dynbalance.store.redis import RedisStore
from dynbalance.store.reports import Report
from tests.store.contract_suite import A, B, order
from tests.store.real import DEADLINE, Client, Server

clock: Any = reactor


def free_port() -> int:
    """A port of the loopback address that nobody had a moment ago."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


class _Connected(TestCase):
    """Servers and stores that end with the test."""

    def serve(self, *options: str) -> Server:
        server = Server(*options)
        self.addCleanup(server.end)
        return server

    def client(self, server: Server) -> Client:
        client = Client(server.path)
        self.addCleanup(client.close)
        return client

    async def opened(self, endpoint: IStreamClientEndpoint | Server, **more: Any) -> RedisStore:
        if isinstance(endpoint, Server):
            endpoint = unix_endpoint(reactor, endpoint.path)
        store = RedisStore(endpoint, clock, **more)
        self.addCleanup(store.close)
        await store.open()
        return store

    async def until(self, condition: Any) -> None:
        end = clock.seconds() + DEADLINE
        while not condition():
            self.assertLess(clock.seconds(), end)
            await deferLater(clock, 0.01)

    async def unavailable(self, store: RedisStore, text: str) -> None:
        """A write fails with C{text}, and the store says that it is away."""
        error = await self.assertFailure(store.add("default", order(), "ops"), StoreUnavailable)
        self.assertIn(text, str(error))
        self.assertFalse(store.available)


class ReachTests(_Connected):
    """Every way to a server."""

    async def test_tcp(self) -> None:
        """A server is reached by host and port."""
        port = free_port()
        self.serve("--port", str(port), "--bind", "127.0.0.1")
        store = await self.opened(tcp_endpoint(reactor, "127.0.0.1", port))
        await store.add("default", order(), "ops")
        self.assertEqual(1, len((await store.snapshot("default")).servers))

    async def test_password(self) -> None:
        """The default user's password is given; without it the server's text is told."""
        server = self.serve("--requirepass", "s3cret word")
        store = await self.opened(server, login=("s3cret word",))
        await store.add("default", order(), "ops")
        await self.unavailable(await self.opened(server), "NOAUTH")
        await self.unavailable(await self.opened(server, login=("wrong",)), "WRONGPASS")

    async def test_user(self) -> None:
        """A user of the access list needs only what the documentation names."""
        server = self.serve()
        rules = "on >pw ~upstream:* resetchannels -@all +@read +@write +@scripting +@connection"
        self.client(server)("ACL", "SETUSER", "lb", *rules.split(), "+time")
        store = await self.opened(server, login=("lb", "pw"))
        await store.add("default", order(), "ops")
        await store.sync("one", 10.0, {"default": Report(held={A: 1}, full=True)})
        await store.expire("default", 30.0)
        await store.recount("default")
        await store.leave("one", ["default"])
        await store.remove("default", A, "ops")
        other = await self.opened(server, login=("lb", "pw"), prefix="other")
        await self.unavailable(other, "NOPERM")

    async def test_database(self) -> None:
        """A database number keeps two deployments apart."""
        server = self.serve()
        store = await self.opened(server, db=3)
        await store.add("default", order(), "ops")
        client = self.client(server)
        self.assertEqual(0, client("DBSIZE"))
        client("SELECT", 3)
        self.assertEqual(1, client("EXISTS", "upstream:servers:meta"))
        await self.unavailable(await self.opened(server, db=99), "DB index")

    async def test_tls(self) -> None:
        """Over TLS the certificate must be the host's and signed by an authority we know."""
        port = free_port()
        server = self.serve()
        authority = _certificates(server.directory)
        server.kill()
        options = ["--tls-port", str(port), "--tls-auth-clients", "no", "--bind", "127.0.0.1"]
        for name in ("cert", "key", "ca-cert"):
            options += [f"--tls-{name}-file", os.path.join(server.directory, f"{name}.pem")]
        secure = self.serve(*options)
        known = [Certificate.loadPEM(authority)]
        for host in ("localhost", "127.0.0.1"):
            store = await self.opened(tls_endpoint(reactor, host, port, known))
            self.assertTrue(store.available, repr(store))
        await store.add("default", order(), "ops")
        self.assertEqual(1, self.client(secure)("HLEN", "upstream:servers:meta"))
        stranger = await self.opened(tls_endpoint(reactor, "localhost", port))
        await self.unavailable(stranger, "certificate verify failed")
        misnamed = _Renamed(port, known)
        await self.unavailable(await self.opened(misnamed), "VerificationError")

    async def test_nobody_there(self) -> None:
        """Opening a store that is away succeeds; calls fail at once and say why."""
        store = await self.opened(unix_endpoint(reactor, "/nonexistent/r.sock"))
        self.assertFalse(store.available)
        await self.unavailable(store, "not reached")


class _Renamed:
    """A TLS endpoint that asks 127.0.0.1 for the certificate of another host."""

    def __init__(self, port: int, known: list[Certificate]) -> None:
        self._options = tls_endpoint(reactor, "other.example", port, known)
        self._options._wrappedEndpoint = tcp_endpoint(reactor, "127.0.0.1", port)

    def connect(self, factory: Any) -> Any:
        return self._options.connect(factory)


def _certificates(directory: str) -> bytes:
    """Write a server's key and certificate; answer the authority's, as PEM."""
    now = dt.datetime.now(dt.timezone.utc)
    day = dt.timedelta(days=1)

    def build(name: str, key: Any, issuer: str) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - day)
            .not_valid_after(now + day)
        )

    ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    constraints = x509.BasicConstraints(ca=True, path_length=None)
    ca = build("test ca", ca_key, "test ca").add_extension(constraints, critical=True)
    names = x509.SubjectAlternativeName(
        [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    )
    cert = build("localhost", key, "test ca").add_extension(names, critical=False)
    pem = serialization.Encoding.PEM
    ca_pem = ca.sign(ca_key, hashes.SHA256()).public_bytes(pem)
    where = Path(directory)
    (where / "ca-cert.pem").write_bytes(ca_pem)
    (where / "cert.pem").write_bytes(cert.sign(ca_key, hashes.SHA256()).public_bytes(pem))
    (where / "key.pem").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return ca_pem


class TroubleTests(_Connected):
    """A server that fails."""

    async def test_flushed_scripts(self) -> None:
        """A server that forgot its scripts is taught them again."""
        server = self.serve()
        store = await self.opened(server)
        await store.add("default", order(), "ops")
        self.client(server)("SCRIPT", "FLUSH")
        await self.assertFailure(store.add("default", order(), "ops"), ServerExists)
        self.assertTrue(store.available)

    async def test_paused(self) -> None:
        """A server that does not answer costs one deadline, and is used again afterwards."""
        server = self.serve()
        store = await self.opened(server, timeout=0.2)
        await store.add("default", order(), "ops")
        server.pause()
        self.addCleanup(server.resume)
        before = clock.seconds()
        await self.unavailable(store, "no answer to add within 0.2 s")
        self.assertLess(clock.seconds() - before, 1.0)
        before = clock.seconds()
        await self.unavailable(store, "no answer to add")
        self.assertLess(clock.seconds() - before, 0.1)
        server.resume()
        await self.until(lambda: store.available)
        self.assertEqual(A, (await store.snapshot("default")).servers[0].order.address)

    async def test_late_answers(self) -> None:
        """The answers of calls that were given up reach nobody else."""
        server = self.serve()
        store = await self.opened(server, timeout=0.2)
        await store.add("default", order(B), "ops")
        server.pause()
        self.addCleanup(server.resume)
        lost = [store.add("default", order(A), "ops"), store.snapshot("default")]
        await gatherResults([self.assertFailure(call, StoreUnavailable) for call in lost])
        server.resume()
        await self.until(lambda: store.available)
        self.assertEqual(2, await store.recount("default"))
        self.assertEqual(B, (await store.beat("default", B, True)).order.address)

    async def test_large_order(self) -> None:
        """An order about thousands of servers has more time, and so has what is behind it."""
        store = await self.opened(self.serve(), timeout=0.1)
        orders = [order(f"10.0.{n >> 8}.{n & 255}:80") for n in range(10_000)]
        edits = tuple(Edit(address=each.address, order=each) for each in orders)
        amended = store.amend({"default": Change(edits=edits)}, "ops", "import")
        behind = store.sync("one", 10.0, {"default": Report(held={}, full=True)})
        self.assertEqual({"default": 1}, await amended)
        self.assertEqual(1, (await behind)["default"].revision)
        self.assertEqual(0.0, store._burden)

    async def test_restarted(self) -> None:
        """A server that was killed is found again when it is back."""
        server = self.serve()
        store = await self.opened(server)
        server.kill()
        await self.until(lambda: not store.available)
        await self.unavailable(store, "")
        server.start()
        await self.until(lambda: store.available)
        await store.add("default", order(), "ops")

    async def test_killed_within_call(self) -> None:
        """A call whose connection breaks fails at once."""
        server = self.serve()
        store = await self.opened(server, timeout=30.0)
        server.pause()
        call = store.snapshot("default")
        server.kill()
        error = await self.assertFailure(call, StoreUnavailable)
        self.assertIn("lost", str(error))

    async def test_full(self) -> None:
        """A server without memory refuses writes whole, and still tells what it has."""
        server = self.serve()
        client = self.client(server)
        store = await self.opened(server)
        client("CONFIG", "SET", "maxmemory", "1")
        await self.unavailable(store, "OOM")
        error = await self.assertFailure(
            store.sync("one", 10.0, {"default": Report(held={A: 1}, full=True)}), StoreUnavailable
        )
        self.assertIn("OOM", str(error))
        self.assertEqual((), (await store.snapshot("default")).servers)
        self.assertTrue(store.available)
        client("CONFIG", "SET", "maxmemory", "0")
        self.assertEqual(0, client("DBSIZE"))
        await store.add("default", order(), "ops")

    async def test_read_only(self) -> None:
        """A server that became a replica refuses writes with its own text."""
        server = self.serve()
        client = self.client(server)
        store = await self.opened(server)
        client("REPLICAOF", "127.0.0.1", free_port())
        await self.unavailable(store, "READONLY")
        client("REPLICAOF", "NO", "ONE")
        await store.add("default", order(), "ops")

    async def test_busy(self) -> None:
        """A server that somebody keeps busy says so."""
        server = self.serve("--lua-time-limit", "20")
        store = await self.opened(server)
        other, rescue = self.client(server), self.client(server)
        other.send("EVAL", "while true do end", 0)
        await deferLater(clock, 0.1)
        await self.unavailable(store, "BUSY")
        rescue("SCRIPT", "KILL")
        self.assertRaises(ReplyError, other.receive)
        await store.add("default", order(), "ops")

    async def test_refusals(self) -> None:
        """Whatever a server says instead of working, it is away, in its own words."""
        server = self.serve("--requirepass", "right")
        client = self.client(server)
        client("AUTH", "right")
        store = await self.opened(server, login=("right",))
        rules = "reset on >right ~upstream:* +@all -eval -evalsha"
        client("ACL", "SETUSER", "default", *rules.split())
        await self.unavailable(store, "NOPERM")
        client("ACL", "SETUSER", "default", "+eval", "+evalsha")
        await store.add("default", order(), "ops")

    async def test_loading(self) -> None:
        """A server that still reads its data is away until it has."""
        said: list[bytes] = []

        class Loading(LineReceiver):
            def lineReceived(self, line: bytes) -> None:
                if line == b"PING":
                    said.append(line)
                    self.sendLine(b"-LOADING Redis is loading the dataset in memory")

        factory = Factory.forProtocol(Loading)
        path = os.path.join(self.serve().directory, "loading.sock")
        port = reactor.listenUNIX(path, factory)
        self.addCleanup(port.stopListening)
        store = await self.opened(unix_endpoint(reactor, path))
        await self.unavailable(store, "LOADING")
        await self.until(lambda: len(said) > 1)
        await store.close()

    async def test_wrong_type(self) -> None:
        """A key that somebody uses for something else is told, and breaks no connection."""
        server = self.serve()
        self.client(server)("SET", "upstream:servers:meta", "mine")
        store = await self.opened(server)
        await self.unavailable(store, "WRONGTYPE")
        self.assertEqual(0, (await store.snapshot("api")).revision)

    async def test_senseless_answer(self) -> None:
        """A revision that is no number is told as the store's fault."""
        server = self.serve()
        self.client(server)("SET", "upstream:revision", "many")
        store = await self.opened(server)
        error = await self.assertFailure(store.snapshot("default"), StoreUnavailable)
        self.assertIn("makes no sense", str(error))

    async def test_closed(self) -> None:
        """A closed store ends its calls and stays closed."""
        server = self.serve()
        store = await self.opened(server)
        server.pause()
        self.addCleanup(server.resume)
        call = store.snapshot("default")
        await store.close()
        await self.assertFailure(call, StoreUnavailable)
        error = await self.assertFailure(store.snapshot("default"), StoreUnavailable)
        self.assertIn("closed", str(error))

    async def test_closed_within_login(self) -> None:
        """A store that is closed while it logs in leaves no connection."""
        server = self.serve()
        server.pause()
        self.addCleanup(server.resume)
        store = RedisStore(unix_endpoint(reactor, server.path), clock)
        opening = store.open()
        await deferLater(clock, 0.05)
        await store.close()
        await opening
        self.assertFalse(store.available)
