"""
How a daemon gives its listening sockets to the one that takes its place.

The two talk over a unix socket in the state directory, by lines of JSON; the
sockets go with the answer to the first (C{SCM_RIGHTS}).  Both accept from the
same sockets for a while, so nobody who connects is refused, and nobody waits in
a queue that is closed.  Until the successor says that it serves, its end or its
silence changes nothing: the daemon goes on.

    successor                           daemon
    hello, with the endpoints wanted    the endpoints, and their sockets
    take                                given: it has let go what only one may have
    serving                             (closes its copies, finishes, ends)

Knows what is said; refuses to know what either does.  A first line of another
C{version} is refused with words, so that two releases can meet.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import chain
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, connectionDone
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure

from dynbalance import __version__
from dynbalance.errors import ConfigError, DynbalanceError
from dynbalance.log import Logger
from dynbalance.workers.sockets import Inherited

VERSION = 2
PATIENCE = 5.0
"""Seconds that the other side may take for an answer before the sockets are given."""

GIVING = 30.0
"""Seconds that the daemon may take to let go."""

MOST = 200
"""Sockets that go with one piece of a message; the kernel takes 253."""

_LONGEST = 1 << 16


def socket_path(state_dir: str) -> str:
    """Where a daemon listens for its successor."""
    return os.path.join(state_dir, "handover.sock")


class NotGiven(DynbalanceError):
    """The daemon has not let go; the text says why."""


class Predecessor(LineOnlyReceiver):
    """
    The daemon whose place is taken, as the successor sees it.

    @ivar pid: its process id.
    @ivar sockets: what it has given, by the endpoints: one each, or those of a
        crew.
    """

    delimiter = b"\n"
    transport: Any

    def __init__(
        self, connection: socket.socket, pid: int, sockets: dict[str, tuple[Inherited, ...]]
    ) -> None:
        self.pid = pid
        self.sockets = sockets
        self._connection: socket.socket | None = connection
        self._given: Deferred[None] = Deferred()

    def __repr__(self) -> str:
        return f"<Predecessor {self.pid} {', '.join(self.sockets)}>"

    @classmethod
    def found(cls, state_dir: str, wanted: list[str], node: str) -> Predecessor | None:
        """
        Ask, before the reactor runs, who serves the endpoints now.

        @param wanted: the endpoints.
        @param node: the name in the store that was configured; may be empty.
        @return: C{None} when nobody does who could give them.
        @raise ConfigError: who does will not.
        """
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(PATIENCE)
        try:
            connection.connect(socket_path(state_dir))
        except OSError:
            # Nobody, or the socket of one who died.
            connection.close()
            return None
        hello = {"version": VERSION, "release": __version__, "pid": os.getpid()}
        fds: list[int] = []
        try:
            connection.sendall(_line({**hello, "listen": wanted, "node": node}))
            answer = _read(connection, fds)
            if "refused" in answer:
                raise ConfigError([f"take-over of {answer.get('pid')}: {answer['refused']}"])
            given = [(str(text), int(family)) for text, family in answer["given"]]
            pid = int(answer["pid"])
            if len(given) != len(fds):
                raise ValueError(f"{len(fds)} sockets for {len(given)} endpoints")
        except (OSError, ValueError, KeyError, TypeError) as failed:
            _close(connection, fds)
            raise ConfigError([f"take-over by {socket_path(state_dir)}: {failed}"]) from None
        except ConfigError:
            _close(connection, fds)
            raise
        if not fds:
            connection.close()
            return None
        sockets: dict[str, tuple[Inherited, ...]] = {}
        for (text, family), fd in zip(given, fds, strict=True):
            sockets[text] = (*sockets.get(text, ()), Inherited(fd, family, False))
        return cls(connection, pid, sockets)

    def take(self, reactor: Any) -> Deferred[None]:
        """
        Have it let go.

        @return: fires when it has; fails with L{NotGiven}.
        """
        assert self._connection is not None
        factory = Factory.forProtocol(lambda: self)
        factory.noisy = False
        reactor.adoptStreamConnection(self._connection.fileno(), socket.AF_UNIX, factory)
        self.abandon()
        self.sendLine(b"take")
        return self._given.addTimeout(GIVING, reactor)

    def serving(self) -> None:
        """It can finish."""
        self.sendLine(b"serving")
        self.transport.loseConnection()

    def abandon(self) -> None:
        """Let go what was given, and not taken."""
        for each in chain.from_iterable(self.sockets.values()):
            with suppress(OSError):
                os.close(each.fd)
        self.sockets = {}
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def lineReceived(self, line: bytes) -> None:
        if not self._given.called:
            if line == b"given":
                self._given.callback(None)
            else:
                self._given.errback(NotGiven(line.decode(errors="replace")))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self._given.called:
            self._given.errback(NotGiven(f"process {self.pid} has gone"))


class Giver(Protocol):
    """Who gives."""

    def refusal(self) -> str:
        """Why nothing can be given now; empty if it can."""

    def lendable(self) -> Mapping[str, Sequence[socket.socket]]:
        """The listening sockets by their endpoints."""

    async def let_go(self, node: str) -> None:
        """
        Let go what only one may have.

        @param node: the successor's name in the store; may be empty.
        """

    async def take_back(self) -> None:
        """The successor failed."""

    def retire(self, pid: int) -> None:
        """The successor serves."""


class Successor(LineOnlyReceiver):
    """Who wants to take the daemon's place, as the daemon sees it."""

    _log = Logger()
    delimiter = b"\n"
    MAX_LENGTH = _LONGEST
    factory: Offer
    transport: Any

    def __init__(self) -> None:
        self._pid = 0
        self._node = ""
        self._letting: Deferred[None] | None = None
        self._serves = False

    def lineReceived(self, line: bytes) -> None:
        giver = self.factory.giver
        if line == b"take" and self._pid and self._letting is None:
            self._letting = Deferred.fromCoroutine(giver.let_go(self._node))
            self._letting.addCallbacks(lambda _: self.sendLine(b"given"), self._failed)
        elif line == b"serving" and self._letting is not None:
            self._serves = True
            giver.retire(self._pid)
        elif not self._pid:
            self._hello(line)
        else:
            self.transport.loseConnection()

    def _hello(self, line: bytes) -> None:
        refusal = self.factory.refusal(self)
        try:
            said = json.loads(line)
            version, pid, wanted = said["version"], int(said["pid"]), list(said["listen"])
            self._node = str(said["node"])
            if version != VERSION:
                refusal = f"it hands over by version {VERSION}, not {version}"
        except (ValueError, KeyError, TypeError):
            refusal = "that was no hello"
            pid, wanted = 0, []
        if refusal:
            self.sendLine(json.dumps({"pid": os.getpid(), "refused": refusal}).encode())
            self.transport.loseConnection()
            return
        lendable = self.factory.giver.lendable()
        given = [(text, each) for text in dict.fromkeys(wanted) for each in lendable.get(text, ())]
        self._pid = pid
        self.factory.under_way = self
        answer = {
            "version": VERSION,
            "release": __version__,
            "pid": os.getpid(),
            "given": [[text, int(each.family)] for text, each in given],
        }
        _send(self.transport.socket, answer, [each.fileno() for _, each in given])

    def _failed(self, failure: Failure) -> None:
        self._log.failure("The hand-over failed", failure)
        self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.factory.under_way is self:
            self.factory.under_way = None
        if self._letting is not None and not self._serves:
            self._log.warn("Process {pid} has not taken over; this one goes on", pid=self._pid)
            giver = self.factory.giver
            self._letting.addCallback(lambda _: Deferred.fromCoroutine(giver.take_back()))
            self._letting.addErrback(self._failed)


