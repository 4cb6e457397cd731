"""
Tests for L{dynbalance.workers.crew} with workers that are told what to say.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from dynbalance.admin.answers import Answer
from dynbalance.admin.crew import Matter
from dynbalance.config import Config, StoreUrl
from dynbalance.workers.crew import FIRST, Crew, Incomplete
from dynbalance.workers.lives import matter_from_json
from dynbalance.workers.sums import families_of, to_json
from dynbalance.workers.wire import NoAnswer
from dynbalance.workers.worker import State


class FakeWorker:
    """Notes what it is asked; the test answers."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.state = State.SERVING
        self.starts = 1
        self.asked: list[tuple[str, Any, Deferred[Any]]] = []
        self.ended: list[float] = []
        self.retired: list[int] = []

    def ask(self, what: str, data: Any, patience: float) -> Deferred[Any]:
        answer: Deferred[Any] = Deferred()
        self.asked.append((what, data, answer))
        return answer

    def answer(self, data: Any) -> None:
        self.asked.pop(0)[2].callback(data)

    def fail(self) -> None:
        self.asked.pop(0)[2].errback(NoAnswer("not now"))

    def end(self, patience: float) -> Deferred[None]:
        self.ended.append(patience)
        return succeed(None)

    def retire(self, successor: int, patience: float) -> Deferred[None]:
        self.retired.append(successor)
        return self.end(patience)


def counted(picks: int, held: int) -> Any:
    """The metrics of one worker, as it says them."""
    counter = CounterMetricFamily("picks", "Choices.", value=picks)
    return to_json(families_of([counter, GaugeMetricFamily("held", "Held.", value=held)]))


class BeginTests(TestCase):
    """The wait for workers that begin."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.crew = Crew(2, self.clock)
        self.waiting: list[Deferred[None]] = []
        self.patch(self.crew, "_worker", self.worker)
        store = StoreUrl.parse("unix:///run/x.sock")
        self.begun = self.crew.begin(Config(), "n", store)

    def worker(self, number: int) -> Any:
        waiting: Deferred[None] = Deferred()
        self.waiting.append(waiting)
        return SimpleNamespace(
            state=State.STARTING,
            start=lambda: None,
            look=lambda: None,
            when_serving=lambda: waiting,
        )

    def test_all_serve(self) -> None:
        """It lasts until the last one serves."""
        self.waiting[1].callback(None)
        self.assertNoResult(self.begun)
        self.waiting[0].callback(None)
        self.successResultOf(self.begun)

    def test_late(self) -> None:
        """It ends without those that are late, who may serve later."""
        self.clock.advance(FIRST)
        self.successResultOf(self.begun)
        for each in self.waiting:
            each.callback(None)

    def test_given_up(self) -> None:
        """An end that is ordered meanwhile is no failure of a worker's, nor a start."""
        self.begun.cancel()
        self.failureResultOf(self.begun, CancelledError)
        for each in self.waiting:
            each.callback(None)


