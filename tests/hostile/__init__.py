"""
Messages that want to be read in two ways: what becomes of each stands beside
it, with the reason, in C{*.toml}.
"""
