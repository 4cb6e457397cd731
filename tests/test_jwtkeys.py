"""Tests of the keys that signed tokens are checked with."""

from __future__ import annotations

import json

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, RSAAlgorithm
from twisted.trial.unittest import SynchronousTestCase

from dynbalance.jwtkeys import BadKey, key_of, keys_of

RSA = rsa.generate_private_key(65537, 2048)
SMALL_RSA = rsa.generate_private_key(65537, 1024)
EC = ec.generate_private_key(ec.SECP256R1())


def pem(private: object) -> str:
    public = private.public_key()  # type: ignore[attr-defined]
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def jwk(private: object, **more: str) -> dict[str, object]:
    algorithm = RSAAlgorithm if isinstance(private, rsa.RSAPrivateKey) else ECAlgorithm
    public = private.public_key()  # type: ignore[attr-defined]
    return {**json.loads(algorithm.to_jwk(public)), **more}


class KeyTests(SynchronousTestCase):
    """L{key_of}."""

    def refused(self, text: str, *algorithms: str) -> str:
        return str(self.assertRaises(BadKey, key_of, text, algorithms))

    def test_fits(self) -> None:
        """A key is for the algorithms of its kind and length, and for no others."""
        self.assertEqual(("HS256",), key_of("k" * 32, ["HS256"]).algorithms)
        self.assertEqual(("HS256", "HS384", "HS512"), key_of("k" * 64, ["HS256"]).algorithms)
        self.assertIn("PS512", key_of(pem(RSA), ["RS256"]).algorithms)
        self.assertEqual(("ES256",), key_of(pem(EC), ["ES256"]).algorithms)
        edwards = ed25519.Ed25519PrivateKey.generate()
        self.assertEqual(("EdDSA",), key_of(pem(edwards), ["EdDSA"]).algorithms)

    def test_refused(self) -> None:
        """Short secrets and keys, public keys as secrets, and keys of another kind are refused."""
        self.assertIn("shorter than the 32 bytes", self.refused("k" * 31, "HS256"))
        self.assertIn("HS512", self.refused("k" * 63, "HS512"))
        self.assertIn("PEM", self.refused(pem(RSA), "HS256"))
        self.assertIn("both", self.refused(pem(RSA), "HS256", "RS256"))
        self.assertIn("PEM", self.refused("k" * 32, "RS256"))
        self.assertIn("2048", self.refused(pem(SMALL_RSA), "RS256"))
        self.assertIn("ES256", self.refused(pem(RSA), "ES256"))
        self.assertIn("ES384", self.refused(pem(EC), "ES384"))

    def test_nothing_is_repeated(self) -> None:
        """Neither a refusal nor a key's representation has the key in it."""
        self.assertNotIn("s3cr", self.refused("s3cr", "HS256"))
        self.assertNotIn("s3cr", repr(key_of("s3cr" * 8, ["HS256"])))


class KeySetTests(SynchronousTestCase):
    """L{keys_of}."""

    def test_those_of_use(self) -> None:
        """Keys for encryption, of unknown kinds and for other algorithms are passed over."""
        document = {
            "keys": [
                jwk(RSA, kid="a"),
                jwk(EC, kid="b"),
                jwk(RSA, kid="c", use="enc"),
                jwk(RSA, kid="d", alg="RS512"),
                {"kty": "new"},
            ]
        }
        (key,) = keys_of(document, ["RS256"])
        self.assertEqual("a", key.kid)
        self.assertEqual(["a", "b"], [key.kid for key in keys_of(document, ["RS256", "ES256"])])
        (key,) = keys_of(document, ["ES256"])
        self.assertEqual(("ES256",), key.algorithms)
        keys = keys_of(document, ["RS512"])
        self.assertEqual([("a", 6), ("d", 1)], [(k.kid, len(k.algorithms)) for k in keys])

    def test_refused(self) -> None:
        """What is no set, a key that cannot be read, and a set of no use are refused."""
        for document, said in (
            ([], "keys"),
            ({"keys": {}}, "keys"),
            ({"keys": [1]}, "keys[0]: is no JSON object"),
            ({"keys": [{"kty": "RSA", "n": "?"}]}, "keys[0]: cannot be read"),
            ({"keys": [jwk(SMALL_RSA)]}, "keys[0]: is an RSA key of fewer"),
            ({"keys": []}, "holds no key"),
            ({"keys": [jwk(EC)]}, "holds no key"),
        ):
            found = str(self.assertRaises(BadKey, keys_of, document, ["RS256"]))
            self.assertIn(said, found)