class CrewTests(TestCase):
    """What is done with all workers together."""

    def setUp(self) -> None:
        self.crew = Crew(2, Clock())
        self.first, self.second = FakeWorker(1), FakeWorker(2)
        self.crew.workers = [self.first, self.second]  # type: ignore[list-item]

    def scrape(self) -> Deferred[dict[str, float]]:
        """The samples by their names and values of labels."""

        async def traffic() -> dict[str, float]:
            metrics = await self.crew.traffic(lambda labels: True)
            return {
                " ".join([sample.name, *sample.labels.values()]): sample.value
                for metric in metrics
                for sample in metric.samples
            }

        return Deferred.fromCoroutine(traffic())

    def test_traffic(self) -> None:
        """Sums of what is counted, what is measured for each, and how they are."""
        scraped = self.scrape()
        self.first.answer(counted(3, 1))
        self.assertNoResult(scraped)
        self.second.answer(counted(4, 2))
        self.assertEqual(
            {
                "picks_total": 7,
                "held 1": 1,
                "held 2": 2,
                "dynbalance_worker_up 1": 1,
                "dynbalance_worker_up 2": 1,
                "dynbalance_worker_starts_total 1": 1,
                "dynbalance_worker_starts_total 2": 1,
            },
            self.successResultOf(scraped),
        )

    def test_silent(self) -> None:
        """One that does not answer counts as it did, and measures nothing."""
        scraped = self.scrape()
        self.first.answer(counted(3, 1))
        self.second.answer(counted(4, 2))
        self.successResultOf(scraped)
        scraped = self.scrape()
        self.first.answer(counted(5, 1))
        self.second.state = State.WAITING
        self.second.fail()
        shown = self.successResultOf(scraped)
        self.assertEqual((9, 0), (shown["picks_total"], shown["dynbalance_worker_up 2"]))
        self.assertNotIn("held 2", shown)

    def test_ends_during_a_scrape(self) -> None:
        """What one said before it ended is counted once, also while another is waited for."""
        scraped = self.scrape()
        self.first.answer(counted(3, 1))
        self.crew._ended(self.first)  # type: ignore[arg-type]
        self.second.answer(counted(4, 2))
        self.assertEqual(7, self.successResultOf(scraped)["picks_total"])
        scraped = self.scrape()
        self.first.answer(counted(1, 0))
        self.second.answer(counted(4, 2))
        self.assertEqual(8, self.successResultOf(scraped)["picks_total"])

    def test_foretell(self) -> None:
        """The first that answers says what it would choose, and who it is."""
        matter = Matter("u", b"k\xff", "r", False)

        async def foretold() -> Answer | None:
            return await self.crew.foretell(matter)

        told = Deferred.fromCoroutine(foretold())
        self.assertEqual([], self.second.asked)
        self.first.fail()
        ((what, data, _),) = self.second.asked
        self.assertEqual(("foretell", matter), (what, matter_from_json(data)))
        self.second.answer(["a would be chosen", {"chosen": "a"}])
        self.assertEqual(
            Answer("a would be chosen", {"chosen": "a", "worker": 2}), self.successResultOf(told)
        )
        told = Deferred.fromCoroutine(foretold())
        self.first.fail()
        self.second.fail()
        self.assertIsNone(self.successResultOf(told))

    def test_see(self) -> None:
        """A change is seen when all have seen it, or have not answered."""
        seen = self.crew.see("u")
        self.assertEqual([("see", "u")], [each[:2] for each in self.first.asked])
        self.first.answer(None)
        self.assertNoResult(seen)
        self.second.fail()
        self.successResultOf(seen)

    def test_see_many(self) -> None:
        """Changes that come meanwhile are seen together, after they were made."""
        first = self.crew.see("u")
        later = [self.crew.see("u") for _ in range(5)]
        other = self.crew.see("v")
        self.assertEqual(["u", "v"], [each[1] for each in self.first.asked])
        for worker in (self.first, self.second):
            worker.answer(None)
        self.successResultOf(first)
        for each in later:
            self.assertNoResult(each)
        self.assertEqual(["v", "u"], [each[1] for each in self.first.asked])
        for worker in (self.first, self.second):
            worker.answer(None)
            worker.answer(None)
        for each in [*later, other]:
            self.successResultOf(each)
        self.assertEqual([], self.first.asked)

    def test_end(self) -> None:
        """All are ended, each with the same patience."""
        self.successResultOf(self.crew.end(7.0))
        self.assertEqual(([7.0], [7.0]), (self.first.ended, self.second.ended))

    def test_succession(self) -> None:
        """Each lets go by its own name in the store, takes back, or retires."""
        for node, names in (("n", ["n-w1", "n-w2"]), ("", ["", ""])):
            let_go = Deferred.fromCoroutine(self.crew.let_go(node))
            asked = [worker.asked[0][:2] for worker in (self.first, self.second)]
            self.assertEqual([("let go", name) for name in names], asked)
            self.first.answer(None)
            self.assertNoResult(let_go)
            # One that is gone has nothing.
            self.second.fail()
            self.successResultOf(let_go)
        back = Deferred.fromCoroutine(self.crew.take_back())
        for worker in (self.first, self.second):
            self.assertEqual("take back", worker.asked[0][0])
            worker.answer(None)
        self.successResultOf(back)
        self.successResultOf(self.crew.retire(77, 7.0))
        self.assertEqual(([77], [7.0]), (self.second.retired, self.second.ended))

    def test_all(self) -> None:
        """Whoever takes a place takes it with all workers."""
        self.crew.require_all()
        self.second.state = State.STARTING
        self.assertRaises(Incomplete, self.crew.require_all)

    def test_serving(self) -> None:
        """Those count that serve."""
        self.second.state = State.STARTING
        self.assertEqual(1, self.crew.serving)
