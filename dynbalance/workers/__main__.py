"""
The process of one worker, which its parent starts: C{python -m dynbalance.workers}.
"""

import signal
import sys
from importlib import import_module

if __name__ == "__main__":
    # The terminal, and whoever signals all processes at once, mean the parent.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)

    # The name is for those who list processes.
    _, name, parent, reactor = sys.argv
    # The parent's; nearly any other import would bring the usual one.
    import_module(reactor).install()

    from dynbalance.tap import work

    work(int(parent))
