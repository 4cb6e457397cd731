"""
Servers, upstreams and a random source for the balancer's tests.

An upstream here has servers named by one letter each, so that a sequence of
choices reads as a word.
"""

from __future__ import annotations

from random import Random

from twisted.internet.task import Clock

from dynbalance.balancer.lease import Lease
from dynbalance.balancer.server import Server
from dynbalance.balancer.upstream import FileServer, Upstream
from dynbalance.store.contract import Intent, ServerOrder, ServerRecord, Snapshot


def order(
    letter: str,
    weight: int = 1,
    max_conns: int = 0,
    backup: bool = False,
    max_fails: int = 1,
    fail_timeout: float = 10.0,
) -> ServerOrder:
    """The order for the server C{letter:80}."""
    return ServerOrder(
        address=f"{letter}:80",
        host=letter,
        port=80,
        weight=weight,
        max_conns=max_conns,
        backup=backup,
        max_fails=max_fails,
        fail_timeout=fail_timeout,
    )


def record(
    order: ServerOrder, intent: Intent = Intent.ENABLE, expired: bool = False
) -> ServerRecord:
    """What a store would keep of an order."""
    return ServerRecord(order=order, intent=intent, expired=expired)


def snapshot(*servers: ServerOrder | ServerRecord, revision: int = 1) -> Snapshot:
    """All servers of an upstream, as a store would show them."""
    records = (s if isinstance(s, ServerRecord) else record(s) for s in servers)
    return Snapshot(revision=revision, now=0.0, servers=tuple(records))


def upstream(
    *servers: ServerOrder,
    policy: str = "least_conn",
    clock: Clock | None = None,
    seed: int = 1,
    file: tuple[FileServer, ...] = (),
) -> Upstream:
    """An upstream whose servers come from a store."""
    made = Upstream("api", policy, file, (clock or Clock()).seconds, Random(seed).random)
    if servers:
        made.apply(snapshot(*servers))
    return made


def only(made: Upstream, letter: str) -> Server:
    """The server C{letter:80}, which must exist."""
    server = made.server(f"{letter}:80")
    assert server is not None
    return server


def taken(made: Upstream, *tried: Server) -> Lease:
    """A lease that must be had."""
    lease = made.choose(tried)
    assert lease is not None, made.why_none()
    return lease


def letters(made: Upstream, choices: int, hold: bool = False) -> str:
    """The servers chosen one after the other, each released before the next."""
    word = ""
    for _ in range(choices):
        lease = taken(made)
        word += lease.server.key[0]
        if not hold:
            lease.release()
    return word
