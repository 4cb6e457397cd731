"""
Where a Redis listens, as Twisted endpoints.

Knows TCP, TLS and unix sockets; refuses to know URLs and what is said there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint, wrapClientTLS
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.ssl import (
    Certificate,
    optionsForClientTLS,
    platformTrust,
    trustRootFromCertificates,
)

CONNECT_TIMEOUT = 2.0
"""Seconds for reaching a server, of which there may be another one soon."""


def tcp_endpoint(reactor: Any, host: str, port: int) -> IStreamClientEndpoint:
    """A Redis at a host name or IP address."""
    endpoint: IStreamClientEndpoint = HostnameEndpoint(reactor, host, port, timeout=CONNECT_TIMEOUT)
    return endpoint


def tls_endpoint(
    reactor: Any, host: str, port: int, authorities: Sequence[Certificate] = ()
) -> IStreamClientEndpoint:
    """
    A Redis behind TLS, whose certificate must be for C{host}.

    @param authorities: who may have signed it; those of the system if empty.
    """
    trust = trustRootFromCertificates(authorities) if authorities else platformTrust()
    options = optionsForClientTLS(host, trustRoot=trust)
    endpoint: IStreamClientEndpoint = wrapClientTLS(options, tcp_endpoint(reactor, host, port))
    return endpoint


def unix_endpoint(reactor: Any, path: str) -> IStreamClientEndpoint:
    """A Redis at a unix socket."""
    endpoint: IStreamClientEndpoint = UNIXClientEndpoint(reactor, path, timeout=CONNECT_TIMEOUT)
    return endpoint
