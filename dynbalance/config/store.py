"""
The tables of the store and of heartbeats.
"""

from __future__ import annotations

import re

from attrs import field, frozen

from dynbalance.config.ranges import OptionError, matches, seconds
from dynbalance.config.storeurl import StoreUrl

_EMBEDDED = StoreUrl.parse("embedded:")


@frozen(slots=True, kw_only=True)
class StoreConfig:
    """
    C{[store]}: the truth that the nodes share.

    @ivar prefix: of all its keys.
    @ivar timeout: of one call.
    @ivar sync_interval: between two exchanges of counts.
    @ivar lease: a node that is silent for so long is dead.
    """

    url: StoreUrl = _EMBEDDED
    prefix: str = field(
        default="upstream",
        validator=matches(r"[!-~]{1,200}", "1-200 visible ASCII characters"),
    )
    timeout: float = field(default=1.0, validator=seconds(0.01))
    sync_interval: float = field(default=0.1, validator=seconds(0.01))
    lease: float = field(default=10.0, validator=seconds(1.0))

    def __attrs_post_init__(self) -> None:
        if self.url.kind.by_cluster and not re.match(r"[^{]*\{[^}]+\}", self.prefix):
            raise OptionError(
                "prefix", "a cluster needs a hash tag in it, so that one node has all keys: {lb}"
            )
        if self.lease < 2 * self.sync_interval:
            raise OptionError(
                "lease", f"{self.lease} is less than two sync_intervals of {self.sync_interval}"
            )


@frozen(slots=True, kw_only=True)
class HeartbeatConfig:
    """
    C{[heartbeat]}: who is silent for longer than C{ttl} is taken out.

    @ivar reenable: whether the next heartbeat brings such a server back.
    """

    ttl: float = field(default=30.0, validator=seconds(0.1))
    cleanup_interval: float = field(default=10.0, validator=seconds(0.1))
    reenable: bool = True
