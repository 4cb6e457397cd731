"""
Is it alive: L{dynbalance.health.heartbeat} takes out the servers whose
heartbeats stopped.
"""
