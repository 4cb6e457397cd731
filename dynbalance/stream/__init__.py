"""
The stream subsystem: raw TCP, one server for each connection.

In reading order: L{dynbalance.stream.listener} accepts,
L{dynbalance.stream.session} finds a server, and L{dynbalance.net.relay} moves
the bytes; L{dynbalance.stream.proxy} moves them where sockets are not bare.
"""
