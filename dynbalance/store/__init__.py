"""
What is known, shared by all nodes: servers, heartbeats, connection counts.

    contract    the values and calls that every store promises
    memory      one process, nothing kept          ledger  its counting
    redis       Redis or Valkey over the network   keys, scripts, codec, *.lua
    embedded    a Valkey or Redis child of ours    leash   what ties it to us
"""
