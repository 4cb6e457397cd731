"""
Who serves a connection: pure code, shared by both subsystems.

In reading order:

  - L{address <dynbalance.balancer.address>}: where a server listens
  - L{server <dynbalance.balancer.server>}: one server and its counts
  - L{lease <dynbalance.balancer.lease>}: one connection's slot on a server
  - L{roll <dynbalance.balancer.roll>}: which servers there are
  - L{counts <dynbalance.balancer.counts>}: their connections over all nodes
  - L{policies <dynbalance.balancer.policies>}: which of the usable servers
  - L{judgement <dynbalance.balancer.judgement>}: what failures say of a server
  - L{slowstart <dynbalance.balancer.slowstart>}: new servers begin gently
  - L{waiting <dynbalance.balancer.waiting>}: who waits while all are full
  - L{lastgood <dynbalance.balancer.lastgood>}: whom to use when nobody is good
  - L{budget <dynbalance.balancer.budget>}: how many retries all can bear
  - L{upstream <dynbalance.balancer.upstream>}: all of these together
  - L{attempts <dynbalance.balancer.attempts>}: whether to try another one
  - L{balancer <dynbalance.balancer.balancer>}: all upstreams by name

Nothing here imports a transport, the store's implementations, a clock or a
source of chance: they come in.
"""
