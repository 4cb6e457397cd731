"""
The configuration's classes and the file they are read from.
"""

from __future__ import annotations

import json
import pathlib
import re
import sys
from ipaddress import ip_network
from typing import Any, get_args, get_origin, get_type_hints

import attrs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import TestCase

from dynbalance.balancer.address import Address
from dynbalance.config import (
    AdminConfig,
    Config,
    HttpConfig,
    JwtConfig,
    OptionError,
    RouteConfig,
    StoreConfig,
    StoreKind,
    StoreUrl,
    StreamConfig,
    UpstreamConfig,
)
from dynbalance.config.endpointtext import EndpointText
from dynbalance.config.template import (
    KEY_VARIABLES,
    TRAFFIC_VARIABLES,
    Variable,
    parse_template,
)
from dynbalance.configfile import build, document_of, parse, read_toml
from dynbalance.errors import ConfigError
from dynbalance.hashes import hash_password, hash_token

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

EXAMPLE = pathlib.Path(__file__).parent.parent / "etc" / "dynbalance.toml"


def problems(text: str) -> list[str]:
    """What is said of a file that must be refused."""
    try:
        parse(text)
    except ConfigError as error:
        return error.problems
    raise AssertionError("the file was accepted")


class ParseTests(TestCase):
    """L{parse} makes a configuration or says all that is wrong."""

    def test_empty(self) -> None:
        """An empty file is all defaults: one listener of each kind."""
        self.assertEqual(Config(), parse(""))
        config = parse("")
        self.assertEqual(["tcp:8080"], [each.listen for each in config.http])
        self.assertEqual(["tcp:10000"], [each.listen for each in config.stream])

    def test_values(self) -> None:
        """Values of a file become typed, parsed and immutable values."""
        config = parse(
            """
            node = "lb-1"
            shutdown_timeout = 5
            [store]
            url = "redis://ops:p%40ss@[::1]:7000/3"
            [upstreams.api]
            policy = "round_robin"
            next_upstream = []
            servers = [{ address = "[0:0::1]:80", weight = 3, down = true }]
            [[http]]
            listen = "tcp:80"
            upstream = "api"
            routes = [{ host = "API.example", path = "/v1/", upstream = "default" }]
            trusted_proxies = ["10.0.0.0/8", "fd00::/8"]
            set_headers = { X-Client = "$remote_addr" }
            """
        )
        self.assertEqual(5.0, config.shutdown_timeout)
        self.assertIsInstance(config.shutdown_timeout, float)
        url = config.store.url
        self.assertEqual(("::1", 7000, 3), (url.host, url.port, url.db))
        self.assertEqual(("ops", "p@ss"), (url.user, url.password))
        api = config.upstreams["api"]
        self.assertEqual((), api.next_upstream)
        self.assertEqual(Address("::1", 80), api.servers[0].address)
        self.assertEqual({"api", "default"}, set(config.upstreams))
        http = config.http[0]
        self.assertEqual("api.example", http.routes[0].host)
        self.assertEqual((ip_network("10.0.0.0/8"), ip_network("fd00::/8")), http.trusted_proxies)
        with self.assertRaises(TypeError):
            http.set_headers["X-Other"] = ""

    def test_all_at_once(self) -> None:
        """Every mistake of every kind is reported in one go, by its path."""
        self.assertEqual(
            [
                'workers: expected an integer, got "two"',
                "shutdown_timeout: expected a number, got true",
                "upstreams.api.servers[0].weight: 0 is not in 1-65535",
                "upstreams.api.servers[1].address: port 70000 is not in 1-65535",
                "upstreams.api.servers[2].address: is missing",
                "upstreams.api.servers[3]: expected a table, got 5",
                'http[0].upstraem: unknown option; did you mean "upstream"?',
                'http[0].upstream: no upstream "x"',
            ],
            problems(
                    """
                    workers = "two"
                    shutdown_timeout = true
                    [upstreams.api]
                    servers = [
                        { address = "127.0.0.1:1", weight = 0 },
                        { address = "127.0.0.1:70000" },
                        { weight = 2 },
                        5,
                    ]
                    [[http]]
                    upstraem = "x"
                    upstream = "x"
                    """
            ),
        )

    def test_wrong_types(self) -> None:
        """TOML's types are not mixed: a bool is no integer, a string no array."""
        cases = {
            "workers = true": "workers: expected an integer, got true",
            "workers = 1.0": "workers: expected an integer, got 1.0",
            "node = 5": "node: expected a string, got 5",
            "demo = true": "demo: unknown option",
            'state_dir = "x"': "state_dir: unknown option",
            "http = 5": "http: expected an array, got 5",
            'store = "x"': 'store: expected a table, got "x"',
            "[heartbeat]\nreenable = 1": "heartbeat.reenable: expected true or false, got 1",
            "[heartbeat]\nttl = inf": "heartbeat.ttl: inf is not a finite number",
            "[heartbeat]\nttl = 1979-05-27": "heartbeat.ttl: expected a number, got 1979-05-27",
            '[upstreams.a]\nnext_upstream = "error"': (
                'upstreams.a.next_upstream: expected an array, got "error"'
            ),
            "[upstreams]\na = []": "upstreams.a: expected a table, got an array",
            "[[http]]\nset_headers = []": "http[0].set_headers: expected a table, got an array",
            "[[http]]\nset_headers = { A = 1 }": (
                "http[0].set_headers.A: expected a string, got 1"
            ),
            '[upstreams."a:b"]': (
                "upstreams.\"a:b\": 'a:b' is not a name of 1-64 letters, digits, '_', '.' and '-'"
            ),
            '["a\\nb"]': '"a\\nb": unknown option',
        }
        for text, problem in cases.items():
            self.assertEqual([problem], problems(text), text)

    def test_ranges(self) -> None:
        """A number outside its range is refused with the range."""
        cases = {
            "workers = -1": "workers: -1 is not in 0-1024",
            "workers = 1025": "workers: 1025 is not in 0-1024",
            "workers = 1" + "0" * 30: "workers: 1e+30 is not in 0-1024",
            "[heartbeat]\nttl = 1" + "0" * 400: "heartbeat.ttl: the number is too large",
            "[store]\nlease = 0.5": "store.lease: 0.5 is not in 1-31622400",
            "[store]\nsync_interval = 6": (
                "store.lease: 10.0 is less than two sync_intervals of 6.0"
            ),
            "[upstreams.a]\nconnect_timeout = 0": (
                "upstreams.a.connect_timeout: 0 is not in 0.001-31622400"
            ),
            "[upstreams.a]\nread_timeout = 1e200": (
                "upstreams.a.read_timeout: 1e+200 is not in 0.001-31622400"
            ),
        }
        for text, problem in cases.items():
            self.assertEqual([problem], problems(text), text)

    def test_syntax(self) -> None:
        """What is not TOML is refused with the line."""
        (problem,) = problems('a = 1\nb = "x\n')
        self.assertRegex(problem, r"^line 2, column \d+: ")
        self.assertEqual(["arrays are nested too deeply"], problems("a = " + "[" * 100000))
        self.assertEqual(1, len(problems("a = " + "9" * 5000)))

    def test_secrets_are_not_repeated(self) -> None:
        """No message and no representation holds a password, a key or a hash."""
        said = problems('[store]\nurl = "redis://u:s3cr%t@h/0"\n')
        self.assertEqual(["store.url: a % must be written %25"], said)
        said = problems(
            '[admin]\nusers = [{ name = "a", password_hash = "s3cr\\n", role = "read" }]\n'
        )
        self.assertNotIn("s3cr", "\n".join(said))
        url = StoreUrl.parse("redis://u:s3cr@h/0")
        for value in (url, StoreConfig(url=url), JwtConfig(key="s3cr" * 8)):
            self.assertNotIn("s3cr", f"{value!r} {value}")

    # A loaded machine is no failure.
    _patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

    @_patient
    @given(st.text(max_size=60))
    def test_any_text(self, text: str) -> None:
        """Whatever the text, there is a configuration or a list of lines."""
        try:
            parse(text)
        except ConfigError as error:
            self.assertTrue(error.problems)
            self.assertNotIn("\n", "".join(error.problems))

    _values = st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["listen", "upstream", "servers", "address", "tls", "routes", "x"]),
            inner,
            max_size=3,
        ),
        max_leaves=8,
    )

    @_patient
    @given(
        st.dictionaries(
            st.sampled_from(["http", "stream", "admin", "upstreams", "store", "workers", "y"]),
            _values,
            max_size=4,
        )
    )
    def test_any_document(self, document: dict[str, Any]) -> None:
        """Whatever stands where, nothing but L{ConfigError} is raised."""
        try:
            build(document)
        except ConfigError as error:
            for problem in error.problems:
                self.assertRegex(problem, r"\A\S.*: .")


