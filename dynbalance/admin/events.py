"""
Events as Server-Sent Events, and what is news about one upstream.

Pure but for the listeners, who are told bytes.  Knows the format (HTML Living
Standard, section 9.2) and what was told last; refuses to know when to look.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Protocol

from attrs import frozen

from dynbalance.admin.answers import Json
from dynbalance.admin.views import line_fields, moment
from dynbalance.balancer.server import Server
from dynbalance.balancer.upstream import Upstream
from dynbalance.store.changes import Line

RETRY = 2000
"""Milliseconds after which a browser that lost the connection comes again."""


class Listener(Protocol):
    """Who is told."""

    def tell(self, text: bytes) -> None:
        """One or more events."""

    def end(self) -> None:
        """There will be no more."""


def event(name: str, data: Json, id: str = "") -> bytes:
    """One event."""
    lines = [f"id: {id}"] if id else []
    lines += [f"event: {name}", f"data: {json.dumps(data, separators=(',', ':'))}"]
    return ("\n".join(lines) + "\n\n").encode("ascii")


@frozen(slots=True)
class _Counted:
    """What was counted of a server on this node until now."""

    requests: int
    picks: int
    errors: int
    bytes_in: int
    bytes_out: int


class Watch:
    """
    One upstream that is listened to.

    @ivar listeners: and whether each has been greeted; the others are not told.
    @ivar position: the id of the history's last line that was told; empty while
        it is not known.
    @ivar revision: of the membership whose lines were told; -1 before the first.
    """

    def __init__(self, upstream: Upstream, now: float) -> None:
        self.upstream = upstream
        self.listeners: dict[Listener, bool] = {}
        self.position = ""
        self.revision = -1
        self._available = True
        self._states = _states(upstream)
        self._counted = _counts(upstream)
        self._counted_at = now

    def tell(self, text: bytes) -> None:
        """Tell everybody."""
        for listener, greeted in tuple(self.listeners.items()):
            if greeted:
                listener.tell(text)

    def end(self) -> None:
        """Let everybody go."""
        for listener in tuple(self.listeners):
            listener.end()

    def greeting(self, missed: Iterable[Line], whole: bool, available: bool) -> bytes:
        """
        What a new listener hears first: what it has missed, or that this
        cannot be told, and how things are.

        @param whole: whether C{missed} is all.
        """
        text = f"retry: {RETRY}\n\n".encode("ascii")
        if not whole:
            text += self._reset()
        for line in missed:
            text += event("change", line_fields(line), line.id)
        hello: Json = {
            "upstream": self.upstream.name,
            "policy": self.upstream.policy,
            "revision": self.upstream.revision,
            "store": _store_word(available),
            "states": _told(self._states),
        }
        return text + event("hello", hello, self.position)

    def tell_reset(self) -> None:
        """What happened cannot be told: everybody has to begin anew."""
        self.tell(self._reset())

    def _reset(self) -> bytes:
        return event("reset", {"upstream": self.upstream.name}, self.position)

    def tell_lines(self, lines: Iterable[Line]) -> None:
        """What was ordered or observed, by whomever on whichever node."""
        text = b""
        for line in lines:
            self.position = line.id
            text += event("change", line_fields(line), line.id)
        if text:
            self.tell(text)

    def tell_store(self, available: bool) -> None:
        """Whether the store answers, if that has changed."""
        if available is not self._available:
            self._available = available
            self.tell(event("store", {"store": _store_word(available)}))

    def tell_states(self) -> None:
        """The servers whose state on this node has changed."""
        before, self._states = self._states, _states(self.upstream)
        if before == self._states:
            return
        text = b""
        for key in sorted(before.keys() | self._states.keys()):
            was, why_was = before.get(key, (None, None))
            state, why = self._states.get(key, ("removed", None))
            if (was, why_was) != (state, why):
                news: dict[str, Json] = {"server": key, "state": state, "was": was, "why": why}
                text += event("state", {n: v for n, v in news.items() if v is not None})
        self.tell(text)

    def tell_figures(self, now: float) -> None:
        """
        What each server does: connections now, and the rest a second since this
        was told last.
        """
        seconds = now - self._counted_at
        before, self._counted, self._counted_at = self._counted, _counts(self.upstream), now
        if seconds <= 0:
            return
        servers: dict[str, Json] = {}
        for server in self.upstream.servers:
            counted = self._counted[server.key]
            last = before.get(server.key, counted)
            servers[server.key] = {
                "connections": server.load,
                "node_connections": server.held,
                "requests": moment((counted.requests - last.requests) / seconds),
                "picks": moment((counted.picks - last.picks) / seconds),
                "errors": moment((counted.errors - last.errors) / seconds),
                "bytes_in": moment((counted.bytes_in - last.bytes_in) / seconds),
                "bytes_out": moment((counted.bytes_out - last.bytes_out) / seconds),
            }
        told: Json = {"waiting": self.upstream.waiting, "servers": servers}
        self.tell(event("figures", told))


def _states(upstream: Upstream) -> dict[str, tuple[str, str | None]]:
    return {server.key: (server.state.value, server.why_not) for server in upstream.servers}


def _told(states: dict[str, tuple[str, str | None]]) -> Json:
    return {
        key: {"state": state} if why is None else {"state": state, "why": why}
        for key, (state, why) in states.items()
    }


def _counts(upstream: Upstream) -> dict[str, _Counted]:
    return {server.key: _counted(server) for server in upstream.servers}


def _counted(server: Server) -> _Counted:
    return _Counted(
        requests=sum(server.responses),
        picks=server.picks,
        # Answers of 500 and above are answers; attempts without one are failures.
        errors=server.failures + server.responses[5],
        bytes_in=server.bytes_in,
        bytes_out=server.bytes_out,
    )


def _store_word(available: bool) -> str:
    return "ok" if available else "away"
