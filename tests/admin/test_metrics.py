"""Tests of what Prometheus reads, beside what test_api says of it."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.defer import Deferred

from dynbalance.admin.answers import Page
from dynbalance.admin.metrics import BalancerCollector, Metrics
from dynbalance.balancer.lease import Lease
from dynbalance.balancer.options import UpstreamOptions, UpstreamOrder
from dynbalance.balancer.place import Place
from dynbalance.balancer.server import Server
from dynbalance.balancer.upstream import FileServer, Upstream
from dynbalance.lag import Lag
from dynbalance.net.deadlines import Deadlines
from dynbalance.slices import Slices
from tests.admin.test_api import ApiCase
from tests.health.stores import order
from tests.turning import SlowClock

A = "127.0.0.1:8001"


class Owner:
    """Who waits; remembers how that ended."""

    lease: Lease | None = None

    def slot_granted(self, lease: Lease) -> None:
        self.lease = lease

    def waited_in_vain(self) -> None:
        """Nobody cares."""


class MetricsCase(ApiCase):
    """The numbers of a scrape by what they are called."""

    def samples(self) -> dict[str, float]:
        """By name and labels, in their order."""
        text = self.ask("GET", "/metrics").body.decode()
        return {
            " ".join([sample.name, *(f"{k}={v}" for k, v in sorted(sample.labels.items()))]):
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def server(self, upstream: str = "api") -> Server:
        """The first of an upstream."""
        return next(iter(self.balancer.upstream(upstream).servers))


class HistogramTests(MetricsCase):
    """How long things took."""

    def test_of_a_server(self) -> None:
        """A server has few buckets, its upstream has more; each tells all below it."""
        server = self.server()
        for seconds in (0.0004, 0.0015, 0.3, 40.0):
            server.times.note(seconds)
        samples = self.samples()
        labels = "server=127.0.0.1:7001 upstream=api"
        name = "dynbalance_server_response_seconds"
        found = {
            key.split()[1]: value
            for key, value in samples.items()
            if key.startswith(f"{name}_bucket") and labels in key
        }
        self.assertEqual(
            found,
            {
                "le=0.001": 1, "le=0.005": 2, "le=0.02": 2, "le=0.1": 2, "le=0.5": 3,
                "le=2.0": 3, "le=10.0": 3, "le=+Inf": 4,
            },
        )  # fmt: skip
        self.assertEqual(samples[f"{name}_count {labels}"], 4)
        self.assertAlmostEqual(samples[f"{name}_sum {labels}"], 40.3019)
        whole = "dynbalance_upstream_response_seconds_bucket le={} upstream=api"
        of_upstream = [samples[whole.format(bound)] for bound in ("0.0005", "0.002", "+Inf")]
        self.assertEqual(of_upstream, [1, 2, 4])

    def test_connects(self) -> None:
        """Connections are timed, too."""
        self.server().connects.note(0.25)
        samples = self.samples()
        total = "dynbalance_server_connect_seconds_sum server=127.0.0.1:7001 upstream=api"
        self.assertEqual(samples[total], 0.25)
        self.assertEqual(
            samples["dynbalance_upstream_connect_seconds_bucket le=0.5 upstream=api"], 1
        )


class SeriesTests(MetricsCase):
    """Which series there are, and for how long."""

    def test_removed(self) -> None:
        """A server that was removed has no series; what it did stays in its upstream's."""
        self.ask("POST", "/upstream/add", b"host=127.0.0.1&port=8001")
        server = self.server("default")
        server.responses[2], server.picks, server.bytes_in = 7, 8, 9
        server.times.note(0.1)
        self.assertEqual(self.told(A), {"default"})
        self.ask("POST", "/upstream/remove", b"host=127.0.0.1&port=8001")
        self.wait(1)
        self.assertEqual(self.told(A), set())
        self.assertEqual(list(self.upstream.tally.carried.responses), [0, 0, 7, 0, 0, 0])
        samples = self.samples()
        for name, number in (
            ("responses_total code=2xx", 7),
            ("attempts_total", 8),
            ("bytes_total direction=in", 9),
            ("response_seconds_count", 1),
        ):
            self.assertEqual(samples[f"dynbalance_upstream_{name} upstream=default"], number)

    def told(self, server: str) -> set[str]:
        """The upstreams of a server's series."""
        keys = [key for key in self.samples() if f"server={server} " in key]
        return {key.rpartition("upstream=")[2] for key in keys}

    def test_one_state(self) -> None:
        """A server has one state, and its changes are counted by what they led to."""
        self.ask("POST", "/upstream/add", b"host=127.0.0.1&port=8001")
        for action in (b"disable", b"enable", b"drain"):
            self.ask("POST", "/upstream/toggle", b"host=127.0.0.1&port=8001&action=" + action)
            self.wait(1)
        flips = {"up": 2, "disabled": 1, "draining": 1}
        samples = self.samples()
        of = f"server={A} state={{}} upstream=default"
        self.assertEqual(
            {f"dynbalance_server_flips_total {of.format(state)}": n for state, n in flips.items()},
            {k: n for k, n in samples.items() if "flips_total" in k and "=default" in k},
        )
        self.assertEqual(
            {f"dynbalance_server_state {of.format('draining')}": 1},
            {k: n for k, n in samples.items() if "server_state" in k and "=default" in k},
        )

    def test_escaped(self) -> None:
        """No name of a server can break out of its label."""
        odd = 'unix:/run/a"b\\c.sock'
        made = UpstreamOrder(name="odd", servers=(FileServer(order=order(7001)),))
        self.balancer.follow([made], {})
        self.server("odd").key = odd
        self.assertIn(f"dynbalance_server_weight server={odd} upstream=odd", self.samples())


