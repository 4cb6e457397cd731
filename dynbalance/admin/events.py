"""
Events as Server-Sent Events, and what is news about one upstream.

Pure but for the listeners, who are told bytes.  Knows the format (HTML Living
Standard, section 9.2) and what was told last; refuses to know when to look.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from dynbalance.admin.answers import Json, Written, compact
from dynbalance.admin.crew import Live, Lives
from dynbalance.admin.rates import Rates, Telling
from dynbalance.admin.views import line_fields
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


def event(name: str, data: Json | Written, id: str = "") -> bytes:
    """One event."""
    lines = [f"id: {id}"] if id else []
    text = data.text if isinstance(data, Written) else compact(data)
    lines += [f"event: {name}", f"data: {text}"]
    return ("\n".join(lines) + "\n\n").encode("ascii")


class Watch:
    """
    One upstream that is listened to.

    @ivar listeners: and whether each has been greeted; the others are not told.
    @ivar position: the id of the history's last line that was told; empty while
        it is not known.
    @ivar revision: of the membership whose lines were told; -1 before the first.
    """

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self.listeners: dict[Listener, bool] = {}
        self.position = ""
        self.revision = -1
        self._available = True
        self._lives: Lives | None = None
        self._rates = Rates()

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
            "states": {key: _state(live) for key, live in (self._lives or {}).items()},
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

    @property
    def is_new(self) -> bool:
        """Whether nobody has looked yet."""
        return self._lives is None

    def see(self, lives: Lives, now: float) -> None:
        """
        Tell the servers whose state on this node has changed.

        @param lives: what there is now; what there is first is told in greetings.
        """
        before, self._lives = self._lives, lives
        if before is None:
            self._rates.look(lives, now)
            return
        text = b""
        changed = [key for key, live in lives.items() if _is_news(before.get(key), live)]
        changed += [key for key in before if key not in lives]
        for key in sorted(changed):
            was, is_now = before.get(key), lives.get(key)
            news: dict[str, Json] = {"state": "removed"} if is_now is None else _state(is_now)
            former: dict[str, Json] = {} if was is None else {"was": was.state.value}
            text += event("state", {"server": key, **news, **former})
        if text:
            self.tell(text)

    def figures(self, now: float) -> Telling | None:
        """
        What each server does: connections now, how long answers take, and the
        rest a second since this was told last.  L{tell_figures} tells it.
        """
        if self._lives is None:
            return None
        return self._rates.telling(self.upstream, self._lives, now)

    def tell_figures(self, told: Written) -> None:
        """Tell what each server does."""
        self.tell(event("figures", told))


def _is_news(was: Live | None, live: Live) -> bool:
    return was is None or was.state is not live.state or was.why != live.why


def _state(live: Live) -> dict[str, Json]:
    told: dict[str, Json] = {"state": live.state.value}
    return told if live.why is None else {**told, "why": live.why}


def _store_word(available: bool) -> str:
    return "ok" if available else "away"
