"""
Where a listener listens: an endpoint string of Twisted's, understood without
opening anything.

Knows what the string would bind and who could reach it; refuses to bind.
"""

from __future__ import annotations

import ipaddress
import re

from attrs import field, frozen
from twisted.internet.endpoints import serverFromString
from twisted.internet.protocol import Factory

_SYSTEMD = re.compile(r"systemd:domain=(?:INET6?|UNIX):(?:index=[0-9]{1,4}|name=[^:=]{1,255})\Z")

_ANY = frozenset(("", "0.0.0.0", "::"))


@frozen(slots=True)
class EndpointText:
    """
    What an endpoint string would bind.

    @ivar text: the string.
    @ivar kind: its first word, such as C{tcp}.
    @ivar port: 0 for any free one, or where there is none.
    @ivar interface: the address to bind to; empty for all of them.
    @ivar path: the file of a unix socket.
    """

    text: str
    kind: str
    port: int = 0
    interface: str = ""
    path: str = ""

    @property
    def is_local(self) -> bool:
        """
        Whether only this machine can reach it for certain.  A socket that
        systemd opens, or one of an endpoint we do not know, may be open to all.
        """
        if self.path:
            return True
        if self.interface == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.interface).is_loopback
        except ValueError:
            return False

    @property
    def names_one(self) -> bool:
        """Whether it is the same place each time."""
        return bool(self.port or self.path or self.kind == "systemd")

    def overlaps(self, other: EndpointText) -> bool:
        """Whether the two cannot both be opened."""
        if self.path or other.path:
            return self.path == other.path
        if self.port == 0 or other.port == 0:
            # Port 0 is another one each time; what has no port has its name.
            return self.kind not in ("tcp", "tcp6", "ssl") and self.text == other.text
        if self.port != other.port or self._is_v6 != other._is_v6:
            return False
        interfaces = {self.interface, other.interface}
        return len(interfaces) == 1 or bool(interfaces & _ANY)

    @property
    def _is_v6(self) -> bool:
        return ":" in self.interface

    @classmethod
    def parse(cls, text: str) -> EndpointText:
        """@raise ValueError: saying what is wrong."""
        kind, colon, _ = text.partition(":")
        if not colon:
            raise ValueError(f"{text!r} is not an endpoint such as tcp:8080")
        if kind == "systemd":
            # Twisted looks the socket up while it parses; a file must be
            # checkable where systemd is not.
            if not _SYSTEMD.match(text):
                raise ValueError(
                    f"{text!r} is not systemd:domain=INET:index=N or systemd:domain=INET:name=NAME"
                )
            return cls(text, kind)
        if kind == "stdio":
            raise ValueError("standard input and output cannot be listened on")
        binding = _would_bind(text, kind)
        if not 0 <= binding.port <= 65535:
            raise ValueError(f"{text!r}: port {binding.port} is not in 0-65535")
        if len(binding.path.encode()) > 107:
            raise ValueError(f"{text!r}: the path is longer than 107 bytes")
        if kind == "unix" and not binding.path.startswith("/"):
            raise ValueError(f"{text!r}: the path is not absolute")
        return cls(text, kind, binding.port, binding.interface, binding.path)


@frozen(slots=True)
class _Binding:
    port: int = 0
    interface: str = ""
    path: str = ""


@frozen(slots=True)
class _Recorder:
    """A reactor that only notes what it is told to listen on."""

    bindings: list[_Binding] = field(factory=list)

    def listenTCP(
        self, port: int, factory: object, backlog: int = 50, interface: str = ""
    ) -> None:
        self.bindings.append(_Binding(port, interface))

    def listenSSL(
        self, port: int, factory: object, context: object, backlog: int = 50, interface: str = ""
    ) -> None:
        self.bindings.append(_Binding(port, interface))

    def listenUNIX(self, address: str, factory: object, **options: object) -> None:
        self.bindings.append(_Binding(path=address))


def _would_bind(text: str, kind: str) -> _Binding:
    recorder = _Recorder()
    try:
        endpoint = serverFromString(recorder, text)
    except ValueError as error:
        raise ValueError(f"{text!r}: {_said(error, kind)}{_instead(text)}") from None
    except TypeError:
        # A foreign parser's signature speaks of its functions.
        raise ValueError(f"{text!r}: an argument is missing or not known to {kind}:") from None
    except Exception as error:
        # Endpoint plugins may fail in their own ways, such as an ssl: one
        # whose key cannot be read.
        raise ValueError(f"{text!r}: {error}") from error
    endpoint.listen(Factory()).addErrback(lambda failure: None)
    return recorder.bindings[0] if recorder.bindings else _Binding()


def _instead(text: str) -> str:
    """What to write for an address as nginx and HAProxy have it."""
    address = re.fullmatch(r"(\*|[0-9.]+|\[[0-9A-Fa-f:]+\]):([0-9]{1,5})", text)
    if address is None:
        return ""
    host, port = address.groups()
    if host in ("*", "0.0.0.0"):
        return f"; write 'tcp:{port}'"
    if not host.startswith("["):
        return f"; write 'tcp:{port}:interface={host}'"
    escaped = host[1:-1].replace(":", "\\:")
    return f"; write 'tcp6:{port}:interface={escaped}'"


def _said(error: ValueError, kind: str) -> str:
    said = str(error)
    if said.startswith("Unknown endpoint type"):
        return f"unknown kind of endpoint {kind!r}"
    number = re.match(r"invalid literal for int\(\) with base \d+: (.*)", said)
    return f"{number[1]} is not a number" if number else said
