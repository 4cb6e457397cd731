"""C{python -m dynbalance.ctl}: the same as C{dynbalancectl}."""

from dynbalance.ctl.program import main

main()
