"""
dynbalance: a load balancer for HTTP and raw TCP whose servers come and go at
run time.

The packages in the order of a connection's way: L{dynbalance.net} (what bytes
travel on), L{dynbalance.balancer} (who serves it), L{dynbalance.http} and
L{dynbalance.stream} (the two subsystems).  In the order of a fact's way:
L{dynbalance.store} (what is known, shared), L{dynbalance.health} (is it
alive), L{dynbalance.admin} (what people see and say).
"""

__version__ = "0.1.0"
