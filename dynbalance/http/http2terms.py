"""
What clients of HTTP/2 are granted, and how hyper-h2 is told so.

Knows how a connection begins; refuses to know what is asked for on it.
"""

from __future__ import annotations

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.settings import SettingCodes, Settings

from dynbalance.http.fields import MAX_FIELDS
from dynbalance.http.http2frames import PREFACE

STREAMS = 128
"""Requests at a time of one client; nginx's default."""

WINDOW = 131072
"""Bytes of a request's body that may be on their way to us or wait for its server."""

_FAR_TOO_MANY = 2**20
"""hyper-h2 ends the connection for one stream too many; we refuse the stream."""

_FIRST_WINDOW = 65535
"""RFC 9113 section 6.9.2: of a connection before anything is said about it."""


def begun(max_header_size: int) -> H2Connection:
    """
    A connection that has its terms ready to be sent, and wants the client's
    frames without what comes before them.
    """
    connection = H2Connection(
        H2Configuration(
            client_side=False,
            header_encoding=None,
            # What we send was checked as HTTP/1.1.
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
    )
    connection.local_settings = _settings(STREAMS, max_header_size)
    # Room enough to answer 431 to who asks for a little too much; who asks for
    # far more has to be told by an end of the connection.
    connection.decoder.max_header_list_size = 2 * max_header_size + 32 * MAX_FIELDS
    connection.initiate_connection()
    # The client's own is looked at with its frames.
    connection.receive_data(PREFACE)
    connection.increment_flow_control_window(STREAMS * WINDOW - _FIRST_WINDOW)
    connection.local_settings = _settings(_FAR_TOO_MANY, max_header_size)
    return connection


def _settings(streams: int, max_header_size: int) -> Settings:
    return Settings(
        client=False,
        initial_values={
            SettingCodes.MAX_CONCURRENT_STREAMS: streams,
            SettingCodes.INITIAL_WINDOW_SIZE: WINDOW,
            SettingCodes.MAX_HEADER_LIST_SIZE: max_header_size,
        },
    )
