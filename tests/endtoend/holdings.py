"""
What a daemon has when nobody is there; from one quiet moment to the next it should be
the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from attrs import frozen

from tests.endtoend.daemon import Daemon
from tests.endtoend.harness import ask, wait_until

MIB = 1 << 20
_COUNTED = r'^dynbalance_reactor_(timers|descriptors|objects)(?:{type="(.+)"})? (.+)$'
_FEW = 8
"""Timers and connections of the API, which come and go."""

_SOME = 100
"""Objects of a type: Twisted keeps some fifty calls that were cancelled."""

_MANY = 6400
"""Objects that are neither ours nor Twisted's."""


@frozen
class Holdings:
    """
    @ivar files: its descriptors.
    @ivar timers: calls that it is to make later.
    @ivar watched: descriptors for whose events it waits.
    @ivar memory: bytes.
    @ivar objects: numbers by type, without garbage.
    """

    files: int
    timers: int
    watched: int
    memory: int
    objects: Mapping[str, int]

    @classmethod
    def of(cls, daemon: Daemon) -> Holdings:
        """What it says, and what the system says of it."""

        def metrics() -> str:
            text = ask(daemon.admin, "/metrics").body.decode()
            return text if "_objects{" in text else ""

        # It looks for the first time a second after its start.
        text = wait_until(metrics, "objects to be counted")
        told = re.findall(_COUNTED, text, re.MULTILINE)
        numbers = {kind or what: int(float(number)) for what, kind, number in told}
        timers, watched = numbers.pop("timers"), numbers.pop("descriptors")
        process = daemon.process
        return cls(process.descriptors(), timers, watched, process.memory(), numbers)

    def __str__(self) -> str:
        return (
            f"{self.files} descriptors, {self.watched} of them watched, {self.timers} timers,"
            f" {sum(self.objects.values())} objects, {self.memory / MIB:.1f} MiB"
        )

    def beyond(self, before: Holdings, files: int, memory: int) -> list[str]:
        """
        What has grown, in words.

        @param files: by how many there may be more.
        @param memory: likewise, bytes.
        """
        grown = list(self._objects_beyond(before.objects))
        for what, now, then, spare in (
            ("descriptors", self.files, before.files, files),
            ("watched descriptors", self.watched, before.watched, _FEW),
            ("timers", self.timers, before.timers, _FEW),
            ("bytes", self.memory, before.memory, memory),
        ):
            if now > then + spare:
                grown.append(f"{then} {what} became {now}")
        return grown

    def _objects_beyond(self, before: Mapping[str, int]) -> Iterator[str]:
        for kind, number in self.objects.items():
            then = before.get(kind, 0)
            if number > then + (_MANY if kind == "other" else _SOME):
                yield f"{then} of {kind} became {number}"
