"""
What a connection to a server is doing.
"""

from __future__ import annotations

from enum import Enum


class Phase(Enum):
    """Each with the words for it."""

    DIALING = "dialing"
    IDLE = "idle"
    HEAD = "waiting for a response"
    BODY = "reading a response"
    TUNNEL = "tunnel"
    CLOSED = "closed"


DIALING, IDLE, HEAD, BODY, TUNNEL, CLOSED = Phase
