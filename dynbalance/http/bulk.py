"""
The rest of a long body, on its way past the protocols.

Knows when that pays and may be; refuses to know how bytes are moved
(L{dynbalance.net.bulk}).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dynbalance.net.bulk import Bulk
from dynbalance.net.pipes import SPLICE
from dynbalance.net.transport import RECEIVE, ClientTransport, ServerTransport

if TYPE_CHECKING:
    from collections.abc import Callable

    from dynbalance.http.exchange import Exchange
    from dynbalance.http.responsereader import ResponseReader
    from dynbalance.net.pipes import Pipes
    from dynbalance.net.tlstransport import TlsTransport

LEAST = 2 * RECEIVE
"""Bytes that are to come at least: below it the pipe costs more than it saves."""


def pass_beside(connection: ResponseReader, exchange: Exchange, size: int) -> Bulk | None:
    """
    Let the next C{size} bytes from the server go to the client unseen.

    @return: C{None} where they have to be seen: behind TLS, in chunks, in
        HTTP/2, or while the client takes no more.
    """
    source, target = connection.transport, exchange.bulk_target()
    if target is None or SPLICE is None or not isinstance(source, ClientTransport):
        return None
    upstream = connection.upstream
    pipe = upstream.pipes.take()
    if pipe is None:
        return None
    timeout = upstream.settings.read_timeout

    def moved(size: int) -> None:
        exchange.passed(size)
        connection.wait(timeout)

    return Bulk(source, target, size, pipe, upstream.pipes, moved, connection.body_passed)


def send_beside(
    source: ServerTransport | TlsTransport,
    target: ClientTransport | TlsTransport,
    size: int,
    pipes: Pipes,
    moved: Callable[[int], None],
    done: Callable[[bool], None],
) -> Bulk | None:
    """
    Let the next C{size} bytes from the client go to the server unseen.

    @param moved: called with each number of bytes.
    @param done: called when the server has them all.
    @return: C{None} where they have to be seen: behind TLS, or while the server
        takes no more.
    """
    if not (isinstance(source, ServerTransport) and isinstance(target, ClientTransport)):
        return None
    if SPLICE is None or source.TLS or not target.clear:
        return None
    pipe = pipes.take()
    return None if pipe is None else Bulk(source, target, size, pipe, pipes, moved, done)
