"""
What bytes travel on.

In reading order: L{dynbalance.net.hub} dispatches readiness,
L{dynbalance.net.transport} writes through, L{dynbalance.net.port} accepts,
L{dynbalance.net.dial} connects, L{dynbalance.net.deadlines} keeps time,
L{dynbalance.net.relay} moves bytes between two sockets.
"""