class TallyTests(MetricsCase):
    """What is counted of an upstream itself."""

    def test_causes(self) -> None:
        """Failures, retries and answers of our own are told by their cause."""
        tally = self.upstream.tally
        tally.failed["error"] += 2
        tally.retries["stale"] += 3
        tally.unanswered[499] += 4
        self.upstream.budget.note_request()
        self.upstream.budget.turn()
        self.upstream.budget.note_request()
        samples = self.samples()
        for name, number in (
            ("failed_attempts_total cause=error", 2),
            ("failed_attempts_total cause=timeout", 0),
            ("retries_total cause=stale", 3),
            ("unanswered_total code=499", 4),
            ("unanswered_total code=502", 0),
            ("requests_total", 2),
            ("refused_retries_total", 0),
        ):
            self.assertEqual(samples[f"dynbalance_upstream_{name} upstream=default"], number)

    def test_budget(self) -> None:
        """What the budget did not allow is counted."""
        budget = self.upstream.budget
        budget.share = 0.2
        allowed = sum(budget.allow_retry() for _ in range(10))
        refused = self.samples()["dynbalance_upstream_refused_retries_total upstream=default"]
        self.assertEqual(refused, 10 - allowed)
        self.assertTrue(refused)

    def test_line(self) -> None:
        """Waits are timed, and those counted that got nothing."""
        one = FileServer(order=order(7001, max_conns=1))
        options = UpstreamOptions(queue=1)
        self.balancer.follow([UpstreamOrder(name="line", servers=(one,), options=options)], {})
        upstream = self.balancer.upstream("line")
        deadlines, first = Deadlines(self.clock), upstream.choose()
        assert first is not None
        owner = Owner()
        self.assertTrue(self.place(upstream, deadlines, owner))
        self.assertFalse(self.place(upstream, deadlines, Owner()))
        self.clock.advance(0.3)
        first.release()
        assert owner.lease is not None
        self.assertTrue(self.place(upstream, deadlines, Owner()))
        self.clock.advance(6.0)
        samples = self.samples()
        for name, number in (
            ("wait_seconds_bucket le=0.2", 0),
            ("wait_seconds_bucket le=0.5", 1),
            ("waits_in_vain_total", 1),
            ("queue_full_total", 1),
            ("waiting", 0),
        ):
            self.assertEqual(samples[f"dynbalance_upstream_{name} upstream=line"], number, name)

    def place(self, upstream: Upstream, deadlines: Deadlines, owner: Owner) -> bool:
        return Place(upstream, deadlines, owner).take(5.0, (), b"")


