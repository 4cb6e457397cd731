"""
The store in a Valkey or Redis server of our own.

Knows the server's directory, options and life; refuses to know the calls, which
L{RedisStore <dynbalance.store.redis.RedisStore>} makes.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from twisted.internet.task import deferLater
from zope.interface import implementer

from dynbalance.errors import StoreUnusable
from dynbalance.log import Logger
from dynbalance.slices import Slices
from dynbalance.store import leash
from dynbalance.store.calls import Calls
from dynbalance.store.child import Child
from dynbalance.store.codec import Reply
from dynbalance.store.endpoints import CONNECT_TIMEOUT
from dynbalance.store.program import find_program
from dynbalance.store.redis import RedisStore

START = 10.0
"""Seconds that a start waits for the server to have loaded its data."""

TAKING = 10.0
"""Seconds that a process which has failed may keep what was given to it."""

AGAIN = 0.1
"""Seconds between two attempts to have it back."""

SOCKET_PATH = 107
"""Bytes of a unix socket's path at most."""

_T = TypeVar("_T")


class Place:
    """
    The directory that one daemon's server works in.

    @ivar socket: the path of the server's socket.
    """

    def __init__(self, state_dir: str) -> None:
        self.directory = os.path.join(os.path.abspath(state_dir), "store")
        self.socket = self.inside("server.sock")
        self._elsewhere: str | None = None
        self._lock: int | None = None

    def inside(self, name: str) -> str:
        """The path of a file in the directory."""
        return os.path.join(self.directory, name)

    def claim(self) -> None:
        """
        Make the directory and take it for this process.

        @raise StoreUnusable: when it cannot be had.
        """
        if self._lock is not None:
            return
        try:
            os.makedirs(self.directory, mode=0o700, exist_ok=True)
            os.chmod(self.directory, 0o700)
            lock = os.open(self.inside("daemon.lock"), os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise StoreUnusable(f"the embedded store's directory: {error}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(lock, 20).decode("ascii", "replace").strip()
            os.close(lock)
            raise StoreUnusable(
                f"{self.directory} is used by another dynbalance, process {owner}:"
                " give each its own state directory, or both one Redis"
            ) from None
        self._lock = lock
        self.sign()
        if len(os.fsencode(self.socket)) > SOCKET_PATH:
            self._elsewhere = tempfile.mkdtemp(prefix="dynbalance-")
            self.socket = os.path.join(self._elsewhere, "server.sock")

    def sign(self) -> None:
        """Write down whose it is; a daemon has another process id than its start had."""
        if self._lock is not None:
            os.ftruncate(self._lock, 0)
            os.pwrite(self._lock, b"%d\n" % os.getpid(), 0)

    def release(self) -> None:
        """Give it to whoever comes next."""
        if self._elsewhere is not None:
            shutil.rmtree(self._elsewhere, ignore_errors=True)
            self._elsewhere = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


@implementer(IStreamClientEndpoint)
class _Socket:
    """The server's socket, whose path is known once the place is claimed."""

    def __init__(self, reactor: Any, place: Place) -> None:
        self._reactor = reactor
        self._place = place

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        endpoint = UNIXClientEndpoint(self._reactor, self._place.socket, timeout=CONNECT_TIMEOUT)
        connected: Deferred[Any] = endpoint.connect(protocolFactory)
        return connected


class EmbeddedStore(Calls):
    """
    A L{Store <dynbalance.store.contract.Store>} that brings its own server.
    """

    _log = Logger()

    def __init__(
        self,
        state_dir: str,
        reactor: Any,
        *,
        prefix: str = "upstream",
        timeout: float = 1.0,
        program: str | None = None,
    ) -> None:
        """
        @param state_dir: C{store} in it becomes the server's directory.
        @param reactor: for time, processes and unix sockets.
        @param program: the server's path; found if C{None}.
        """
        super().__init__(prefix, Slices(reactor))
        self._reactor = reactor
        self._program = program
        self._place = Place(state_dir)
        self._redis = RedisStore(
            _Socket(reactor, self._place), reactor, prefix=prefix, timeout=timeout
        )
        self._child: Child | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"<EmbeddedStore {self._place.directory} {self._child}>"

    @property
    def pid(self) -> int | None:
        """The server's process id while it runs."""
        return None if self._child is None else self._child.pid

    @property
    def available(self) -> bool:
        return self._redis.available

    @property
    def socket(self) -> str:
        """The path of the server's socket, once the directory is taken."""
        return self._place.socket

    def claim(self) -> None:
        """
        Find the program and take the directory, before anything is started;
        C{open} does it otherwise.

        @raise StoreUnusable: when one of them cannot be had.
        """
        self._claimed()

    def _claimed(self) -> str:
        program = self._program or find_program()
        self._place.claim()
        return program

    def open(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._open())

    async def _open(self) -> None:
        self._serve()
        await self._redis.open()
        reached = self._redis.when_reached().addTimeout(START, self._reactor)
        try:
            await reached
        except defer.TimeoutError:
            self._log.error(
                "The embedded store is not ready after {seconds} s; its log is {log}",
                seconds=START,
                log=self._log_path,
            )

    @property
    def _log_path(self) -> str:
        return self._place.inside("server.log")

    def _serve(self) -> None:
        program = self._claimed()
        self._place.sign()
        self._child = Child(self._reactor, program, self._command(program), self._log_path)
        self._child.start()

    def let_go(self) -> Deferred[None]:
        """
        End the server, so that another process can have one with the same
        data.  That one is then reached in its stead.
        """
        return Deferred.fromCoroutine(self._let_go())

    async def _let_go(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            await child.stop()
        self._place.release()

    def take_back(self) -> Deferred[None]:
        """
        Have a server again.  A process that was killed may keep the directory a
        little longer than anything that tells its end.

        @return: fails with L{StoreUnusable} when the directory is another's for
            more than L{TAKING} seconds.
        """
        return Deferred.fromCoroutine(self._take_back())

    async def _take_back(self) -> None:
        end = self._reactor.seconds() + TAKING
        while not self._closed:
            try:
                self._serve()
            except StoreUnusable:
                if self._reactor.seconds() >= end:
                    raise
            else:
                return
            await deferLater(self._reactor, AGAIN)

    def close(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._close())

    async def _close(self) -> None:
        self._closed = True
        await self._redis.close()
        if self._child is not None:
            # Asked by TERM, the server does what SHUTDOWN does.
            await self._child.stop()
        self._place.release()

    def _command(self, program: str) -> list[str]:
        # -I and -S: nothing of the daemon's environment or site is needed.
        leashed = [sys.executable, "-I", "-S", leash.__file__]
        leashed += [str(os.getpid()), self._place.inside("data.lock"), program]
        # No file name first: the server reads no configuration but this.
        return [
            *leashed,
            *("--port", "0"),
            *("--unixsocket", self._place.socket),
            *("--unixsocketperm", "700"),
            *("--dir", self._place.directory),
            *("--appendonly", "yes"),
            *("--appendfsync", "everysec"),
            *("--save", ""),
            *("--maxmemory-policy", "noeviction"),
            *("--daemonize", "no"),
        ]

    def call(
        self, name: str, keys: Sequence[str], args: Sequence[str], read: Callable[[Reply], _T]
    ) -> Deferred[_T]:
        return self._redis.call(name, keys, args, read)
