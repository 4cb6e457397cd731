"""
C{dynbalancectl}: what an operator says to a running daemon, over its admin API.

Knows the API as its clients do; imports nothing of the daemon but the syntax
of addresses, the configuration's loader and the hashes.
"""