GOOD_PASSWORD = hash_password("good")
GOOD_TOKEN = hash_token("good")
CREDENTIALS = (
    f'users = [{{ name = "a", password_hash = "{GOOD_PASSWORD}", role = "read" }}]',
    f'tokens = [{{ name = "a", token_hash = "{GOOD_TOKEN}", role = "agent" }}]',
    f'jwt = {{ key = "{"k" * 32}" }}',
)
CLIENT_CA = 'tls = { certificate = "c", key = "k", client_ca = "a" }'


class RulesTests(TestCase):
    """What one table says of another."""

    def test_default_upstream_exists(self) -> None:
        """The upstream default need not be written to be used."""
        config = parse('[upstreams.api]\n[[stream]]\nupstream = "default"')
        self.assertEqual(UpstreamConfig(), config.upstreams["default"])

    def test_unknown_upstreams(self) -> None:
        """A listener or route that names no upstream is refused."""
        self.assertEqual(
            [
                'http[0].routes[0].upstream: no upstream "a"',
                'stream[0].upstream: no upstream "b"',
                'stream[0].sni_routes."x.y": no upstream "c"',
            ],
            problems(
                '[[http]]\nroutes = [{ upstream = "a" }]\n'
                '[[stream]]\nupstream = "b"\nsni_routes = { "x.y" = "c" }'
            ),
        )

    def test_shared_ports(self) -> None:
        """Two listeners cannot have the same place, however it is written."""
        cases = {
            '[[http]]\n[[stream]]\nlisten = "tcp:8080"': (
                "stream[0].listen: 'tcp:8080' is taken by http[0].listen, 'tcp:8080'"
            ),
            '[[http]]\nlisten = "tcp:80:interface=127.0.0.1"\n[[http]]\nlisten = "tcp:80"': (
                "http[1].listen: 'tcp:80' is taken by http[0].listen, 'tcp:80:interface=127.0.0.1'"
            ),
            '[[http]]\nlisten = "tcp:8081"': (
                "admin.listen: 'tcp:8081:interface=127.0.0.1' is taken by "
                "http[0].listen, 'tcp:8081'"
            ),
            '[[http]]\nlisten = "unix:/a"\n[[http]]\nlisten = "unix:/a:mode=600"': (
                "http[1].listen: 'unix:/a:mode=600' is taken by http[0].listen, 'unix:/a'"
            ),
        }
        for text, problem in cases.items():
            self.assertEqual([problem], problems(text), text)

    def test_separate_ports(self) -> None:
        """Any-free-port listeners and different interfaces do not collide."""
        parse('[[http]]\nlisten = "tcp:0"\n[[http]]\nlisten = "tcp:0"')
        parse(
            '[[http]]\nlisten = "tcp:80:interface=127.0.0.1"\n'
            '[[http]]\nlisten = "tcp:80:interface=127.0.0.2"\n'
            '[[http]]\nlisten = "tcp6:80:interface=\\\\:\\\\:1"\n'
        )

    def test_keys_of_streams(self) -> None:
        """What a TCP connection does not have cannot be hashed."""
        text = '[upstreams.a]\npolicy = "hash"\nhash_key = "$host"\n[[http]]\nupstream = "a"\n'
        parse(text)
        said = "stream[0] uses this upstream: a stream has only $remote_addr"
        for stream in ('upstream = "a"', 'sni_routes = { "x.example" = "a" }'):
            self.assertEqual(
                [f"upstreams.a.hash_key: {said}"], problems(f"{text}[[stream]]\n{stream}\n")
            )
        plain = text.replace("$host", "$remote_addr")
        parse(f'{plain}[[stream]]\nupstream = "a"\n')

    def test_cookies_for_everybody(self) -> None:
        """A cookie for other sites' pages has to be a secure one."""
        text = "[upstreams.a]\nsticky = { samesite = 'none'%s }\n"
        self.assertEqual(
            [
                "upstreams.a.sticky.samesite: browsers take 'none' with secure = true only"
            ],
            problems(text % ""),
        )
        parse(text % ", secure = true")

    def test_repeated_servers(self) -> None:
        """One address may stand twice in an upstream, in any spelling."""
        read = parse(
            '[upstreams.a]\nservers = [{ address = "[::1]:80" }, { address = "[0::1]:80" }]'
        )
        first, second = read.upstreams["a"].servers
        self.assertEqual(first, second)

    def test_repeated_routes(self) -> None:
        """Two routes for the same requests are refused."""
        self.assertEqual(
            ["http[0].routes: two routes for host '' and path '/'"],
            problems('[[http]]\nroutes = [{ upstream = "default" }, { upstream = "default" }]'),
        )

    def test_hosts_of_routes(self) -> None:
        """A route's host is a name, a suffix, an address in brackets, or any."""
        for host in ("a.example", "*.example", "[::1]", "", "LOCALHOST"):
            route = RouteConfig(upstream="default", host=host)
            self.assertEqual(host.lower(), route.host)
        for host in ("a:80", "a.", "a.*", "*", "::1", "a b", "\xe4.example"):
            self.assertRaises(ValueError, RouteConfig, upstream="default", host=host)

    def test_listeners_of_the_file(self) -> None:
        """A file that names one kind of listener gets none of the other."""
        config = parse("[[http]]")
        self.assertEqual(((HttpConfig(),), ()), (config.http, config.stream))
        config = parse("[[stream]]")
        self.assertEqual(((), (StreamConfig(),)), (config.http, config.stream))

    def test_open_admin(self) -> None:
        """The admin API without credentials is kept from other machines."""
        for listen in ("tcp:8081", "tcp:8081:interface=10.0.0.1", "systemd:domain=INET:index=0"):
            remedies = "admin.users, admin.tokens, admin.jwt or admin.tls.client_ca"
            self.assertEqual(
                [f"admin.listen: {listen!r} is reachable from other machines; set {remedies}"],
                problems(f'[admin]\nlisten = "{listen}"'),
            )
        for listen in ("unix:/run/x", "tcp:1:interface=127.8.8.8", "tcp:1:interface=localhost"):
            self.assertEqual(listen, parse(f'[admin]\nlisten = "{listen}"').admin.listen)

    def test_credentials_open_the_admin(self) -> None:
        """Any kind of credentials will do; those of the API's port, for that port."""
        for line in (*CREDENTIALS, CLIENT_CA):
            parse(f'[admin]\nlisten = "tcp:8081"\n{line}')

    def test_open_mounted_admin(self) -> None:
        """
        The admin API on a traffic port is kept from other machines too, and a
        certificate that lets a client in there is none for the API.
        """
        remedies = "set admin.users, admin.tokens or admin.jwt"
        said = f"http[0].mount_admin: 'tcp:8080' is reachable from other machines; {remedies}"
        mounted = "[[http]]\nmount_admin = true"
        self.assertEqual([said], problems(mounted))
        self.assertEqual([said], problems(f"{mounted}\n{CLIENT_CA}"))
        self.assertEqual([said], problems(f"{mounted}\n[admin]\n{CLIENT_CA}"))
        for line in CREDENTIALS:
            parse(f"{mounted}\n[admin]\n{line}")
        here = '[[http]]\nlisten = "tcp:8080:interface=127.0.0.1"\nmount_admin = true'
        parse(here)
        said = f"http[0].mount_admin: nobody can show a certificate for admin.tls here; {remedies}"
        self.assertEqual([said], problems(f"{here}\n[admin]\n{CLIENT_CA}"))


