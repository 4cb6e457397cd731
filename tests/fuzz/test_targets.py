"""
A short run of each target, by chance that can be repeated, and what longer runs
have found.
"""

from __future__ import annotations

from random import Random

from twisted.trial.unittest import SynchronousTestCase

from tests.fuzz.seeds import SEEDS
from tests.fuzz.targets import TARGETS

ROUNDS = dict.fromkeys(("http1_client", "server", "store_server"), 400)
ROUNDS |= {"config": 60, "http2_client": 200}
USUAL = 1200

SNAPSHOT = b'{"kind":"dynbalance snapshot","version":1,"store":"x","written":%b}'
FINDINGS = {
    "store_server": (
        b"[" * 5000 + b"\n\n1",
        b'{"created_at":' + b"9" * 400 + b"}\n\n1",
        b'{"weight":' + b"9" * 400 + b"}\n\n1",
    ),
    "admin_fields": (
        b'\1\n\n{"data":[' + b"9" * 5000 + b"]}",
        b'\1\n\n{"data":{"a":' + b"9" * 5000 + b"}}",
    ),
    "snapshot_file": (
        b"[" * 5000,
        SNAPSHOT % b"1" + b"\n" + b"[" * 5000,
        SNAPSHOT % (b"9" * 400),
        SNAPSHOT % b"1" + b'\n{"upstream":"a","era":"","revision":1,"now":1,"unhealthy":[],'
        b'"servers":0}',
    ),
}  # fmt: skip


def mutated(data: bytes, words: list[bytes], chance: Random) -> bytes:
    """C{data} with one to three small changes."""
    for _ in range(chance.choice((1, 1, 2, 3))):
        at = chance.randrange(len(data) + 1)
        end = min(len(data), at + chance.choice((0, 0, 1, 1, 2, 5, 40)))
        new = chance.choice((b"", bytes([chance.randrange(256)]), *words[:1], chance.choice(words)))
        if chance.random() < 0.2:
            new = data[at:end] * chance.choice((2, 3, 50))
        data = data[:at] + new + data[end:]
    return data


class TargetTests(SynchronousTestCase):
    """Whatever a parser is given, it keeps to what L{tests.fuzz.targets} says of it."""

    def run_all(self, name: str, inputs: list[bytes]) -> None:
        for data in inputs:
            try:
                TARGETS[name].run(data)
            except Exception as error:  # noqa: BLE001 - whatever it is, the input matters
                self.fail(f"{name}: {error!r} of {data!r}")

    def test_seeds(self) -> None:
        """What a run begins with, and what runs have found."""
        self.assertEqual(set(TARGETS), set(SEEDS))
        for name in TARGETS:
            self.run_all(name, [*SEEDS[name](), *FINDINGS.get(name, ())])

    def test_mutated(self) -> None:
        """Messages that are nearly right."""
        for name, target in TARGETS.items():
            chance, seeds = Random(name), SEEDS[name]()
            words = list(target.words) or [b"\0", b"\xff\xff"]
            rounds = ROUNDS.get(name, USUAL)
            inputs = [mutated(chance.choice(seeds), words, chance) for _ in range(rounds)]
            self.run_all(name, inputs)
