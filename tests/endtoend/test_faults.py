"""
Everything breaks at once, while each request is accounted for.
"""

from __future__ import annotations

from tests.endtoend.daemon import Daemon
from tests.endtoend.harness import EndToEndCase, wait_until
from tests.endtoend.oracle import Oracle, Recorder
from tests.endtoend.servers import Redis


class FaultTests(EndToEndCase):
    """Three servers, a store, a daemon; C{python -m bench.faults} has each fault alone."""

    def test_faults(self) -> None:
        """
        A server is killed and comes back, the store likewise, and the file is bad: no
        request that may be repeated fails, none that may not is given to two servers,
        and every answer is the right one.
        """
        redis = Redis(self)
        daemon = Daemon(self, redis.url, keeping={"timeout": 0.4}, upstream={"retry_budget": 0.0})
        servers = [Recorder(self, name) for name in ("one", "two", "three")]
        for server in servers:
            daemon.add(server.port, heartbeat="false", fail_timeout=1)
        oracle = Oracle(self, [daemon.http], servers, clients=6)
        oracle.more()
        servers[0].process.kill()
        oracle.more()
        redis.process.kill()
        oracle.more()
        servers[0].start()
        daemon.edit("retry_budget = 0.0", "retry_budget = -1")
        daemon.reload("retry_budget")
        redis.start()
        oracle.more()
        oracle.stop()
        verdict = oracle.verdict()
        self.assertEqual([], verdict.violations)
        self.assertEqual((0, 0), (verdict.failed("GET"), verdict.failed("PUT")), str(verdict))
        # At most those that were under way when their server died.
        self.assertLessEqual(verdict.failed("POST"), 6, str(verdict))
        nothing = dict.fromkeys(daemon.status(), 0)
        wait_until(lambda: daemon.counts() == nothing, "all counts to be 0")
        wait_until(lambda: redis.counts() == nothing, "all counts to be 0 in the store")