class AdminTests(TestCase):
    """The tables of who may see and order what."""

    def test_mistakes_have_their_places(self) -> None:
        """What is of no use is named by its path, and secrets are not repeated."""
        user = 'users = [{{ name = "a", password_hash = "{}", role = "{}" }}]'
        token = 'tokens = [{{ name = "a", token_hash = "{}", role = "read", hosts = {} }}]'
        argon2i = GOOD_PASSWORD.replace("argon2id", "argon2i")
        hash_wanted = "is not a hash by argon2id, as dynbalancectl hash-password makes it"
        for line, said in {
            user.format("s3cret", "read"): f"users[0].password_hash: {hash_wanted}",
            user.format(argon2i, "read"): f"users[0].password_hash: {hash_wanted}",
            user.format(GOOD_PASSWORD, "root"): (
                "users[0].role: 'root' is not one of read, agent, admin"
            ),
            token.format("s3cret", "[]"): (
                "tokens[0].token_hash: is not sha256:HEX, as dynbalancectl token prints it"
            ),
            token.format(GOOD_TOKEN, '["a b"]'): (
                "tokens[0].hosts: 'a b' is not a host name or an IP address"
            ),
            'allow = ["10.0.0.1/8"]': "allow[0]: 10.0.0.1/8 has host bits set",
            'jwt = { key = "s3cret" }': "jwt.key: is shorter than the 32 bytes that HS256 needs",
            f'jwt = {{ key = "{"s3cret" * 8}", algorithms = ["RS256"] }}': (
                "jwt.key: is no public key in PEM form"
            ),
            f'jwt = {{ key = "{"s3cret" * 8}", algorithms = ["HS256", "ES256"] }}': (
                "jwt.key: one key cannot be both a secret (HS) and public (the other algorithms)"
            ),
            'jwt = { key = "s3cret", algorithms = ["none"] }': "jwt.algorithms: 'none' is not one",
            "jwt = { algorithms = [] }": "jwt.key: set either key or jwks_file",
            'tls = { certificate = "c", key = "k", client_role = "read" }': (
                "tls.client_role: there is no client_ca whose certificates have it"
            ),
        }.items():
            found = problems(f"[admin]\n{line}")
            self.assertEqual(1, len(found), found)
            self.assertTrue(found[0].startswith(f"admin.{said}"), found)
            self.assertNotIn("s3cret", found[0])

    def test_names_stand_once(self) -> None:
        """Two users, or two tokens, of one name are a mistake."""
        one = f'{{ name = "a", token_hash = "{GOOD_TOKEN}", role = "read" }}'
        self.assertEqual(
            ["admin.tokens: two of them are named 'a'"],
            problems(f"[admin]\ntokens = [{one}, {one}]"),
        )

    def test_certificate_alone(self) -> None:
        """A client's certificate is enough where nothing else is asked for, or by its role."""
        self.assertEqual("", AdminConfig().client_role)
        self.assertEqual("admin", parse(f"[admin]\n{CLIENT_CA}").admin.client_role)
        both = f"[admin]\n{CLIENT_CA}\n{CREDENTIALS[0]}"
        self.assertEqual("", parse(both).admin.client_role)
        both = both.replace(" }\n", ', client_role = "read" }\n', 1)
        self.assertEqual("read", parse(both).admin.client_role)


