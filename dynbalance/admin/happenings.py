"""
The endpoint that does not end.

Knows where a listener begins; refuses to know what it is told.
"""

from __future__ import annotations

import re

from dynbalance.admin.answers import Page, Refused
from dynbalance.admin.feed import Feed
from dynbalance.admin.scene import Ask, Scene

_ID = re.compile(r"[0-9]{1,18}-[0-9]{1,18}")


class Happenings:
    """What happens to the servers of an upstream."""

    def __init__(self, scene: Scene, feed: Feed | None) -> None:
        """@param feed: C{None} where an answer has to have an end."""
        self._scene = scene
        self._feed = feed

    async def events(self, ask: Ask) -> Page:
        upstream = self._scene.upstream(ask)
        if self._feed is None:
            raise Refused(406, "Events are told on the admin listener only")
        last = ask.last_event_id
        if last and not _ID.fullmatch(last):
            raise Refused(400, "Invalid Last-Event-ID: no id of an event")
        return Page(
            content_type=b"text/event-stream; charset=utf-8",
            body=b"",
            # Or an nginx in between keeps the events for itself.
            headers=((b"x-accel-buffering", b"no"),),
            stream=self._feed.open(upstream, last, ask.caller.lasts),
        )
