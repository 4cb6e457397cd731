"""
One site after the other, and a reason for each step.

    [upstreams.default]
    balancer = "failover:choose"
    next_upstream = ["error", "timeout", "http_503", "http_404"]

A site that refuses, breaks off or says 503 is followed by the next one.  After
404 the archive is asked, once.  A timeout is followed by nothing: the request
may be at work there still.
"""

from __future__ import annotations

from dynbalance.balancer.hook import HttpContext

SITES = ["127.0.0.1:9201", "127.0.0.1:9202", "127.0.0.1:9203"]
ARCHIVE = "127.0.0.1:9209"


def choose(balancer: HttpContext) -> None:
    """The hook."""
    # What has not been tried is kept from attempt to attempt.
    left = balancer.ctx.setdefault("left", [*SITES, ARCHIVE])
    failure = balancer.get_last_failure()
    if failure is None:
        balancer.set_timeouts(connect=0.5, read=5)
        balancer.set_more_tries(len(left) - 1)
    else:
        state, status = failure
        balancer.log.info("attempt {attempt} ended with {status}",
                          attempt=balancer.attempt - 1, status=status)
        if state == "next":
            del left[:-1]
        if status == 504 or not left:
            balancer.exit(status)
    balancer.set_current_peer(left.pop(0))