class CertificateTests(TestCase):
    """Certificates of listeners."""

    def test_one_or_several(self) -> None:
        """A certificate comes with its key, alone, in a list, or both."""
        one = 'certificate = "a", key = "b"'
        for text in (one, f"certificates = [{{ {one} }}]", f"{one}, certificates = [{{ {one} }}]"):
            for kind in ("http", "stream"):
                parse(f"[[{kind}]]\ntls = {{ {text} }}")

    def test_incomplete(self) -> None:
        """What is missing is named with its place."""
        together = "is missing: a certificate and its key go together"
        for text, said in (
            ('client_ca = "a"', ".certificate: is missing"),
            ('certificate = "a"', f".key: {together}"),
            ('key = "a"', f".certificate: {together}"),
            ('certificates = [{ certificate = "a" }]', ".certificates[0].key: is missing"),
            ('certificates = [{ certificate = "", key = "a" }]',
             ".certificates[0].certificate: '' is not a text without control characters"),
            ("certificates = 5", ".certificates: expected an array, got 5"),
            ("certificates = []", ".certificate: is missing"),
        ):  # fmt: skip
            self.assertEqual([f"http[0].tls{said}"], problems(f"[[http]]\ntls = {{ {text} }}"))


    def test_memory_of_one(self) -> None:
        """Several processes cannot have the store of one."""
        memory = '[store]\nurl = "memory:"'
        said = "workers: memory: is the store of one process; several need another store.url"
        for number in (0, 2):
            self.assertEqual([said], problems(f"workers = {number}\n{memory}"))
        parse(f"workers = 1\n{memory}")
        parse("workers = 2")


