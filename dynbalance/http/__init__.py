"""
The http subsystem: an HTTP/1.1 reverse proxy.

In the order of a request's way: L{dynbalance.http.listener} opens the door,
L{dynbalance.http.channel} reads what a client sends
(L{dynbalance.http.request}, L{dynbalance.http.bodyreader}),
L{dynbalance.http.routes} names the upstream, L{dynbalance.http.exchange}
decides, L{dynbalance.http.upstream} has the kept connections,
L{dynbalance.http.connection} speaks to the server
(L{dynbalance.http.requestbody}, L{dynbalance.http.response}),
L{dynbalance.http.writer} answers the client.  L{dynbalance.http.answers} are
our own; L{dynbalance.http.resource} is another door to the same exchange.
"""
