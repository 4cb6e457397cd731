import os
import ssl
import warnings
from pathlib import Path
from typing import Any

from twisted.internet.error import ConnectionDone

from dynbalance.config import CertificateConfig, HttpTlsConfig, ListenerTlsConfig, ServerTlsConfig
from dynbalance.errors import ConfigError
from dynbalance.net.proxyprotocol import header
from dynbalance.net.tls import ClientTls, HandshakeFailed, KeyPair, ServerTls
from tests.net.authority import Authority, client_context
from tests.net.building import HalfNotes
from tests.net.tlscase import TlsCase


class ServerTlsTests(TlsCase):
    """What a listener shows and asks."""

    def subject(self, peer: Any) -> set[str]:
        """The names of the certificate that C{peer} was shown."""
        return {name for _, name in peer.ssl.getpeercert()["subjectAltName"]}

    def test_verified_by_a_client(self) -> None:
        """A client that trusts the authority takes the certificate, for its names only."""
        port, _ = self.serve()
        self.assertEqual(self.call(port).handshake().ssl.version(), "TLSv1.3")
        wrong = self.try_handshake(self.call(port, name="b.example"))
        self.assertIsInstance(wrong, ssl.SSLCertVerificationError)
        self.pump.until(lambda: self.listener.failed)

    def test_versions(self) -> None:
        """TLS 1.2 and 1.3 are spoken; what is older is refused."""
        port, _ = self.serve()
        newest = ssl.TLSVersion.TLSv1_2
        peer = self.call(port, client_context(self.authority.file, newest=newest)).handshake()
        self.assertEqual(peer.ssl.version(), "TLSv1.2")
        self.assertIn("ECDHE", peer.ssl.cipher()[0])
        self.assertIn("GCM", peer.ssl.cipher()[0])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            old = client_context(newest=ssl.TLSVersion.TLSv1_1, oldest=ssl.TLSVersion.TLSv1)
        failed = self.try_handshake(self.call(port, old))
        self.assertIn("protocol version", str(failed).lower().replace("_", " "))

    def test_no_resumption(self) -> None:
        """Every handshake is a whole one."""
        port, factory = self.serve()
        for newest in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = client_context(self.authority.file, newest=newest)
            self.pump.settle()
            factory.built.clear()
            first = self.call(port, context).handshake()
            self.pump.until(lambda: factory.built)
            factory.built.pop().transport.write(b"hello")
            first.expect(b"hello")
            session = first.ssl.session
            again = self.call(port, context)
            again.ssl = context.wrap_bio(
                again._in, again._out, server_hostname="a.example", session=session
            )
            again.handshake()
            self.assertFalse(again.ssl.session_reused)

    def test_names(self) -> None:
        """Of several certificates the one for the name is shown, else the first."""
        pairs = [
            self.pair_a,
            self.authority.issue("B.example", "c.example", file="b"),
            self.authority.issue("*.wild.example", file="w"),
            self.authority.issue("x.wild.example", file="x"),
        ]
        port, factory = self.serve(ServerTls(pairs))
        for name, shown in (
            ("a.example", "a.example"),
            ("b.example", "c.example"),
            ("c.EXAMPLE", "c.example"),
            ("y.wild.example", "*.wild.example"),
            ("x.wild.example", "x.wild.example"),
            ("y.y.wild.example", "a.example"),
            ("wild.example", "a.example"),
            ("other.example", "a.example"),
            ("", "a.example"),
        ):
            context = client_context(self.authority.file)
            context.check_hostname = False
            peer = self.call(port, context, name).handshake()
            self.assertIn(shown, self.subject(peer))
            self.pump.until(lambda: factory.built)
            self.assertEqual(factory.built.pop().transport.server_name, name.lower())

    def test_alpn(self) -> None:
        """Our order counts; who offers only other protocols is told so and refused."""
        port, factory = self.serve(ServerTls([self.pair_a], alpn=("h2", "http/1.1")))
        both = client_context(self.authority.file, alpn=("http/1.1", "h2"))
        self.assertEqual(self.call(port, both).handshake().ssl.selected_alpn_protocol(), "h2")
        other = client_context(self.authority.file, alpn=("imap",))
        failed = self.try_handshake(self.call(port, other))
        self.assertIn("no application protocol", str(failed).lower().replace("_", " "))
        self.pump.until(lambda: self.listener.failed)
        self.assertEqual(len(factory.built), 1)

    def test_alpn_of_every_name(self) -> None:
        """Protocols are chosen whichever certificate is shown."""
        other = self.authority.issue("b.example", file="b")
        port, _ = self.serve(ServerTls([self.pair_a, other], alpn=("h2",)))
        peer = self.call(port, client_context(self.authority.file, alpn=("h2",)), "b.example")
        self.assertEqual(peer.handshake().ssl.selected_alpn_protocol(), "h2")

    def test_client_certificates(self) -> None:
        """With client_ca a client needs a certificate from there, under every name."""
        mine = Authority(self.authority.directory, "clients")
        other = self.authority.issue("b.example", file="b")
        tls = ServerTls([self.pair_a, other], client_ca=mine.file)
        port, factory = self.serve(tls)
        good = mine.issue("client", file="good", client=True)
        for name in ("a.example", "b.example"):
            peer = self.call(port, client_context(self.authority.file, good), name).handshake()
            self.pump.until(lambda: factory.built)
            shown = factory.built.pop().transport.getPeerCertificate().to_cryptography()
            self.assertEqual(shown.issuer, mine.name)
            peer.send(b"x")
        bad = (
            None,
            self.authority.issue("client", file="foreign", client=True),
            mine.issue("client", file="late", client=True, ends=-0.5),
            mine.issue("client", file="wrong"),
        )
        for newest in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            for pair in bad:
                for name in ("a.example", "b.example"):
                    before = self.listener.failed
                    peer = self.call(
                        port, client_context(self.authority.file, pair, newest=newest), name
                    )
                    self.try_handshake(peer)
                    self.pump.until(lambda before=before: self.listener.failed > before)
        self.assertEqual(factory.built, [])

    def test_replaced(self) -> None:
        """New connections see a new certificate; those that stand go on; a bad one is none."""
        port, factory = self.serve()
        old = self.call(port).handshake()
        self.pump.until(lambda: factory.built)
        # A client in the middle of its handshake keeps what it began with.
        middle = self.call(port)
        self.pump.until(lambda: self.listener.active)
        self.authority.issue("new.example", file="a")
        swap = self.listener.tls.reread()
        self.assertIn("a.example", self.subject(self.call(port).handshake()))
        swap()
        new = self.call(port, name="new.example").handshake()
        self.assertIn("new.example", self.subject(new))
        old.send(b"still")
        self.pump.until(lambda: factory.built[0].got)
        factory.built[0].transport.write(b"here")
        old.expect(b"here")
        middle.handshake()
        Path(self.pair_a.key).write_bytes(b"nonsense")
        with self.assertRaises(ConfigError) as caught:
            self.listener.tls.reread()
        said = f"tls.key: {self.pair_a.key} holds no private key in PEM form"
        self.assertEqual(caught.exception.problems, [said])
        self.call(port, name="new.example").handshake()

    def test_names_change(self) -> None:
        """Names that a certificate is not for any more lead to the first one."""
        other = self.authority.issue("b.example", file="b")
        port, _ = self.serve(ServerTls([self.pair_a, other]))
        self.authority.issue("c.example", file="b")
        self.listener.tls.reread()()
        for name, shown in (("b.example", "a.example"), ("c.example", "c.example")):
            context = client_context(self.authority.file)
            context.check_hostname = False
            self.assertIn(shown, self.subject(self.call(port, context, name).handshake()))

    def test_of_the_file(self) -> None:
        """The tables of the configuration become what they say."""
        http = HttpTlsConfig(certificate=self.pair_a.certificate, key=self.pair_a.key)
        stream = ListenerTlsConfig(certificate=self.pair_a.certificate, key=self.pair_a.key)
        other = self.authority.issue("b.example", file="b")
        several = ListenerTlsConfig(
            certificates=(
                CertificateConfig(certificate=self.pair_a.certificate, key=self.pair_a.key),
                CertificateConfig(certificate=other.certificate, key=other.key),
            )
        )
        port, _ = self.serve(ServerTls.of(several, "tls"))
        for name, shown in (("b.example", "b.example"), ("a.example", "a.example")):
            peer = self.call(port, client_context(self.authority.file), name).handshake()
            self.assertIn(shown, self.subject(peer))
        for settings, agreed in ((http, "h2"), (stream, None)):
            port, _ = self.serve(ServerTls.of(settings, "tls"))
            peer = self.call(port, client_context(self.authority.file, alpn=["h2"])).handshake()
            self.assertEqual(peer.ssl.selected_alpn_protocol(), agreed)


    def test_turned_away(self) -> None:
        """Who is one too many is closed before the handshake."""
        came: list[Any] = []

        def turns_away(address: Any) -> bool:
            came.append(address.host)
            return len(came) > 1

        port, factory = self.serve(turns_away=turns_away)
        self.call(port).handshake()
        self.assertIsNotNone(self.try_handshake(self.call(port)))
        self.assertEqual((["127.0.0.1"] * 2, 1), (came, len(factory.built)))
        self.assertEqual((0, 0), (self.listener.active, self.listener.failed))


