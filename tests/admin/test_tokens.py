"""Tests of bearer tokens: those of the file, and signed ones."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

import jwt
from twisted.trial.unittest import SynchronousTestCase

from dynbalance.admin.caller import Holder, Role
from dynbalance.admin.tokens import LEEWAY, NotGood, SignedTokens, Tokens
from dynbalance.config import JwtConfig, TokenConfig
from dynbalance.hashes import hash_token
from dynbalance.jwtkeys import Key, key_of, keys_of
from tests.test_jwtkeys import EC, RSA, jwk, pem

NOW = 1_000_000.0
SECRET = "s" * 32


class TokensTests(SynchronousTestCase):
    """L{Tokens}."""

    def test_holder(self) -> None:
        """A token is its holder's, and any other text nobody's."""
        tokens = Tokens(
            TokenConfig(name=name, token_hash=hash_token(name * 8), role=role, hosts=hosts)
            for name, role, hosts in (("a", "agent", ("[::1]", "A.Example")), ("b", "read", ()))
        )
        self.assertEqual(
            Holder(name="a", role=Role.AGENT, hosts=frozenset({"::1", "a.example"})),
            tokens.holder("a" * 8),
        )
        self.assertEqual(Holder(name="b", role=Role.READ), tokens.holder("b" * 8))
        for text in ("a", "a" * 9, "", "\xe4", hash_token("a" * 8)):
            self.assertIsNone(tokens.holder(text))


class SignedTokensTests(SynchronousTestCase):
    """L{SignedTokens}."""

    def setUp(self) -> None:
        self.now = NOW

    def made(self, keys: tuple[Key, ...] = (), **settings: Any) -> SignedTokens:
        config = JwtConfig(**{"key": SECRET, **settings})
        keys = keys or (key_of(config.key, config.algorithms),)
        return SignedTokens(config, keys, lambda: self.now)

    def token(
        self, key: Any = SECRET, algorithm: str = "HS256", kid: str = "", **claims: Any
    ) -> str:
        claims = {"sub": "ann", "role": "read", "exp": NOW + 60, **claims}
        claims = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode(claims, key, algorithm, headers={"kid": kid} if kid else None)

    def refused(self, tokens: SignedTokens, text: str) -> str:
        return str(self.assertRaises(NotGood, tokens.holder, text))

    def test_holder(self) -> None:
        """The subject is the name; role and hosts are what the token says."""
        tokens = self.made()
        ann = Holder(name="ann", role=Role.READ, lasts=60 + LEEWAY)
        self.assertEqual(ann, tokens.holder(self.token()))
        hosts = ["10.0.0.1", "a b", 7]
        holder = tokens.holder(self.token(role="agent", hosts=hosts))
        self.assertEqual((Role.AGENT, {"10.0.0.1"}), (holder.role, holder.hosts))
        self.assertEqual("jwt", tokens.holder(self.token(sub=None)).name)
        for name in ("a\nb", "", "a" * 201):
            self.assertEqual("jwt", tokens.holder(self.token(sub=name)).name)

    def test_role(self) -> None:
        """The role is where the settings say; of several the greatest; none is refused."""
        tokens = self.made(role_claim="roles")
        self.assertIs(Role.ADMIN, tokens.holder(self.token(roles=["read", "admin"])).role)
        for roles in (None, "root", [], 1, ["ADMIN"]):
            self.assertIn("none of read", self.refused(tokens, self.token(roles=roles)))

    def test_times(self) -> None:
        """It has to expire, and is good from nbf until exp, give or take ten seconds."""
        tokens = self.made()
        text = self.token(nbf=NOW, exp=NOW + 60)
        for now, good in ((-11, False), (-9, True), (69, True), (71, False)):
            self.now = NOW + now
            if good:
                tokens.holder(text)
            else:
                self.refused(tokens, text)
        self.now = NOW
        for claims in ({"exp": None}, {"exp": "soon"}, {"exp": True}, {"nbf": "now"}):
            self.assertIn("expires", self.refused(tokens, self.token(**claims)))

    def test_audience_and_issuer(self) -> None:
        """Both have to be those of the settings, if these name any."""
        tokens = self.made(audience="lb", issuer="https://id")
        tokens.holder(self.token(aud=["x", "lb"], iss="https://id"))
        for claims in (
            {}, {"aud": "lb"}, {"iss": "https://id"}, {"aud": "x", "iss": "https://id"},
            {"aud": "lb", "iss": "https://id.example"},
        ):  # fmt: skip
            self.refused(tokens, self.token(**claims))
        self.made().holder(self.token(aud="x", iss="y"))

    def test_unsigned(self) -> None:
        """C{none} is no algorithm, however it is spelled."""
        claims = self.token().split(".")[1]
        for name in ("none", "None", "NONE", ""):
            header = json.dumps({"alg": name, "typ": "JWT"}).encode()
            text = base64.urlsafe_b64encode(header).rstrip(b"=").decode()
            for signature in ("", self.token().split(".")[2]):
                self.refused(self.made(), f"{text}.{claims}.{signature}")

    def test_wrong_signature(self) -> None:
        """Another key, another algorithm, and a changed token are refused."""
        tokens = self.made()
        self.assertIn("signature", self.refused(tokens, self.token("t" * 32)))
        self.assertIn("algorithm", self.refused(tokens, self.token("s" * 64, "HS512")))
        head, _, signature = self.token().split(".")
        other = self.token(role="admin").split(".")[1]
        self.assertIn("signature", self.refused(tokens, f"{head}.{other}.{signature}"))
        critical = {"crit": ["exp"], "exp": 1}
        text = jwt.encode({"role": "read", "exp": NOW + 60}, SECRET, "HS256", critical)
        self.refused(tokens, text)
        for text in ("", "a.b.c", "..", "x" * 20000):
            self.refused(tokens, text)

    def test_key_confusion(self) -> None:
        """A public key is never a secret, also where both kinds of algorithms are allowed."""
        keys = keys_of(
            {"keys": [jwk(RSA, kid="rsa"), jwk(EC, kid="ec"), OCTETS]},
            ["HS256", "RS256", "ES256"],
        )
        tokens = self.made(
            keys, key="", jwks_file="f", algorithms=("HS256", "RS256", "ES256")
        )
        for key, algorithm, kid in ((RSA, "RS256", "rsa"), (EC, "ES256", "ec"), (RSA, "RS256", "")):
            self.assertEqual("ann", tokens.holder(self.token(key, algorithm, kid)).name)
        self.assertEqual("ann", tokens.holder(self.token(SECRET, "HS256", "oct")).name)
        forged = self.forged(pem(RSA), kid="rsa")
        self.assertIn("no key of ours", self.refused(tokens, forged))
        self.assertIn("signature", self.refused(tokens, self.forged(pem(RSA), kid="oct")))
        public = self.made(key=pem(RSA), algorithms=("RS256",))
        self.assertIn("algorithm", self.refused(public, self.forged(pem(RSA))))
        # Named by another key's name.
        self.assertIn("no key", self.refused(tokens, self.token(RSA, "RS256", "ec")))

    def forged(self, public: str, kid: str = "") -> str:
        """Signed by HS256 with what everybody knows; PyJWT itself would refuse to."""
        def part(value: bytes) -> bytes:
            return base64.urlsafe_b64encode(value).rstrip(b"=")

        header = json.dumps({"alg": "HS256", "kid": kid} if kid else {"alg": "HS256"})
        claims = json.dumps({"sub": "eve", "role": "admin", "exp": NOW + 60})
        said = part(header.encode()) + b"." + part(claims.encode())
        signature = hmac.new(public.encode(), said, hashlib.sha256).digest()
        return (said + b"." + part(signature)).decode()


OCTETS = {"kty": "oct", "kid": "oct", "k": base64.urlsafe_b64encode(SECRET.encode()).decode()}
