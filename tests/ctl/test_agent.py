"""The agent's decisions, without waiting and without a network."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from dynbalance.ctl.agent import Agent, http_check
from dynbalance.ctl.api import Answer, Refused, Unreachable
from tests.ctl.standin import StandIn


class AgentTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.posted: list[tuple[str, dict[str, str]]] = []
        self.outcomes: list[Answer | Exception] = []
        self.log: list[str] = []
        self.why = ""
        self.agent = Agent(
            self.post, {"host": "", "port": "80"}, {"weight": "2"}, lambda: self.why,
            self.log.append,
        )

    def post(self, path: str, **fields: str) -> Answer:
        self.posted.append((path, fields))
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def answer(self, status: int, message: str, retry_after: float = 0.0) -> None:
        answer = Answer(status=status, text="", message=message, retry_after=retry_after)
        self.outcomes.append(answer if status == 200 else Refused(answer))

    def test_beat(self) -> None:
        """A server that is known gets a heartbeat."""
        self.answer(200, "ok")
        self.assertEqual(0.0, self.agent.beat())
        self.assertEqual([("refresh", {"host": "", "port": "80"})], self.posted)

    def test_unknown(self) -> None:
        """One that is not known is registered, with what was ordered."""
        self.answer(404, "Server not found: x")
        self.answer(200, "Server added successfully")
        self.agent.beat()
        self.assertEqual(("add", {"host": "", "port": "80", "weight": "2"}), self.posted[-1])
        self.assertIn("Server added successfully", self.log)

    def test_away(self) -> None:
        """A daemon that is away is told of once, and tried again with the next beat."""
        for _ in range(2):
            self.outcomes.append(Unreachable("http://x: Connection refused"))
            self.agent.beat()
        self.assertEqual(["http://x: Connection refused"], self.log)
        self.answer(200, "ok")
        self.agent.beat()
        self.assertEqual("heartbeats are taken", self.log[-1])

    def test_refused(self) -> None:
        """Whoever is refused with Retry-After stays away for so long."""
        self.answer(429, "Too many requests", 7.0)
        self.assertEqual(7.0, self.agent.beat())
        self.assertEqual(["refused: Too many requests"], self.log)

    def test_ill(self) -> None:
        """While the check fails there is no heartbeat."""
        self.why = "status 500"
        self.agent.beat()
        self.assertEqual(([], ["no heartbeat: status 500"]), (self.posted, self.log))

    def test_leave(self) -> None:
        """The farewell is a drain with removal at its end."""
        self.answer(200, "Server is draining")
        self.assertTrue(self.agent.leave(30.0))
        fields = self.posted[0][1]
        self.assertEqual(("drain", "remove", "30.0"),
                         (fields["action"], fields["then"], fields["deadline"]))

    def test_leave_in_vain(self) -> None:
        """A daemon that is away does not keep the agent from ending."""
        self.outcomes.append(Unreachable("away"))
        self.assertFalse(self.agent.leave(30.0))


class HttpCheckTests(SynchronousTestCase):
    def test_check(self) -> None:
        """200-399 is good, anything else is told."""
        daemon = StandIn()
        self.addCleanup(daemon.close)
        daemon.answers["/ok"] = [(204, "", None)]
        self.assertEqual("", http_check(f"{daemon.url}/ok?x=1", 5.0)())
        self.assertEqual({"x": "1"}, daemon.asked[0].fields)
        self.assertEqual(f"{daemon.url}/no: status 404", http_check(f"{daemon.url}/no", 5.0)())
        daemon.close()
        self.assertIn("refused", http_check(f"{daemon.url}/ok", 5.0)())

    def test_no_url(self) -> None:
        """Only HTTP is understood."""
        for url in ("ftp://x", "x", "http://"):
            self.assertRaises(ValueError, http_check, url, 1.0)
