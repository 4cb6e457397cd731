"""
A balancer hook at work, with upstreams, requests and attempts made up.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from dynbalance.balancer.attempts import Cause, RetryPolicy
from dynbalance.balancer.hookoutcome import Failed, Outcome, PeerChosen
from dynbalance.balancer.hookrequest import HttpRequest, StreamRequest
from dynbalance.balancer.hookrun import Hook, HookRun, Recreate
from dynbalance.balancer.peers import Peers
from dynbalance.balancer.upstream import Upstream
from dynbalance.store.contract import ServerOrder
from tests.balancer.building import upstream


def numbered(*ports: int, host: str = "127.0.0.1", **order: Any) -> tuple[ServerOrder, ...]:
    """Orders for servers at addresses that need no name server."""
    return tuple(
        ServerOrder(address=f"{host}:{port}", host=host, port=port, **order) for port in ports
    )


def request(
    *fields: tuple[bytes, bytes],
    method: bytes = b"GET",
    target: bytes = b"/",
    **more: Any,
) -> HttpRequest:
    """A request as the HTTP subsystem makes it."""
    return HttpRequest(
        method=method,
        target=target,
        fields=((b"host", b"a.example"), *fields),
        client="192.0.2.1",
        **more,
    )


def hook(
    call: Callable[[Any], object],
    to: Upstream | None = None,
    *,
    subsystem: Any = "http",
    tries: int = 0,
) -> Hook:
    """A hook of an upstream, which has one server unless it is given."""
    made = upstream(*numbered(1)) if to is None else to
    return Hook(
        call=call,
        upstream=made,
        peers=Peers(made),
        subsystem=subsystem,
        retry=RetryPolicy(tries=tries),
    )


def run(
    call: Callable[[Any], object],
    to: Upstream | None = None,
    *,
    subsystem: Any = "http",
    tries: int = 0,
    seen: HttpRequest | StreamRequest | None = None,
    recreate: Recreate | None = None,
) -> HookRun:
    """The beginning of a request under a hook."""
    if seen is None:
        seen = request() if subsystem == "http" else StreamRequest(client="192.0.2.1")
    return HookRun(hook(call, to, subsystem=subsystem, tries=tries), seen, recreate)


def now(outcome: Outcome | Deferred[Outcome]) -> Outcome:
    """An outcome that is there without any wait."""
    assert not isinstance(outcome, Deferred)
    return outcome


def decided(outcome: Outcome | Deferred[Outcome]) -> Outcome:
    """An outcome of a hook that must not have failed."""
    made = now(outcome)
    if isinstance(made, Failed):
        made.failure.raiseException()
    return made


def peer(outcome: Outcome | Deferred[Outcome]) -> str:
    """The address of the peer that was chosen."""
    chosen = decided(outcome)
    assert isinstance(chosen, PeerChosen), chosen
    return str(chosen.server.address)


def attempts(made: HookRun, limit: int = 50, cause: Cause = Cause.ERROR) -> int:
    """
    How many attempts the request has when each of them fails, as the subsystems
    count them.
    """
    tries = made.hook.first_tries
    for count in range(1, limit + 1):
        outcome = decided(made.attempt(tries))
        if isinstance(outcome, PeerChosen):
            tries += outcome.more_tries
        made.attempt_failed(cause)
        tries = made.hook.retry.tries_after(tries, cause, reused=False)
        if tries == 0:
            return count
    return limit