class DocumentTests(TestCase):
    """L{document_of} writes down what L{build} reads."""

    def test_example(self) -> None:
        """The defaults."""
        self.assertEqual(Config(), build(document_of(Config())))

    def test_everything(self) -> None:
        """Tables that may be absent, addresses, networks and secrets, also by way of JSON."""
        config = parse("""
            workers = 0
            node = "n"
            [store]
            url = "rediss://u:p%40ss@[::1]:6380/2"
            [upstreams.a]
            sticky = { cookie = "c" }
            tls = { verify = false }
            health_check = { type = "tcp", send = "PING", expect = "PONG" }
            servers = [{ address = "[::1]:80", weight = 2 }, { address = "unix:/run/x" }]
            [upstreams.b]
            [[http]]
            listen = "tcp:1:interface=127.0.0.1"
            routes = [{ host = "x.example", upstream = "a" }]
            trusted_proxies = ["10.0.0.0/8", "fd00::/8"]
            tls = { certificate = "c", key = "k" }
            set_headers = { X-A = "$host" }
            [[stream]]
            listen = "systemd:domain=INET:index=0"
            upstream = "b"
            sni_routes = { "a.example" = "a" }
        """)
        document = json.loads(json.dumps(document_of(config)))
        self.assertEqual(config, build(document))

    def test_no_listeners_of_a_kind(self) -> None:
        """None of a kind stays none."""
        config = parse("[[http]]")
        self.assertEqual((), build(document_of(config)).stream)