class Offer(Factory):
    """
    A daemon's offer to its successor.

    @ivar under_way: the one that was given the sockets and has not said more.
    """

    noisy = False
    _log = Logger()

    def __init__(self, giver: Giver) -> None:
        self.giver = giver
        self.under_way: Successor | None = None
        self._port: Any = None
        self._path = ""
        self._inode = 0
        self._made = False

    def __repr__(self) -> str:
        return f"<Offer {self._path}>"

    def buildProtocol(self, addr: object) -> Any:
        successor = Successor()
        successor.factory = self
        return successor

    def refusal(self, of: Successor) -> str:
        """Why a successor gets nothing; empty if it does."""
        if self.under_way is not None and self.under_way is not of:
            return "another process is about to take over"
        return self.giver.refusal()

    def listen(self, reactor: Any, state_dir: str, replaces: bool) -> None:
        """
        Be there for a successor; without that the daemon serves all the same.

        @param replaces: whether whoever is there now has had its place taken.
        """
        self._path = socket_path(state_dir)
        if not replaces and _is_alive(self._path):
            self._log.warn(
                "No other process can take over: {path} is another daemon's", path=self._path
            )
            return
        try:
            self._made = not os.path.isdir(state_dir)
            os.makedirs(state_dir, mode=0o700, exist_ok=True)
            # Of the predecessor, or of one who died.
            with suppress(FileNotFoundError):
                os.unlink(self._path)
            self._port = reactor.listenUNIX(self._path, self, mode=0o600)
            self._inode = os.stat(self._path).st_ino
        except Exception as failed:  # noqa: BLE001 - Twisted has errors of its own here
            self._log.warn("No other process can take over: {failed}", failed=str(failed))
            return
        # Whoever has the path at the end may be the successor.
        self._port._bindPath = "\0handover"

    def come_back(self, reactor: Any) -> None:
        """Be there again where it was, whoever was there meanwhile."""
        if self._path:
            self.close()
            self.listen(reactor, os.path.dirname(self._path), replaces=False)

    def close(self) -> None:
        """Be there no more."""
        if self._port is None:
            return
        with suppress(OSError):
            if os.stat(self._path).st_ino == self._inode:
                os.unlink(self._path)
                if self._made:
                    # Nothing is to be left of a daemon that keeps nothing.
                    os.rmdir(os.path.dirname(self._path))
        self._port.stopListening()
        self._port = None


def _is_alive(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(path)
        except OSError:
            return False
    return True


def _line(message: dict[str, Any]) -> bytes:
    return json.dumps(message).encode() + b"\n"


def _send(connection: socket.socket, message: dict[str, Any], fds: list[int]) -> None:
    """
    Not by the transport, which has nothing queued: with descriptors.

    @param connection: empty, so that it takes all of it at once.
    """
    while len(fds) > MOST:
        # White space before the message says nothing.
        socket.send_fds(connection, [b" "], fds[:MOST])
        fds = fds[MOST:]
    socket.send_fds(connection, [_line(message)], fds)


def _read(connection: socket.socket, fds: list[int]) -> dict[str, Any]:
    """
    @param fds: is given the descriptors that come with it.
    """
    line = b""
    while not line.endswith(b"\n"):
        data, more, _, _ = socket.recv_fds(connection, _LONGEST, MOST)
        fds += more
        if not data:
            raise OSError("no answer")
        line += data
    message = json.loads(line)
    if not isinstance(message, dict):
        raise ValueError("that was no answer")
    return message


def _close(connection: socket.socket, fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)
    connection.close()
