"""
The failures that more than one package can name.

An error says whose fault it was and what may happen next; foreign exceptions
are translated into these where they enter, once.
"""

from __future__ import annotations

import errno

EXHAUSTED = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
"""
Errors of the system calls that make a descriptor: this process or this machine has
none left, and nobody else is to blame.
"""


class DynbalanceError(Exception):
    """Base of every failure that dynbalance names itself."""


class ConfigError(DynbalanceError):
    """
    The command line or the configuration file is wrong.

    @ivar problems: one line for each mistake, beginning with the option's
        path, such as C{"http[0].listen: ..."}.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class StartRefused(SystemExit, DynbalanceError):
    """
    The configuration is right, but the daemon cannot start with it: a port is
    in use, a file cannot be written.  C{twistd} ends with a line for each
    problem and exit status 1.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(f"dynbalance: {problem}" for problem in problems))


class StoreError(DynbalanceError):
    """Base of what a store call may fail with."""


class StoreUnavailable(StoreError):
    """
    The store did not answer in time or refused to work.  Nothing is known to
    have changed; the call may be made again.
    """


class StoreUnusable(StoreError):
    """
    The store can never work as it is set up (no server program, a directory
    that another daemon uses); trying again changes nothing.
    """


class ServerExists(StoreError):
    """The address is already a server of the upstream."""

    def __init__(self, address: str) -> None:
        super().__init__(f"Server already exists: {address}")
        self.address = address


class ServerNotFound(StoreError):
    """The address is not a server of the upstream."""

    def __init__(self, address: str) -> None:
        super().__init__(f"Server not found: {address}")
        self.address = address


class StaleRevision(StoreError):
    """
    The change was meant for another revision of the membership.

    @ivar revision: which it has now.
    """

    def __init__(self, revision: int) -> None:
        super().__init__(f"The membership has changed: its revision is {revision}")
        self.revision = revision


class BadAddress(DynbalanceError, ValueError):
    """A server's address cannot be understood; the text says why."""


class BalancerError(DynbalanceError):
    """
    A balancer hook asked for something that cannot be done; the text says why
    in nginx's words.
    """


class BadHook(DynbalanceError, ValueError):
    """The name of a balancer hook leads to nothing that can be called; the text says why."""


class LeaseError(DynbalanceError):
    """A lease was released twice: a mistake of ours, never of a peer's."""


class UnknownUpstream(DynbalanceError):
    """No upstream has that name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"Unknown upstream: {name}")
        self.name = name
