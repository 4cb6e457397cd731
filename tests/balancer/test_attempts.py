"""When another server is tried, and what the client hears when not."""

from __future__ import annotations

import errno

from twisted.trial.unittest import TestCase

from dynbalance.balancer.attempts import (
    CONDITIONS,
    NON_IDEMPOTENT,
    Cause,
    RetryPolicy,
    Sent,
    failure_status,
    is_blamed,
)

ALL = RetryPolicy(CONDITIONS)
PLAIN = RetryPolicy()


def allowed(
    policy: RetryPolicy,
    cause: Cause = Cause.ERROR,
    method: bytes = b"GET",
    sent: Sent = Sent.SOMETHING,
    replayable: bool = True,
    tries: int = 1,
    elapsed: float = 0.0,
) -> bool:
    """The decision, for a GET that was sent and failed, unless said otherwise."""
    return policy.allows(
        cause, method=method, sent=sent, replayable=replayable, tries=tries, elapsed=elapsed
    )


class ConditionTests(TestCase):
    """Which failures may be tried again."""

    def test_names(self) -> None:
        """The conditions are those of the configuration, by their names."""
        self.assertEqual(
            CONDITIONS,
            {
                "error",
                "timeout",
                "invalid_header",
                "http_500",
                "http_502",
                "http_503",
                "http_504",
                "http_403",
                "http_404",
                "http_429",
                "non_idempotent",
            },
        )

    def test_default(self) -> None:
        """By default errors and timeouts are tried again, nothing else."""
        retried = {cause for cause in Cause if allowed(PLAIN, cause)}
        self.assertEqual(retried, {Cause.ERROR, Cause.TIMEOUT})

    def test_each_condition_by_itself(self) -> None:
        """A condition lets its own cause be tried again, and no other."""
        for name in CONDITIONS - {NON_IDEMPOTENT}:
            policy = RetryPolicy(frozenset({name}))
            self.assertEqual([c.value for c in Cause if allowed(policy, c)], [name])

    def test_off(self) -> None:
        """Without conditions nothing is tried again."""
        self.assertFalse(any(allowed(RetryPolicy(frozenset()), cause) for cause in Cause))

    def test_no_server_is_final(self) -> None:
        """When there is no server, looking again is no use."""
        self.assertFalse(allowed(ALL, Cause.NO_SERVER))


class SentTests(TestCase):
    """What was sent decides for requests that must not happen twice."""

    def test_unsafe_methods(self) -> None:
        """POST, LOCK and PATCH are tried again only when nothing was sent."""
        for method in (b"POST", b"LOCK", b"PATCH"):
            self.assertFalse(allowed(PLAIN, method=method))
            self.assertFalse(allowed(PLAIN, Cause.TIMEOUT, method))
            self.assertTrue(allowed(PLAIN, method=method, sent=Sent.NOTHING))
            self.assertTrue(allowed(PLAIN, Cause.TIMEOUT, method, Sent.NOTHING))

    def test_other_methods(self) -> None:
        """PUT and DELETE count as idempotent, and so does what nobody knows."""
        for method in (b"GET", b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"BREW"):
            self.assertTrue(allowed(PLAIN, method=method))

    def test_non_idempotent(self) -> None:
        """C{non_idempotent} lets them be sent twice, for the listed causes."""
        policy = RetryPolicy(frozenset({"error", NON_IDEMPOTENT}))
        self.assertTrue(allowed(policy, method=b"POST"))
        self.assertFalse(allowed(policy, Cause.TIMEOUT, b"POST"))

    def test_post_that_was_answered(self) -> None:
        """A POST with a listed status is passed on: the server has it."""
        policy = RetryPolicy(frozenset({"http_404", "http_500"}))
        self.assertFalse(allowed(policy, Cause.HTTP_404, b"POST"))
        self.assertFalse(allowed(policy, Cause.HTTP_500, b"POST"))
        self.assertTrue(allowed(policy, Cause.HTTP_500, b"GET"))

    def test_body_that_is_gone(self) -> None:
        """Without all of the body there is no other attempt."""
        for sent in Sent:
            self.assertFalse(allowed(ALL, replayable=False, sent=sent))


