"""
What one choice and its release cost, by policy and number of servers.

Run as C{python bench/choose.py}; takes a few seconds.
"""

from __future__ import annotations

import gc
from random import Random
from time import perf_counter_ns

from dynbalance.balancer.upstream import FileServer, Upstream
from dynbalance.store.contract import ServerOrder

ROUNDS = 100_000
"""Choices in one measurement."""

HELD = 50
"""Connections that are open all the while: each choice releases the oldest."""

WORK = 20_000_000
"""Servers looked at in one measurement at most, for policies that look at all."""


def make(policy: str, size: int, weights: tuple[int, ...]) -> Upstream:
    """An upstream of C{size} servers whose weights repeat."""
    servers = [
        FileServer(
            order=ServerOrder(
                address=f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}:80",
                host=f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}",
                port=80,
                weight=weights[n % len(weights)],
            )
        )
        for n in range(size)
    ]
    return Upstream("bench", policy, servers, lambda: 0.0, Random(1).random)


def measure(upstream: Upstream, rounds: int, held: int) -> float:
    """Nanoseconds for one choice and one release; the best of three."""
    best = float("inf")
    for _ in range(3):
        leases = [upstream.choose() for _ in range(held + 1)]
        slot = 0
        gc.disable()
        start = perf_counter_ns()
        for _ in range(rounds):
            lease = leases[slot]
            assert lease is not None
            lease.release()
            leases[slot] = upstream.choose()
            slot = slot + 1 if slot < held else 0
        best = min(best, (perf_counter_ns() - start) / rounds)
        gc.enable()
        for lease in leases:
            assert lease is not None
            lease.release()
    return best


def main() -> None:
    """Print the table."""
    print(f"{'policy':<12} {'weights':<14} {'servers':>8} {'idle ns':>9} {f'{HELD} held ns':>12}")
    for policy, weights in (
        ("least_conn", (1,)),
        ("least_conn", (1, 2, 3)),
        ("least_conn", (1, 5, 20, 100)),
        ("round_robin", (1,)),
    ):
        for size in (10, 1_000, 10_000):
            rounds = ROUNDS if policy == "least_conn" else min(ROUNDS, WORK // size // 4)
            idle = measure(make(policy, size, weights), rounds, 0)
            busy = measure(make(policy, size, weights), rounds, HELD)
            shown = ",".join(map(str, weights))
            print(f"{policy:<12} {shown:<14} {size:>8,} {idle:>9.0f} {busy:>12.0f}")


if __name__ == "__main__":
    main()