class OtherTests(MetricsCase):
    """The store, and the process."""

    def test_store(self) -> None:
        """Exchanges are timed, failed ones are counted by what they showed."""
        self.wait(1)
        self.assertGreater(self.samples()["dynbalance_store_exchange_seconds_count"], 5)
        self.store.lose()
        self.wait(1)
        samples = self.samples()
        self.assertGreater(samples["dynbalance_store_failed_exchanges_total cause=away"], 5)
        self.assertEqual(samples["dynbalance_store_failed_exchanges_total cause=broken"], 0)
        self.assertAlmostEqual(samples["dynbalance_store_synced_ago_seconds"], 1.0, delta=0.2)

    def test_no_lag(self) -> None:
        """Where nobody looks, nothing is told of the reactor."""
        self.assertFalse([key for key in self.samples() if "reactor" in key])
        self.assertEqual(repr(Lag(self.clock)), "<Lag <Times 0 in 0 s>>")


class SlicedTests(MetricsCase):
    """A scrape of many servers, in slices, while they come and go."""

    def setUp(self) -> None:
        super().setUp()
        for port in range(8001, 8061):
            self.ask("POST", "/upstream/add", b"host=127.0.0.1&port=%d" % port)
        self.slow = SlowClock()

    def begin(self) -> Deferred[Page]:
        metrics = Metrics(self.measured, slices=Slices(self.slow))
        return Deferred.fromCoroutine(metrics.page())

    def test_churn(self) -> None:
        """
        The page has each server of its beginning once in each series, and no other,
        though half of them leave and others come while it is written.
        """
        page = self.begin()
        self.assertNoResult(page)
        turns = 0
        while not page.called:
            turns += 1
            port = 8001 + turns % 30
            self.ask("POST", "/upstream/add", b"host=127.0.0.1&port=%d" % (9000 + turns))
            self.ask("POST", "/upstream/remove", b"host=127.0.0.1&port=%d" % port)
            self.slow.turn()
            self.assertLess(turns, 10_000)
        self.assertGreater(turns, 60)
        text = self.successResultOf(page).body.decode()
        series = [line.rpartition(" ")[0] for line in text.splitlines() if line[0] != "#"]
        self.assertEqual(len(series), len(set(series)))
        heads = [line for line in text.splitlines() if line.startswith("# TYPE")]
        self.assertEqual(len(heads), len(set(heads)))
        there = {f"127.0.0.1:{port}" for port in range(8001, 8061)}
        counted = dict.fromkeys(there, 0)
        for family in text_string_to_metric_families(text):
            if family.name == "dynbalance_server_picks":
                for sample in family.samples:
                    if sample.labels["upstream"] == "default":
                        counted[sample.labels["server"]] += 1
        self.assertEqual(counted, dict.fromkeys(there, 1))

    def test_sums(self) -> None:
        """What a server did that leaves meanwhile is in its upstream's sums once."""
        for server in self.upstream.servers:
            server.picks = 10
        page = self.begin()
        self.ask("POST", "/upstream/remove", b"host=127.0.0.1&port=8060")
        self.wait(1)
        self.assertEqual(self.upstream.tally.carried.picks, 600)
        for _ in range(10_000):
            if not page.called:
                self.slow.turn()
        text = self.successResultOf(page).body.decode()
        self.assertIn('dynbalance_upstream_attempts_total{upstream="default"} 600.0\n', text)

    def test_same_as_metrics(self) -> None:
        """The lines of servers say what their metrics say."""
        for number, server in enumerate(self.upstream.servers):
            server.responses[number % 6] = number
            server.times.note(number / 7)
            server.bytes_in = 10**9 + number
        registry = CollectorRegistry(auto_describe=False)
        metrics = Metrics(self.measured)
        registry.register(BalancerCollector(self.measured))
        page = self.successResultOf(Deferred.fromCoroutine(metrics.page()))

        def told(text: str) -> set[tuple[str, float]]:
            samples = (line.rpartition(" ") for line in text.splitlines() if line[0] != "#")
            ours = [each for each in samples if each[0].startswith("dynbalance_server")]
            self.assertGreater(len(ours), 1000)
            return {(name, float(number)) for name, _, number in ours}

        self.assertEqual(told(page.body.decode()), told(generate_latest(registry).decode()))
