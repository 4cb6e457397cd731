"""
What dynbalance costs beside nginx and HAProxy, measured in one run.

C{python -m bench.side_by_side} from the checkout starts a backend (nginx, and a
Redis for the stream cases) and the three balancers in front of it, each pinned
to one core, drives them in turn with C{wrk} and C{redis-benchmark} from the
other core, and prints one table: CPU time for each request as the operating
system counted it, and its ratio to nginx's.  Nothing leaves 127.0.0.1.
"""
