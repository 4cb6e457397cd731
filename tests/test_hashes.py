"""Hashes of passwords and tokens."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from dynbalance.hashes import (
    hash_password,
    hash_token,
    is_password_hash,
    is_token_hash,
    new_token,
    password_matches,
)


class PasswordTests(SynchronousTestCase):
    def test_matches(self) -> None:
        """A hash fits its own password, in any script, and no other."""
        kept = hash_password("pass wörd 密码")
        self.assertTrue(password_matches("pass wörd 密码", kept))
        self.assertFalse(password_matches("pass word 密码", kept))
        self.assertFalse(password_matches("", kept))

    def test_salted(self) -> None:
        """Equal passwords cannot be told by their hashes."""
        self.assertNotEqual(hash_password("same"), hash_password("same"))

    def test_form(self) -> None:
        """Only argon2id is taken, not its cousins nor broken texts."""
        good = hash_password("x")
        self.assertTrue(is_password_hash(good))
        for bad in ("", "x", good.replace("argon2id", "argon2i"), good[:20], "$2b$12$abc"):
            self.assertFalse(is_password_hash(bad), bad)

    def test_broken_hash(self) -> None:
        """Nothing matches what is no hash."""
        self.assertFalse(password_matches("x", "x"))


class TokenTests(SynchronousTestCase):
    def test_hash(self) -> None:
        """It is what sha256sum says of the token."""
        said = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        self.assertEqual(said, hash_token("abc"))

    def test_token(self) -> None:
        """A token holds all of its 256 bits, and nothing that must be quoted."""
        token = new_token(lambda count: b"\xff" * count)
        self.assertEqual("_" * 42 + "8", token)

    def test_form(self) -> None:
        """A hash has its name and 64 hexadecimal digits."""
        self.assertTrue(is_token_hash(hash_token("x")))
        for bad in ("", "x", hash_token("x").upper(), hash_token("x")[:-1], hash_token("x") + "\n"):
            self.assertFalse(is_token_hash(bad), bad)
