"""
A process with one TCP listener, for the tests that need a real one.

Run as C{python -m tests.stream.program PORT...}, the ports of its servers; the
first line it prints is the port that it listens on.
"""

import sys
from random import random

from twisted.internet import reactor

from dynbalance.balancer.balancer import Balancer, UpstreamOrder
from dynbalance.net.deadlines import Deadlines
from dynbalance.net.direct import carrier
from dynbalance.net.names import Names
from dynbalance.net.pipes import Pipes
from dynbalance.stream.listener import StreamListener
from dynbalance.stream.options import StreamOptions
from tests.stream.building import servers


def main(*ports: str) -> None:
    addresses = [f"127.0.0.1:{port}" for port in ports]
    balancer = Balancer(
        [UpstreamOrder(name="u", servers=servers(*addresses))], reactor.seconds, random
    )
    hub = carrier(reactor)
    listener = StreamListener(
        StreamOptions(),
        balancer.upstream("u"),
        hub,
        Deadlines(reactor),
        Names(reactor, reactor),
        Pipes(),
    )
    port = hub.listenTCP(0, listener, interface="127.0.0.1")
    sys.stdout.write(f"{port.getHost().port}\n")
    sys.stdout.flush()
    reactor.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
