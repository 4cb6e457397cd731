"""
Who serves a connection: pure code, shared by both subsystems.

In reading order:

  - L{address <dynbalance.balancer.address>}: where a server listens
  - L{server <dynbalance.balancer.server>}: one server and its counts
  - L{lease <dynbalance.balancer.lease>}: one connection's slot on a server
  - L{policies <dynbalance.balancer.policies>}: which of the usable servers
  - L{judgement <dynbalance.balancer.judgement>}: what failures say of a server
  - L{upstream <dynbalance.balancer.upstream>}: which servers are usable
  - L{attempts <dynbalance.balancer.attempts>}: whether to try another one
  - L{balancer <dynbalance.balancer.balancer>}: all upstreams by name

Nothing here imports a transport, the store's implementations, a clock or a
source of chance: they come in.
"""
