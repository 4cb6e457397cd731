"""
C{[tracing]}: spans of requests for OpenTelemetry.
"""

from __future__ import annotations

from attrs import field, frozen

from dynbalance.config.ranges import within


@frozen(slots=True, kw_only=True)
class TracingConfig:
    """
    Where they are sent to is said by OpenTelemetry's own variables of the environment.

    @ivar enabled: whether C{traceparent} is read, made and continued; else it
        is passed on as any other field.
    @ivar sample: the share of requests that are recorded, of those that come
        without a C{traceparent}; with one, that says it.
    """

    enabled: bool = False
    sample: float = field(default=1.0, validator=within(0.0, 1.0))
