"""
Redis says which server a tenant lives on.

    [upstreams.default]
    balancer = "redis_lookup:choose"

    redis-cli HSET tenants acme 10.0.0.7:8080

The hook waits for Redis, and only the request that it waits for is held up.
An unknown tenant is answered 404.  When Redis does not answer in time, the
upstream's policy chooses.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import txredisapi
from twisted.internet.defer import TimeoutError
from twisted.internet.error import ConnectionClosed
from twisted.internet.interfaces import IReactorTime

from dynbalance.balancer.hook import HttpContext


class TenantLookup:
    """
    @param redis: gives a connection; its C{hget} returns a Deferred.
    @param clock: counts the patience.
    @param patience: seconds that Redis has.
    """

    def __init__(
        self, redis: Callable[[], Any], clock: IReactorTime, patience: float = 0.2
    ) -> None:
        self._redis = redis
        self._clock = clock
        self._patience = patience

    async def __call__(self, balancer: HttpContext) -> None:
        tenant = balancer.request.headers.get("X-Tenant", "")
        try:
            answer = self._redis().hget("tenants", tenant)
            peer = await answer.addTimeout(self._patience, self._clock)
        except (TimeoutError, ConnectionClosed, txredisapi.ConnectionError) as failed:
            balancer.log.error("Redis did not say where {tenant} is: {why!r}",
                               tenant=tenant, why=failed)
            return
        if peer is None:
            balancer.exit(404)
        balancer.set_current_peer(peer)


@cache
def connection() -> Any:
    """One for the whole process, made when the first request needs it."""
    return txredisapi.lazyConnection("127.0.0.1", 6379)


async def choose(balancer: HttpContext) -> None:
    """The hook."""
    from twisted.internet import reactor

    clock: Any = reactor
    await TenantLookup(connection, clock)(balancer)
