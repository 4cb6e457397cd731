"""
The http subsystem: an HTTP/1.1 reverse proxy.

In the order of a request's way: L{dynbalance.http.listener} opens the door,
L{dynbalance.http.channel} reads what a client sends
(L{dynbalance.http.request}, L{dynbalance.http.chunked}),
L{dynbalance.http.routes} names the upstream, L{dynbalance.http.exchange}
decides, L{dynbalance.http.servers} reaches the server,
L{dynbalance.http.response} reads its answer.  L{dynbalance.http.answers} are
our own; L{dynbalance.http.resource} is another door to the same exchange.
"""