class FileTests(TlsCase):
    """What may be wrong with files."""

    def problems(self, *pairs: KeyPair, **options: Any) -> list[str]:
        with self.assertRaises(ConfigError) as caught:
            ServerTls(pairs, option="http[0].tls", **options)
        return caught.exception.problems

    def file(self, name: str, content: bytes) -> str:
        path = self.authority.directory / name
        path.write_bytes(content)
        return str(path)

    def test_missing(self) -> None:
        """Each file that is not there is named with its option, all at once."""
        self.assertEqual(
            self.problems(KeyPair("/no/cert", "/no/key"), client_ca="/no/ca"),
            [
                "http[0].tls.certificate: /no/cert: No such file or directory",
                "http[0].tls.key: /no/key: No such file or directory",
                "http[0].tls.client_ca: /no/ca: No such file or directory",
            ],
        )

    def test_several(self) -> None:
        """Of several pairs the place is named; what they share is named once."""
        more = KeyPair(self.pair_a.certificate, "/no", ".certificates[0]")
        self.assertEqual(
            self.problems(self.pair_a, more, client_ca="/ca"),
            [
                "http[0].tls.client_ca: /ca: No such file or directory",
                "http[0].tls.certificates[0].key: /no: No such file or directory",
            ],
        )

    def test_not_what_it_should_be(self) -> None:
        """A key is no certificate, and nonsense is neither."""
        key, cert = self.pair_a.key, self.pair_a.certificate
        nonsense = self.file("nonsense", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END")
        self.assertEqual(
            self.problems(KeyPair(key, cert)),
            [
                f"http[0].tls.certificate: {key} holds no certificate in PEM form",
                f"http[0].tls.key: {cert} holds no private key in PEM form",
            ],
        )
        self.assertEqual(
            self.problems(KeyPair(nonsense, nonsense), client_ca=nonsense),
            [
                f"http[0].tls.certificate: {nonsense} holds no certificate in PEM form",
                f"http[0].tls.key: {nonsense} holds no private key in PEM form",
                f"http[0].tls.client_ca: {nonsense} holds no certificate in PEM form",
            ],
        )

    def test_directory(self) -> None:
        """A directory is not a file."""
        directory = str(self.authority.directory)
        self.assertEqual(
            self.problems(KeyPair(directory, self.pair_a.key)),
            [f"http[0].tls.certificate: {directory}: {os.strerror(21)}"],
        )

    def test_wrong_key(self) -> None:
        """A key that belongs to another certificate is refused."""
        other = self.authority.issue("b.example", file="b")
        self.assertEqual(
            self.problems(KeyPair(self.pair_a.certificate, other.key)),
            [f"http[0].tls.key: {other.key} is not the key of {self.pair_a.certificate}"],
        )

    def test_password(self) -> None:
        """A key with a password is refused, and nobody is asked for the password."""
        pair = self.authority.issue("b.example", file="b", password=b"secret")
        self.assertEqual(
            self.problems(pair),
            [f"http[0].tls.key: {pair.key} is protected by a password; it must not be"],
        )

    def test_of_an_upstream(self) -> None:
        """An upstream's files are checked alike."""
        with self.assertRaises(ConfigError) as caught:
            ClientTls.of(
                ServerTlsConfig(ca="/no/ca", certificate="/no/cert", key="/no/key"),
                "upstreams.api.tls",
            )
        self.assertEqual(
            caught.exception.problems,
            [
                "upstreams.api.tls.certificate: /no/cert: No such file or directory",
                "upstreams.api.tls.key: /no/key: No such file or directory",
                "upstreams.api.tls.ca: /no/ca: No such file or directory",
            ],
        )

    def test_chain(self) -> None:
        """Certificates behind the first are shown with it."""
        chain = self.file(
            "chain.pem",
            Path(self.pair_a.certificate).read_bytes() + Path(self.authority.file).read_bytes(),
        )
        port, _ = self.serve(ServerTls([KeyPair(chain, self.pair_a.key)]))
        peer = self.call(port).handshake()
        # Python tells the chain since 3.13 only; its length shows in what OpenSSL got.
        self.assertIn("a.example", str(peer.ssl.getpeercert()["subjectAltName"]))
        self.assertGreater(self.flight(chain), self.flight(self.pair_a.certificate) + 300)

    def flight(self, certificate: str) -> int:
        """Bytes that a server says in a handshake."""
        port, _ = self.serve(ServerTls([KeyPair(certificate, self.pair_a.key)]))
        peer = self.call(port)
        read, total = peer.peer.read, 0

        def count() -> None:
            nonlocal total
            before = len(peer.peer.got)
            read()
            total += len(peer.peer.got) - before

        peer.peer.read = count  # type: ignore[method-assign]
        peer.handshake()
        return total


class ClientTlsTests(TlsCase):
    """TLS to servers."""

    def test_reread(self) -> None:
        """The authorities to trust may change; a file that is of no use changes nothing."""
        other = Authority(self.authority.directory, "other")
        tls = ClientTls(ca=other.file, option="upstreams.api.tls")
        self.assertIn("its issuer is not known", self.refused(tls))
        good = Path(self.authority.file).read_bytes()
        Path(other.file).write_bytes(good)
        swap = tls.reread()
        self.assertIn("its issuer is not known", self.refused(tls))
        swap()
        self.reached(tls)
        Path(other.file).write_bytes(b"nonsense")
        with self.assertRaises(ConfigError) as caught:
            tls.reread()
        said = f"upstreams.api.tls.ca: {other.file} holds no certificate in PEM form"
        self.assertEqual(caught.exception.problems, [said])
        self.reached(tls)

    def refused(
        self, tls: ClientTls | None = None, pair: KeyPair | None = None, **options: Any
    ) -> str:
        """What is said of a server that shows C{pair}."""
        backend = self.backend()
        dialed = self.dial(backend.port, tls, **options)
        peer = self.answer(backend, pair)
        self.try_handshake(peer)
        self.pump.until(lambda: dialed.failed)
        self.assertIsNone(dialed.protocol)
        self.assertIsInstance(dialed.failed, HandshakeFailed)
        return str(dialed.failed)

    def reached(
        self, tls: ClientTls | None = None, pair: KeyPair | None = None, **options: Any
    ) -> Any:
        """The protocol, and the server."""
        backend = self.backend()
        dialed = self.dial(backend.port, tls, **options)
        peer = self.answer(backend, pair).handshake()
        self.pump.until(lambda: dialed.protocol)
        return dialed.protocol, peer

    def test_reached(self) -> None:
        """A server that is who it should be can be talked to."""
        protocol, peer = self.reached()
        protocol.transport.write(b"question")
        peer.expect(b"question")
        peer.send(b"answer")
        self.pump.until(lambda: protocol.got)
        self.assertEqual(protocol.got, b"answer")
        self.assertEqual(protocol.transport.getPeer().host, "127.0.0.1")

    def test_by_address(self) -> None:
        """A server known by its IP address needs it in its certificate, and is sent no name."""
        self.reached(host="127.0.0.1")
        only_name = self.authority.issue("a.example", file="n")
        self.assertEqual(
            self.refused(pair=only_name, host="127.0.0.1"),
            "the TLS handshake failed: the certificate is for a.example, not for 127.0.0.1",
        )

    def test_name_is_sent(self) -> None:
        """The host's name is asked for, or the server_name instead; an address never is."""
        for host, server_name, asked in (
            ("a.example", "", "a.example"),
            ("a.example.", "", "a.example"),
            ("127.0.0.1", "", None),
            ("10.0.0.1", "a.example", "a.example"),
        ):
            backend = self.backend()
            tls = ClientTls(ca=self.authority.file, server_name=server_name)
            dialed = self.dial(backend.port, tls, host=host)
            peer = self.answer(backend)
            names: list[Any] = []
            peer.ssl.context.sni_callback = lambda skt, name, context, to=names: to.append(name)
            peer.handshake()
            self.pump.until(lambda dialed=dialed: dialed.protocol)
            self.assertEqual(names, [asked])

    def test_wrong_name(self) -> None:
        """A certificate for somebody else is refused, and it is said whose it is."""
        self.assertEqual(
            self.refused(host="b.example"),
            "the TLS handshake failed: "
            "the certificate is for a.example, 127.0.0.1, not for b.example",
        )
        tls = ClientTls(ca=self.authority.file, server_name="c.example")
        self.assertIn("not for c.example", self.refused(tls, host="a.example"))

    def test_no_names(self) -> None:
        """A certificate without alternative names is nobody's, whatever its subject says."""
        nobody = self.authority.issue(file="nobody")
        self.assertIn(
            "the certificate is for nobody, not for somebody",
            self.refused(pair=nobody, host="somebody"),
        )

    def test_wildcard(self) -> None:
        """A wildcard stands for one label."""
        wild = self.authority.issue("*.example.org", file="w")
        self.reached(pair=wild, host="x.example.org")
        self.assertIn("not for y.x.example.org", self.refused(pair=wild, host="y.x.example.org"))

    def test_expired(self) -> None:
        """An expired certificate is refused for that, and one of tomorrow too."""
        late = self.authority.issue("a.example", file="late", begins=-9, ends=-1)
        self.assertEqual(
            self.refused(pair=late),
            "the TLS handshake failed: the certificate is not good: it has expired",
        )
        early = self.authority.issue("a.example", file="early", begins=1)
        self.assertIn("it is not valid yet", self.refused(pair=early))

    def test_self_signed(self) -> None:
        """A self-signed certificate is refused, unless it is what is trusted."""
        own = self.authority.issue("a.example", file="own", self_signed=True)
        self.assertEqual(
            self.refused(pair=own),
            "the TLS handshake failed: "
            "the certificate is not good: it is self-signed and not trusted",
        )
        self.reached(ClientTls(ca=own.certificate), pair=own)

    def test_foreign_authority(self) -> None:
        """So is one of an authority that is not trusted, by default all but the system's."""
        foreign = Authority(self.authority.directory, "foreign").issue("a.example", file="f")
        self.assertIn("its issuer is not known", self.refused(pair=foreign))
        self.assertIn("its issuer is not known", self.refused(ClientTls()))

    def test_wrong_use(self) -> None:
        """A client's certificate does not make a server."""
        client = self.authority.issue("a.example", file="c", client=True)
        self.assertIn("it is not meant for this use", self.refused(pair=client))

    def test_not_verified(self) -> None:
        """Without verify anybody will do."""
        own = self.authority.issue(file="own", self_signed=True, ends=-0.5)
        protocol, peer = self.reached(ClientTls(verify=False), pair=own, host="x.example")
        protocol.transport.write(b"question")
        peer.expect(b"question")
        self.reached(ClientTls(verify=False), host="")

    def test_client_certificate(self) -> None:
        """A server that asks for our certificate gets it."""
        ours = self.authority.issue("us", file="us", client=True)
        backend = self.backend()
        tls = ClientTls(ca=self.authority.file, certificate=ours.certificate, key=ours.key)
        dialed = self.dial(backend.port, tls)
        peer = self.answer(backend, client_ca=self.authority.file).handshake()
        self.pump.until(lambda: dialed.protocol)
        self.assertIn("us", str(peer.ssl.getpeercert()))

    def test_without_client_certificate(self) -> None:
        """Without one the server's refusal is told to the protocol, with its reason."""
        backend = self.backend()
        dialed = self.dial(backend.port)
        peer = self.answer(backend, client_ca=self.authority.file)
        self.try_handshake(peer)
        self.pump.until(lambda: dialed.protocol and dialed.protocol.lost)
        self.assertIn("certificate required", str(dialed.protocol.lost[0]))

    def test_not_shown_to_the_wrong_server(self) -> None:
        """Our certificate is not shown to a server that is not who it should be."""
        ours = self.authority.issue("us", file="us", client=True)
        backend = self.backend()
        tls = ClientTls(ca=self.authority.file, certificate=ours.certificate, key=ours.key)
        dialed = self.dial(backend.port, tls, host="b.example")
        peer = self.answer(backend, client_ca=self.authority.file)
        # With a certificate, which is a good one, it would come to its end here.
        self.assertIn("alert", str(self.try_handshake(peer)).lower())
        self.pump.until(lambda: dialed.failed)

    def test_no_certificate_possible(self) -> None:
        """Hosts that no certificate can be for fail before a byte is sent."""
        for host, why in (
            ("", "there is no server_name to verify"),
            ("*.example", "no certificate can be for '*.example'"),
            ("b\u00fccher.example", "'b\u00fccher.example' is not a server's name"),
        ):
            backend = self.backend()
            dialed = self.dial(backend.port, host=host)
            self.pump.until(lambda dialed=dialed: dialed.failed)
            self.assertEqual(str(dialed.failed), f"the TLS handshake failed: {why}")
            peer = backend.accept()
            self.closing.append(peer)
            peer.expect_end()
            self.assertEqual(peer.got, b"")

    def test_no_tls(self) -> None:
        """A server that does not speak TLS, or goes, is a failure with a reason."""
        for said, why in (
            (b"HTTP/1.1 400 Bad Request\r\n\r\n", "wrong version number|too long"),
            (b"", "closed the connection during the handshake"),
        ):
            backend = self.backend()
            dialed = self.dial(backend.port)
            peer = backend.accept()
            self.closing.append(peer)
            if said:
                peer.send(said)
            else:
                peer.end()
            self.pump.until(lambda dialed=dialed: dialed.failed)
            self.assertRegex(str(dialed.failed), why)

    def test_reset(self) -> None:
        """A reset during the handshake is one failure."""
        backend = self.backend()
        dialed = self.dial(backend.port)
        peer = backend.accept()
        self.pump.settle()
        peer.abort()
        self.pump.until(lambda: dialed.failed)
        self.assertIn("during the handshake", str(dialed.failed))

    def test_nobody_listens(self) -> None:
        """What fails before TLS is told as it is without TLS."""
        backend = self.backend()
        backend.close()
        dialed = self.dial(backend.port)
        self.pump.until(lambda: dialed.failed)
        self.assertNotIsInstance(dialed.failed, HandshakeFailed)

    def test_cancel(self) -> None:
        """A dial can be given up before and during the handshake, silently."""
        for connected in (False, True):
            backend = self.backend()
            dialed = self.dial(backend.port)
            if connected:
                peer = backend.accept()
                self.closing.append(peer)
                self.pump.until(lambda peer=peer: peer.read() or peer.got)
            dialed.dial.cancel()
            dialed.dial.cancel()
            self.pump.settle()
            self.assertEqual((dialed.failed, dialed.protocol), (None, None))

    def test_greeting(self) -> None:
        """A PROXY header goes out in clear before the handshake."""
        greeting = header(1, None, None)
        backend = self.backend()
        dialed = self.dial(backend.port, greeting=greeting)
        peer = self.answer(backend)
        self.pump.until(lambda: peer.peer.read() or len(peer.peer.got) > len(greeting))
        self.assertEqual(bytes(peer.peer.got[: len(greeting)]), greeting)
        del peer.peer.got[: len(greeting)]
        peer.handshake()
        self.pump.until(lambda: dialed.protocol)

    def test_alpn(self) -> None:
        """Protocols can be offered."""
        backend = self.backend()
        tls = ClientTls.of(ServerTlsConfig(ca=self.authority.file), "tls", ("http/1.1",))
        dialed = self.dial(backend.port, tls)
        peer = self.answer(backend)
        peer.ssl.context.set_alpn_protocols(["http/1.1"])
        peer.handshake()
        self.pump.until(lambda: dialed.protocol)
        self.assertEqual(dialed.protocol.transport.negotiatedProtocol, b"http/1.1")

    def test_tickets_do_not_cost_the_last_bytes(self) -> None:
        """We hear a server's tickets before we close, or close in the end without its answer."""
        for answers in (True, False):
            backend = self.backend()
            dialed = self.dial(backend.port)
            peer = self.answer(backend)
            # The tickets leave with the end of the handshake.
            peer.handshake()
            self.pump.until(lambda dialed=dialed: dialed.protocol)
            transport = dialed.protocol.transport
            transport.pauseProducing()
            transport.write(b"x" * 100_000)
            transport.loseConnection()
            peer.expect(b"x" * 100_000)
            peer.expect_end()
            self.assertFalse(peer.peer.reset)
            self.pump.settle()
            self.assertEqual(dialed.protocol.lost, [])
            if answers:
                peer.end()
                peer.peer.close()
            else:
                self.pump.advance(5.0)
            self.pump.until(lambda dialed=dialed: dialed.protocol.lost)
            self.assertIsInstance(dialed.protocol.lost[0], ConnectionDone)

    def test_no_lingering_after_data(self) -> None:
        """Once the server has said something, its tickets have been heard."""
        protocol, peer = self.reached()
        peer.send(b"x")
        self.pump.until(lambda: protocol.got)
        protocol.transport.loseConnection()
        self.pump.until(lambda: protocol.lost)

    def test_lingering_is_not_half_a_close(self) -> None:
        """A protocol that has closed hears of no halves, but of the end."""
        backend = self.backend()
        dialed = self.dial(backend.port, kind=HalfNotes)
        peer = self.answer(backend).handshake()
        self.pump.until(lambda: dialed.protocol)
        dialed.protocol.transport.loseConnection()
        peer.expect_end()
        self.pump.settle()
        peer.peer.close()
        self.pump.until(lambda: dialed.protocol.lost)
        self.assertEqual(dialed.protocol.ends, [])

    def test_lost_while_lingering(self) -> None:
        """An abort ends the waiting, and so does a reset."""
        for ours in (True, False):
            protocol, peer = self.reached()
            protocol.transport.loseConnection()
            self.pump.settle()
            if ours:
                protocol.transport.abortConnection()
            else:
                peer.peer.abort()
            self.pump.until(lambda protocol=protocol: protocol.lost)

    def test_ours_with_ours(self) -> None:
        """Our client reaches our listener, with certificates on both sides."""
        ours = self.authority.issue("us", file="us", client=True)
        port, factory = self.serve(ServerTls([self.pair_a], client_ca=self.authority.file))
        dialed = self.dial(
            port, ClientTls(ca=self.authority.file, certificate=ours.certificate, key=ours.key)
        )
        self.pump.until(lambda: dialed.protocol)
        dialed.protocol.transport.write(b"x" * 1_000_000)
        dialed.protocol.transport.loseConnection()
        self.pump.until(lambda: factory.built and factory.built[0].lost)
        self.assertEqual(factory.built[0].got, b"x" * 1_000_000)