class StoreUrlTests(TestCase):
    """L{StoreUrl.parse}."""

    def test_kinds(self) -> None:
        """Every kind of URL is understood, with its defaults."""
        url = StoreUrl.parse("redis://h")
        self.assertEqual(("h", 6379, 0), (url.host, url.port, url.db))
        self.assertEqual(("", ""), (url.user, url.password))
        url = StoreUrl.parse("rediss://:pa%3Ass@h:7/12")
        self.assertEqual((StoreKind.REDISS, "pa:ss", 12), (url.kind, url.password, url.db))
        url = StoreUrl.parse("unix:///run/a%20b.sock?db=2")
        self.assertEqual(("/run/a b.sock", 2), (url.path, url.db))
        url = StoreUrl.parse("unix://u:p@/run/x")
        self.assertEqual(("/run/x", 0, "u", "p"), (url.path, url.db, url.user, url.password))
        url = StoreUrl.parse("redis+sentinel://u:p@a,[::1]:7/m/3")
        self.assertEqual((("a", 26379), ("::1", 7)), url.peers)
        self.assertEqual(("m", 3, "u"), (url.master, url.db, url.user))
        url = StoreUrl.parse("rediss+sentinel://a/m")
        self.assertTrue(url.kind.by_sentinel and url.kind.by_tls)
        url = StoreUrl.parse("redis+cluster://u:p@a,[::1]:7/0")
        self.assertEqual((("a", 6379), ("::1", 7)), url.peers)
        self.assertTrue(url.kind.by_cluster and not url.kind.by_tls)
        self.assertIs(StoreKind.EMBEDDED, StoreUrl.parse("embedded:").kind)
        self.assertIs(StoreKind.MEMORY, StoreUrl.parse("memory:").kind)

    def test_refused(self) -> None:
        """What cannot be a store's URL is refused with a reason."""
        for text in (
            "", "embedded", "http://h", "embedded:x", "memory://", "redis:h", "redis://",
            "redis://h:0", "redis://h:70000", "redis://h/x", "redis://h/1/2", "redis://::1/0",
            "redis://h?db=1", "redis://h#x", "redis://a%zz@h", "redis://a%ff@h", "redis://a%0a@h",
            "unix://host/path", "unix://", "unix:///p?db=x", "unix:///p?x=1",
            "unix:///p?db=1&db=2", "unix:///" + "p" * 108, "redis+sentinel://h",
            "redis+sentinel://h,/m", "redis+cluster://h/1", "redis+cluster://",
        ):
            with self.assertRaises(ValueError, msg=text) as caught:
                StoreUrl.parse(text)
            self.assertTrue(str(caught.exception))

    def test_text(self) -> None:
        """The text of a URL is the URL, but for the password."""
        for text in ("embedded:", "redis://u@h:1/0", "unix:///a?db=1", "rediss://[::1]:1/0"):
            self.assertEqual(text, str(StoreUrl.parse(text)))
        self.assertEqual("redis://u:***@h:6379/0", str(StoreUrl.parse("redis://u:p@h")))
        sentinel = "redis+sentinel://a:1,b:2/m/0"
        self.assertEqual(sentinel, str(StoreUrl.parse(sentinel)))

    def test_login(self) -> None:
        """A password alone is the default user's; without one nobody logs in."""
        self.assertEqual(("u", "p"), StoreUrl.parse("redis://u:p@h").login)
        self.assertEqual(("p",), StoreUrl.parse("redis://:p@h").login)
        self.assertEqual((), StoreUrl.parse("redis://u@h").login)

    def test_cluster_needs_a_tag(self) -> None:
        """On a cluster a prefix without a hash tag would spread an upstream's keys."""
        text = '[store]\nurl = "redis+cluster://h"\nprefix = '
        for prefix in ("upstream", "{}x{y}", "a{b", "}{"):
            self.assertIn("store.prefix: a cluster needs", problems(f'{text}"{prefix}"')[0])
        self.assertEqual("a{b}c", parse(f'{text}"a{{b}}c"').store.prefix)

    def test_reveal(self) -> None:
        """The whole text of a URL leads to the same URL, password and all."""
        for text in (
            "embedded:", "memory:", "redis://u%40x:p%3A%2F%25@h:1/3", "redis://:p@h",
            "unix://u:p@/a%20b%3F%25?db=1", "rediss://[::1]:1/0",
            "redis+sentinel://u:p@a:1,[::2]:2/m%2525/3", "rediss+cluster://u:p@a:1,[::2]:2/0",
        ):
            url = StoreUrl.parse(text)
            self.assertEqual(url, StoreUrl.parse(url.reveal()), text)


