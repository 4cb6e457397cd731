"""
What bytes travel on.

In reading order: L{dynbalance.net.hub} dispatches readiness,
L{dynbalance.net.transport} writes through, L{dynbalance.net.port} accepts,
L{dynbalance.net.dial} connects, L{dynbalance.net.deadlines} keeps time,
L{dynbalance.net.relay} moves bytes between two sockets, by the pipes of
L{dynbalance.net.pipes}; L{dynbalance.net.names} finds hosts, and
L{dynbalance.net.direct} stands in for the hub where there is no epoll.

What stands before a connection's own bytes: L{dynbalance.net.prefaced} takes
PROXY headers off, as L{dynbalance.net.proxyprotocol} reads them, and
L{dynbalance.net.hellopeek} looks at what L{dynbalance.net.clienthello} reads.

TLS: L{dynbalance.net.tls} says who we are and whom we believe, out of the
files that L{dynbalance.net.pemfiles} reads; L{dynbalance.net.tlstransport} is
a connection, L{dynbalance.net.stacked} what it leaves to the one beneath;
L{dynbalance.net.tlsport} accepts, L{dynbalance.net.tlsdial} connects.
"""
