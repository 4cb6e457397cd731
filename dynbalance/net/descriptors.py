"""
How near this process is to its last file descriptor.

The kernel gives the lowest one that is free, so the number of a new one tells how
many there are.  Clients are taken on while there is enough for what follows from
them: connections to servers, pipes, files.  And the last few are for what has to go
on in any case: the store, the admin API, the snapshot.  Knows the limit, which may
change at any time; refuses to know what a descriptor is used for.

nginx likewise stops accepting when less than an eighth of its connections is free.
"""

from __future__ import annotations

import resource
import sys


def below_for_traffic() -> int:
    """Connections to servers, and pipes, have descriptors below this number."""
    limit = _limit()
    return limit - 16 - limit // 64


def below_for_clients() -> int:
    """New clients are let in while the next descriptor is below this number."""
    return below_for_traffic() - _limit() // 8


def _limit() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft
