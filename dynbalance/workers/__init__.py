"""
Several processes that share the listeners, each a node of its own.

On the parent's side:

    crew        all workers: started, watched, asked and ended together
    worker      one place among them: a process and its successors
    process     how such a process is started, and what it is born with
    sockets     the listening sockets that they accept from
    sums        their metrics, added up

on the worker's side:

    child       hears what it is told
    telling     what it tells of many servers

and between the two:

    orders      what a worker is told to be
    wire        questions and answers over a socket
    lives       how its servers are
    lines       what it logs
"""
