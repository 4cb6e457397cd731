"""
What an upstream is made from, and how it is to be run.

Knows the values; whoever reads the configuration fills them in.
"""

from __future__ import annotations

from attrs import frozen

from dynbalance.balancer.roll import FileServer


@frozen(slots=True, kw_only=True)
class UpstreamOptions:
    """
    An upstream's options.

    @ivar hash_consistent: of the policy C{hash}.
    @ivar slow_start: seconds in which a server that was added or came back
        reaches its weight; 0 for at once.
    @ivar queue: how many may wait while all servers are full; 0 for nobody.
    @ivar retry_budget: retries allowed as a share of the requests; 0 for no
        budget.
    @ivar last_good: whether, when no server is good, those that were good
        last are used (C{panic = "last_good"}).
    @ivar strict: whether the store is asked about each choice
        (C{counting = "strict"}).
    """

    hash_consistent: bool = True
    slow_start: float = 0.0
    queue: int = 0
    retry_budget: float = 0.2
    last_good: bool = False
    strict: bool = False


DEFAULTS = UpstreamOptions()
"""What holds where nothing is said."""


@frozen(slots=True, kw_only=True)
class UpstreamOrder:
    """
    What an upstream is made from.

    @ivar policy: one of L{dynbalance.balancer.policies.POLICIES}.
    @ivar servers: those that the configuration file names.
    @ivar options: how it is to be run.
    """

    name: str
    policy: str = "least_conn"
    servers: tuple[FileServer, ...] = ()
    options: UpstreamOptions = DEFAULTS
