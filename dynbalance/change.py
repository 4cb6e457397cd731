"""
From one configuration to another: what of that a running node can follow.

Pure: knows both; refuses to know what runs.
"""

from __future__ import annotations

import attrs

from dynbalance.config import Config, StoreConfig

_LASTING = ("workers", "node", "state_dir", "demo", "tracing")
"""What a node is built on."""


def needing_restart(before: Config, after: Config) -> list[str]:
    """
    What cannot change while a node runs.

    @return: a line for each such option, beginning with its path.
    """
    paths = [name for name in _LASTING if getattr(before, name) != getattr(after, name)]
    paths += [
        f"store.{field.name}"
        for field in attrs.fields(StoreConfig)
        if getattr(before.store, field.name) != getattr(after.store, field.name)
    ]
    paths += [
        f"upstreams.{name}.counting"
        for name, table in after.upstreams.items()
        if name in before.upstreams and table.counting != before.upstreams[name].counting
    ]
    if before.demo and before.admin.listen != after.admin.listen:
        # Its servers call there.
        paths.append("admin.listen")
    if before.demo and after.admin.tls is not None:
        paths.append("admin.tls")
    return [f"{path}: needs a restart to change" for path in paths]