class BoundTests(TestCase):
    """How often and how long."""

    def test_first_tries(self) -> None:
        """As many tries as servers, or as next_upstream_tries says if that is fewer."""
        self.assertEqual(PLAIN.first_tries(3), 3)
        self.assertEqual(RetryPolicy(tries=2).first_tries(3), 2)
        self.assertEqual(RetryPolicy(tries=5).first_tries(3), 3)
        self.assertEqual(RetryPolicy(tries=5).first_tries(0), 0)

    def test_each_attempt_costs_one(self) -> None:
        """Tries count down to 0 and then nothing more is allowed."""
        tries = PLAIN.first_tries(3)
        attempts = 1
        while allowed(PLAIN, tries=(tries := PLAIN.tries_after(tries, Cause.ERROR, False))):
            attempts += 1
        self.assertEqual((attempts, tries), (3, 0))
        self.assertEqual(PLAIN.tries_after(0, Cause.ERROR, False), 0)

    def test_kept_connection_that_died_is_free(self) -> None:
        """A reused connection that breaks costs no try, even for a single server."""
        self.assertEqual(PLAIN.tries_after(1, Cause.ERROR, True), 1)
        self.assertTrue(allowed(PLAIN, tries=1))

    def test_kept_connection_with_another_end_is_not(self) -> None:
        """A timeout on a reused connection is the server's, and costs a try."""
        self.assertEqual(PLAIN.tries_after(2, Cause.TIMEOUT, True), 1)

    def test_timeout(self) -> None:
        """After next_upstream_timeout no other attempt begins; 0 is for ever."""
        policy = RetryPolicy(timeout=5.0)
        self.assertTrue(allowed(policy, elapsed=4.9))
        self.assertFalse(allowed(policy, elapsed=5.0))
        self.assertTrue(allowed(PLAIN, elapsed=1e9))


class BlameTests(TestCase):
    """What counts towards max_fails."""

    def test_always(self) -> None:
        """Errors, timeouts and bad heads count, tried again or not."""
        for cause in (Cause.ERROR, Cause.TIMEOUT, Cause.INVALID_HEADER):
            self.assertTrue(is_blamed(cause, retried=False))
            self.assertTrue(is_blamed(cause, retried=True))

    def test_answers_only_when_retried(self) -> None:
        """A 5xx or 429 counts only when another server is tried because of it."""
        for status in (500, 502, 503, 504, 429):
            cause = Cause.of_status(status)
            assert cause is not None
            self.assertTrue(is_blamed(cause, retried=True))
            self.assertFalse(is_blamed(cause, retried=False))

    def test_never(self) -> None:
        """403 and 404 are no failure of the server's."""
        self.assertFalse(is_blamed(Cause.HTTP_403, retried=True))
        self.assertFalse(is_blamed(Cause.HTTP_404, retried=True))
        self.assertFalse(is_blamed(Cause.NO_SERVER, retried=False))

    def test_own_want(self) -> None:
        """A connection for which this process had no means says nothing of the server."""
        cause = Cause.of_error(errno.EMFILE)
        self.assertEqual(Cause.NO_MEANS, cause)
        self.assertFalse(is_blamed(cause, retried=True))
        self.assertFalse(allowed(ALL, cause))
        self.assertEqual(Cause.ERROR, Cause.of_error(errno.ECONNREFUSED))
        self.assertEqual(Cause.ERROR, Cause.of_error(None))


class StatusTests(TestCase):
    """What the client gets in the end."""

    def test_own_statuses(self) -> None:
        """504 for a timeout, 503 for what this process lacks, 502 for all else."""
        self.assertEqual(
            {cause: failure_status(cause) for cause in Cause if not cause.is_answer},
            {
                Cause.ERROR: 502,
                Cause.TIMEOUT: 504,
                Cause.INVALID_HEADER: 502,
                Cause.NO_SERVER: 502,
                Cause.NO_MEANS: 503,
            },
        )

    def test_answers_keep_theirs(self) -> None:
        """An answer of a server keeps its status."""
        for status in (403, 404, 429, 500, 502, 503, 504):
            cause = Cause.of_status(status)
            assert cause is not None
            self.assertTrue(cause.is_answer)
            self.assertEqual(failure_status(cause), status)

    def test_other_answers_are_no_cause(self) -> None:
        """Statuses that cannot be listed are never a reason to try again."""
        for status in (200, 302, 401, 501, 505, 999):
            self.assertIs(Cause.of_status(status), None)
