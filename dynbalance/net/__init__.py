"""
What bytes travel on.

In reading order: L{dynbalance.net.hub} dispatches readiness,
L{dynbalance.net.transport} writes through, L{dynbalance.net.port} accepts,
L{dynbalance.net.dial} connects, L{dynbalance.net.deadlines} keeps time,
L{dynbalance.net.relay} moves bytes between two sockets, by the pipes of
L{dynbalance.net.pipes}; L{dynbalance.net.names} finds hosts, and
L{dynbalance.net.direct} stands in for the hub where there is no epoll.
"""