class EndpointTextTests(TestCase):
    """L{EndpointText.parse}."""

    def test_understood(self) -> None:
        """What would be bound is known without binding it."""
        endpoint = EndpointText.parse("tcp6:80:interface=\\:\\:1")
        self.assertEqual((80, "::1"), (endpoint.port, endpoint.interface))
        self.assertTrue(endpoint.is_local)
        self.assertEqual("/run/a:b", EndpointText.parse("unix:/run/a\\:b:mode=600").path)
        self.assertFalse(EndpointText.parse("tcp:0").is_local)
        self.assertFalse(EndpointText.parse("systemd:domain=INET6:name=web").is_local)

    def test_refused(self) -> None:
        """What Twisted would stumble over later is refused now, by its text."""
        cases = {
            "": "'' is not an endpoint such as tcp:8080",
            "8080": "'8080' is not an endpoint such as tcp:8080",
            "tcp:70000": "'tcp:70000': port 70000 is not in 0-65535",
            "tcp:-1": "'tcp:-1': port -1 is not in 0-65535",
            "tcp:x": "'tcp:x': 'x' is not a number",
            "tpc:80": "'tpc:80': unknown kind of endpoint 'tpc'",
            "127.0.0.1:80": "'127.0.0.1:80': unknown kind of endpoint '127.0.0.1'; "
            "write 'tcp:80:interface=127.0.0.1'",
            "*:80": "'*:80': unknown kind of endpoint '*'; write 'tcp:80'",
            "[::1]:80": "'[::1]:80': unknown kind of endpoint '['; "
            "write 'tcp6:80:interface=\\:\\:1'",
            "tcp:80:foo=1": "'tcp:80:foo=1': an argument is missing or not known to tcp:",
            "unix:": "'unix:': the path is not absolute",
            "stdio:": "standard input and output cannot be listened on",
        }
        for text, said in cases.items():
            with self.assertRaises(ValueError) as caught:
                EndpointText.parse(text)
            self.assertEqual(said, str(caught.exception))
        for text in ("systemd:domain=X:index=0", "unix:/" + "x" * 107, "ssl:443:privateKey=/none"):
            self.assertRaises(ValueError, EndpointText.parse, text)


class TemplateTests(TestCase):
    """L{parse_template}."""

    def test_pieces(self) -> None:
        """Literal pieces and variables come in order."""
        self.assertEqual(
            (Variable("scheme"), "://", Variable("http", "x_y"), "!"),
            parse_template("$scheme://$http_x_y!", TRAFFIC_VARIABLES),
        )
        self.assertEqual((Variable("arg", "id"),), parse_template("$arg_id", KEY_VARIABLES))
        self.assertEqual((), parse_template("", KEY_VARIABLES))

    def test_unknown(self) -> None:
        """An unknown or nameless variable is refused."""
        for text in ("$foo", "$", "a$ b", "$http_", "$arg_id", "$$host"):
            self.assertRaises(ValueError, parse_template, text, TRAFFIC_VARIABLES)


