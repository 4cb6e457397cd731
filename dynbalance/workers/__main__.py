"""
The process of one worker, which its parent starts: C{python -m dynbalance.workers}.
"""

import sys
from importlib import import_module

if __name__ == "__main__":
    # The name is for those who list processes.
    _, name, parent, reactor = sys.argv
    # The parent's; nearly any other import would bring the usual one.
    import_module(reactor).install()

    from dynbalance.tap import work

    work(int(parent))
