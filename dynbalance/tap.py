"""
What C{twistd} is told: the command line's options.
"""

from dynbalance.options import Options

__all__ = ["Options"]
