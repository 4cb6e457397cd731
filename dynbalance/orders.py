"""
What the upstreams are made from, out of the configuration.

Pure: knows tables and orders; refuses to know what runs.
"""

from __future__ import annotations

from dynbalance.balancer.options import UpstreamOptions, UpstreamOrder
from dynbalance.balancer.roll import FileServer
from dynbalance.config import Config, UpstreamConfig
from dynbalance.config.endpointtext import EndpointText
from dynbalance.store.contract import ServerOrder


def orders_of(config: Config) -> list[UpstreamOrder]:
    """Those of all upstreams."""
    return [_order(name, table) for name, table in config.upstreams.items()]


def endpoints_of(config: Config) -> list[str]:
    """Where it listens, but for ports that are another one each time."""
    every = [each.listen for each in config.http]
    every += [each.listen for each in config.stream]
    return [text for text in (*every, config.admin.listen) if EndpointText.parse(text).names_one]


def checked_in(config: Config) -> list[str]:
    """The upstreams that have health checks."""
    return [name for name, table in config.upstreams.items() if table.health_check is not None]


def _order(name: str, table: UpstreamConfig) -> UpstreamOrder:
    return UpstreamOrder(
        name=name,
        policy=table.policy,
        servers=tuple(
            FileServer(
                order=ServerOrder(
                    address=str(server.address),
                    host=server.address.host,
                    port=server.address.port,
                    weight=server.weight,
                    max_conns=server.max_conns,
                    heartbeat=False,
                    backup=server.backup,
                    max_fails=server.max_fails,
                    fail_timeout=server.fail_timeout,
                ),
                down=server.down,
            )
            for server in table.servers
        ),
        options=UpstreamOptions(
            hash_consistent=table.hash_consistent,
            slow_start=table.slow_start,
            queue=table.queue,
            retry_budget=table.retry_budget,
            last_good=table.panic == "last_good",
            strict=table.counting == "strict",
        ),
    )
