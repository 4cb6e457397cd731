"""
What is there now: calls that are due later, descriptors that are watched, objects.

Knows the reactor, the hub and the garbage collector from outside; refuses to know
what any of it is for.  When nobody is connected, all of it is what it was before:
what grows from one quiet moment to the next is a leak.
"""

from __future__ import annotations

import gc
from collections import Counter
from typing import Any

OTHERS = "other"
"""Stands for all types that are neither ours nor Twisted's."""


class Inventory:
    """
    @ivar detailed: whether objects are counted.  That walks over every object of
        the process, behind a collection of garbage: no way to serve, see
        L{dynbalance.invariants}.
    """

    def __init__(self, reactor: Any, hub: Any) -> None:
        """
        @param reactor: the real one.
        @param hub: what connections are registered with.
        """
        self.detailed = False
        self._reactor = reactor
        self._hub = hub

    def __repr__(self) -> str:
        return f"<Inventory {self.timers} timers, {self.descriptors} descriptors>"

    @property
    def timers(self) -> int:
        """Calls that the reactor is to make later."""
        return len(self._reactor.getDelayedCalls())

    @property
    def descriptors(self) -> int:
        """What the reactor and the hub watch."""
        watched: set[int] = set()
        for watching in (self._reactor, self._hub):
            watched.update(map(id, watching.getReaders()))
            watched.update(map(id, watching.getWriters()))
        return len(watched)

    def objects(self) -> Counter[str]:
        """
        How many there are of each type that is ours, without the package's name, or
        Twisted's; nothing unless L{detailed}.
        """
        if not self.detailed:
            return Counter()
        # See dynbalance.stays.
        gc.unfreeze()
        gc.collect()
        # By the type first: there are few, and each name has to be put together.
        types = Counter(map(type, gc.get_objects()))
        told: Counter[str] = Counter()
        for each, number in types.items():
            told[_name(each)] += number
        return told


def _name(kind: type) -> str:
    # Types of extension modules may have none, or one that is no text.
    package, _, module = str(getattr(kind, "__module__", "")).partition(".")
    if package == "dynbalance":
        return f"{module}.{kind.__qualname__}"
    return f"{package}.{module}.{kind.__qualname__}" if package == "twisted" else OTHERS
