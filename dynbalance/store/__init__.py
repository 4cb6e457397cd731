"""
What is known, shared by all nodes: servers, heartbeats, connection counts.

    contract    the values and calls that every store promises, with reports and changes
    membership  a node's memory kept in agreement with a store, with contact, view
    choice      from the store's URL to one of these:
    memory      one process, nothing kept          with roster, shelf, ledger, journal
    redis       Redis or Valkey over the network   with calls, codec, serverjson, keys, scripts,
                                                   link, endpoints, seeking
    embedded    a Valkey or Redis of our own       with program, child, leash; and both with *.lua
"""
