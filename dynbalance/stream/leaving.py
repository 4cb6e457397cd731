"""
Whether a client has left that waits for a server.

Its bytes stay in the kernel until there is a server for them, so its end is not
read, and has to be looked for.

Knows what the kernel tells of a socket; refuses to know who looks, and when.
"""

from __future__ import annotations

import select
import socket

LOOK = 0.5
"""Seconds from one look to the next."""

# Only Linux tells of an end before all that came in front of it was read.
_ENDED = getattr(select, "POLLRDHUP", 0)
_BROKEN = select.POLLHUP | select.POLLERR


def has_left(skt: socket.socket, half_close: bool) -> bool:
    """
    Look, and take nothing from the socket.

    A client that has ended its direction may still want an answer, where
    C{half_close} says so, but only if it has asked something: one that ends
    without a byte cannot be told from one that has closed, and has.

    @param skt: may be read without waiting.
    @param half_close: whether the end of one direction leaves the other.
    """
    poll = select.poll()
    poll.register(skt, _ENDED)
    events = sum(event for _, event in poll.poll(0))
    if not events:
        return False
    if events & _BROKEN or not half_close:
        return True
    try:
        return not skt.recv(1, socket.MSG_PEEK)
    except OSError:
        return True