class HeaderTests(TestCase):
    """Header fields in the configuration."""

    def test_refused(self) -> None:
        """Nothing that could break or reframe a request can be set."""
        for name, value in (
            ("X-A", "a\r\nB: c"),
            ("X-A", "a\x00"),
            ("X-A", "\xe4"),
            ("X A", "a"),
            ("", "a"),
            ("X-A:", "a"),
            ("Content-Length", "5"),
            ("transfer-encoding", "chunked"),
            ("Connection", ""),
            ("Host", "x"),
            ("X-A", "$nothing"),
        ):
            self.assertRaises(ValueError, HttpConfig, set_headers={name: value})
        self.assertRaises(ValueError, HttpConfig, set_headers={"X-A": "", "x-a": ""})
        self.assertRaises(ValueError, UpstreamConfig, host="a\nb")
        self.assertRaises(ValueError, UpstreamConfig, host="")

    def test_made_values_are_checked(self) -> None:
        """A value that no file could hold cannot be made by hand either."""
        self.assertRaises(ValueError, UpstreamConfig, policy="best")
        self.assertRaises(ValueError, UpstreamConfig, proxy_protocol=True)
        self.assertRaises(ValueError, Config, upstreams={"a:b": UpstreamConfig()})
        self.assertRaises(OptionError, JwtConfig)
        self.assertRaises(OptionError, StoreConfig, lease=1.0, sync_interval=1.0)


def inner_class(type_: Any) -> Any:
    """The class of a table, of an array's members or of a mapping's values."""
    if attrs.has(type_) and type_ not in (Address, StoreUrl):
        return type_
    for each in get_args(type_):
        found = inner_class(each)
        if found is not None:
            return found
    return None


def documented(text: str) -> dict[tuple[str, str], Any]:
    """Table and option -> the value that the example shows for it."""
    table, shown = "", {}
    for line in text.splitlines():
        if header := re.fullmatch(r"\[+([\w.]+)\]+", line):
            table = header[1]
        elif option := re.match(r"#?(\w+ = .*)", line) or re.match(r"#   (\S+ = .*)", line):
            name, _, value = option[1].partition(" = ")
            shown[table, name] = tomllib.loads(f"value = {value}")["value"]
    return shown


def options(cls: Any, table: str, prefix: str = "") -> dict[tuple[str, str], Any]:
    """Table and option -> the default as TOML has it; C{attrs.NOTHING} for none."""
    found: dict[tuple[str, str], Any] = {}
    hints = get_type_hints(cls)
    for each in attrs.fields(cls):
        inner = inner_class(hints[each.name])
        many = get_origin(hints[each.name]) is tuple
        if cls is Config and each.name in ("state_dir", "demo"):
            continue
        if cls is Config and inner:
            found |= options(inner, "upstreams.default" if each.name == "upstreams" else each.name)
            continue
        default: Any = each.default
        if isinstance(default, attrs.Factory):
            default = default.factory()
        if isinstance(default, tuple):
            default = list(default)
        if default is None:
            default = {}
        if isinstance(default, StoreUrl):
            default = str(default)
        found[table, prefix + each.name] = default
        if inner:
            found |= options(inner, table, f"{prefix}{each.name}{'[]' if many else ''}.")
    return found


class ExampleTests(TestCase):
    """C{etc/dynbalance.toml}."""

    def test_loads(self) -> None:
        """The file as it is means what no file means."""
        self.assertEqual(Config(), parse(EXAMPLE.read_text()))

    def test_uncommented(self) -> None:
        """With every option written out it still means the same."""
        text = re.sub(r"^#(?=\w+ = )", "", EXAMPLE.read_text(), flags=re.MULTILINE)
        self.assertGreater(len(str(read_toml(text))), 1500)
        self.assertEqual(Config(), parse(text))

    def test_complete(self) -> None:
        """Each option of each class is there with the class's default, and no other."""
        shown = documented(EXAMPLE.read_text())
        known = options(Config, "")
        self.assertEqual(sorted(known), sorted(shown))
        for option, default in known.items():
            if default is not attrs.NOTHING:
                self.assertEqual(default, shown[option], option)
                self.assertIs(type(default), type(shown[option]), option)
