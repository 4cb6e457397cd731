"""
What stands between a port and the factory that serves its connections, so that
another factory can take its place while the port stays open.

Knows factories; refuses to know what they serve, and why one takes the place of
another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.protocol import Factory, ServerFactory

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IProtocolFactory


class Door(ServerFactory):
    """
    @ivar behind: who serves the connections that come from now on.
    """

    noisy = False

    def __init__(self) -> None:
        nobody = Factory()
        nobody.noisy = False
        self.behind: IProtocolFactory = nobody

    def __repr__(self) -> str:
        return f"<Door to {self.behind!r}>"

    def lead_to(self, factory: IProtocolFactory) -> None:
        """Let C{factory} serve what comes; what came goes on with the one before."""
        before, self.behind = self.behind, factory
        if self.numPorts and factory is not before:
            factory.doStart()
            before.doStop()

    @property
    def accept_socket(self) -> Callable[[Any, Any, Any], None]:
        """@raise AttributeError: the factory behind wants protocols."""
        taken: Callable[[Any, Any, Any], None]
        taken = self.behind.accept_socket  # type: ignore[attr-defined]
        return taken

    def buildProtocol(self, addr: Any) -> Any:
        return self.behind.buildProtocol(addr)

    def startFactory(self) -> None:
        self.behind.doStart()

    def stopFactory(self) -> None:
        self.behind.doStop()
