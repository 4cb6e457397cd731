"""
Is it alive: L{dynbalance.health.heartbeat} takes out the servers whose
heartbeats stopped; L{dynbalance.health.watch} asks the servers themselves.
"""
