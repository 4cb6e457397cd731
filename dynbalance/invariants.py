"""
What has to be true of the counts between any two turns of the reactor, looked at
from outside while a daemon runs.

Knows leases and servers as objects: the garbage collector is asked for them, so
that those are seen, too, which everybody else has forgotten.  Refuses to mend
anything; what is not true is logged, once.  Looking at every object of the
process is no way to serve, therefore it is done where L{VARIABLE} asks for it; so
is counting them all for metrics, see L{dynbalance.inventory}.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from attrs import frozen
from twisted.internet.task import LoopingCall

from dynbalance.balancer.lease import Lease
from dynbalance.balancer.server import Server
from dynbalance.log import Logger

if TYPE_CHECKING:
    from dynbalance.works import Works

VARIABLE = "DYNBALANCE_INVARIANTS"
"""The environment variable that asks for it, unless it is empty."""

INTERVAL = 1.0
"""Seconds from one look to the next."""

MOST = 100
"""Lines that are logged at most."""


def wrong_counts(servers: Iterable[Server], leases: Iterable[Lease], active: int) -> Iterator[str]:
    """
    Compare what servers count with who is there.

    @param servers: all that exist.
    @param leases: likewise.
    @param active: clients that are connected.
    @return: a line for each server and reason.
    """
    out = Counter(id(lease.server) for lease in leases if not lease.released)
    for server in servers:
        if server.held != out[id(server)]:
            yield f"{server!r} was given {out[id(server)]} leases that are still out"
        if server.held and not active:
            yield f"{server!r} holds connections of nobody: no client is here"
        if not 0 <= server.asked <= server.held:
            yield f"{server!r} asks for {server.asked} places"
        if server.others < 0:
            yield f"{server!r} counts others below nothing"


def wrong_places(servers: Iterable[Server]) -> Iterator[str]:
    """
    Compare who may be chosen with what is known of them.

    @param servers: those that an upstream has now.
    @return: as L{wrong_counts}.
    """
    for server in servers:
        ready = server.eligible and not server.failed
        if server.ready is not ready:
            yield f"{server!r} is {'' if server.ready else 'not '}taken for ready"
        elif server.usable is not (ready and server.held + server.others < server.limit):
            yield f"{server!r} {'may' if server.usable else 'may not'} be chosen"


@frozen(slots=True)
class _Numbers:
    """What a server says at one look; the same twice means that nothing happened."""

    held: int
    asked: int
    picks: int
    reported: int


class Unpublished:
    """
    Finds counts that the store was not told of, although nothing has changed for
    long and the store is there.
    """

    def __init__(self) -> None:
        self._seen: dict[Server, tuple[_Numbers, int]] = {}

    def look(self, servers: Iterable[Server], patience: int) -> Iterator[str]:
        """
        @param servers: those of the upstreams.
        @param patience: looks after which the store has to know.
        @return: as L{wrong_counts}.
        """
        before, self._seen = self._seen, {}
        for server in servers:
            now = _Numbers(server.held, server.asked, server.picks, server.reported)
            then, looks = before.get(server, (now, -1))
            looks = looks + 1 if then == now else 0
            self._seen[server] = now, looks
            if looks >= patience and server.held - server.asked != server.reported:
                yield f"{server!r} is published with {server.reported} of its connections"

    def forget(self) -> None:
        """The store is away, and nothing can be said."""
        self._seen.clear()


class Invariants:
    """Looks once a second, and when everything has ended."""

    _log = Logger()

    def __init__(self, clock: Any, find: Callable[[], Works | None]) -> None:
        """
        @param find: gives what is looked at, as soon as there is something.
        """
        self._find = find
        self._unpublished = Unpublished()
        self._told: set[str] = set()
        self._loop = LoopingCall(self.look)
        self._loop.clock = clock

    def __repr__(self) -> str:
        return f"<Invariants violated={len(self._told)}>"

    @classmethod
    def watch(
        cls, environment: Mapping[str, str], reactor: Any, find: Callable[[], Works | None]
    ) -> None:
        """Do so until the reactor has ended, where the environment asks for it."""
        if environment.get(VARIABLE):
            looking = cls(reactor, find)
            reactor.callWhenRunning(looking.start)
            reactor.addSystemEventTrigger("after", "shutdown", looking.look)

    def start(self) -> None:
        """Begin."""
        self._loop.start(INTERVAL, now=False)

    def look(self) -> None:
        """Look at everything, now."""
        works = self._find()
        if works is None:
            return
        works.inventory.detailed = True
        # See dynbalance.stays.
        gc.unfreeze()
        objects = gc.get_objects()
        servers = [each for each in objects if type(each) is Server]
        leases = [each for each in objects if type(each) is Lease]
        self._tell(wrong_counts(servers, leases, works.traffic.active))
        here = [server for upstream in works.balancer for server in upstream.servers]
        self._tell(wrong_places(here))
        membership = works.membership
        # A predecessor under the same name has left the store, and carries on.
        if membership.running and membership.contact.available:
            kept = works.config.store
            # A report may just have begun, wait for its answer, and be late.
            seconds = 3 * (kept.sync_interval + kept.timeout)
            self._tell(self._unpublished.look(here, 2 + int(seconds / INTERVAL)))
        else:
            self._unpublished.forget()

    def _tell(self, lines: Iterable[str]) -> None:
        for line in lines:
            if line not in self._told and len(self._told) < MOST:
                self._told.add(line)
                self._log.error("An invariant is violated: {line}", line=line)
