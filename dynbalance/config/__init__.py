"""
The configuration: one frozen class for each table of the file, the one home
of options' names, defaults, units and ranges.

Knows each option by itself; refuses to know TOML, the command line, what one
table says of another (L{dynbalance.configfile}), and what an option does.
Times are seconds and sizes bytes unless said otherwise; where 0 is allowed it
means "no limit" or "off" unless said otherwise.  C{etc/dynbalance.toml}
explains every option to its user.
"""

from dynbalance.config.admin import (
    AdminConfig,
    AdminTlsConfig,
    JwtConfig,
    RateLimitConfig,
    TokenConfig,
    UserConfig,
)
from dynbalance.config.listeners import (
    DEFAULT_UPSTREAM,
    CertificateConfig,
    HttpConfig,
    HttpTlsConfig,
    ListenerTlsConfig,
    Network,
    RouteConfig,
    StreamConfig,
)
from dynbalance.config.ranges import OptionError
from dynbalance.config.resolver import ResolverConfig
from dynbalance.config.root import DEFAULT_STATE_DIR, Config, UpstreamName
from dynbalance.config.store import HeartbeatConfig, StoreConfig
from dynbalance.config.storeurl import StoreKind, StoreUrl
from dynbalance.config.tracing import TracingConfig
from dynbalance.config.upstream import (
    HealthCheckConfig,
    ServerConfig,
    ServerTlsConfig,
    StickyConfig,
    UpstreamConfig,
)

__all__ = [
    "DEFAULT_STATE_DIR",
    "DEFAULT_UPSTREAM",
    "AdminConfig",
    "AdminTlsConfig",
    "CertificateConfig",
    "Config",
    "HealthCheckConfig",
    "HeartbeatConfig",
    "HttpConfig",
    "HttpTlsConfig",
    "JwtConfig",
    "ListenerTlsConfig",
    "Network",
    "OptionError",
    "RateLimitConfig",
    "ResolverConfig",
    "RouteConfig",
    "ServerConfig",
    "ServerTlsConfig",
    "StickyConfig",
    "StoreConfig",
    "StoreKind",
    "StoreUrl",
    "StreamConfig",
    "TokenConfig",
    "TracingConfig",
    "UpstreamConfig",
    "UpstreamName",
    "UserConfig",
]
