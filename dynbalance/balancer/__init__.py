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

A hook in the place of the policy, likewise:

  - L{hookload <dynbalance.balancer.hookload>}: from its name to the callable
  - L{hook <dynbalance.balancer.hook>}: what it may say in one attempt
  - L{peer <dynbalance.balancer.peer>}: addresses as it gives them
  - L{peers <dynbalance.balancer.peers>}: the servers at these addresses
  - L{hookrequest <dynbalance.balancer.hookrequest>}: the request as it sees it
  - L{hookoutcome <dynbalance.balancer.hookoutcome>}: what it decided
  - L{hookrun <dynbalance.balancer.hookrun>}: its calls for one request

Nothing here imports a transport, the store's implementations, a clock or a
source of chance: they come in.
"""
