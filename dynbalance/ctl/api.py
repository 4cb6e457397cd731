"""
One request to the admin API and its answer.

Knows the envelope and the credentials; refuses to know what is asked.  Goes
straight to the daemon: no proxy of the environment, no redirection, so that
credentials reach nobody else.
"""

from __future__ import annotations

import base64
import http.client
import json
import ssl
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode, urlsplit

from attrs import field, frozen

ANSWER_LIMIT = 64 * 1024 * 1024
"""Bytes of an answer that are read: an export of very many servers."""


class Unreachable(Exception):
    """The daemon did not answer, or whoever did is no dynbalance."""


class Refused(Exception):
    """
    The daemon said no.

    @ivar answer: what it said.
    """

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.message)
        self.answer = answer


@frozen(slots=True, kw_only=True)
class Access:
    """
    Where the daemon is, and who asks.

    @ivar url: of the admin listener.
    @ivar user: C{NAME:PASSWORD}; empty for none.
    @ivar token: a bearer token; empty for none.
    @ivar ca: file of certificates that C{https} is checked against; empty for
        the system's.
    @ivar timeout: seconds that the daemon may be silent.
    """

    url: str
    user: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    ca: str = ""
    timeout: float = 10.0


@frozen(slots=True, kw_only=True)
class Answer:
    """
    @ivar status: the HTTP status.
    @ivar text: as it came, JSON.
    @ivar message: for people.
    @ivar data: what was asked for.
    @ivar retry_after: seconds after which it may be asked again; 0 if the
        daemon did not say.
    """

    status: int
    text: str
    message: str
    data: Any = None
    retry_after: float = 0.0

    @property
    def whole(self) -> Any:
        """All of it, with what stands beside C{data}."""
        return json.loads(self.text)


class Api:
    """Asks the daemon, over a connection of its own each time."""

    def __init__(self, access: Access) -> None:
        """@raise ValueError: C{access} holds no URL of an admin API."""
        parts = urlsplit(access.url if "//" in access.url else f"http://{access.url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{access.url!r} is not http://HOST:PORT or https://HOST:PORT")
        if parts.username is not None:
            raise ValueError("the URL holds credentials: use --user")
        self._host = parts.hostname
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._base = parts.path.rstrip("/")
        self._access = access
        self._context: ssl.SSLContext | None = None
        if parts.scheme == "https":
            try:
                self._context = ssl.create_default_context(cafile=access.ca or None)
            except OSError as error:
                raise ValueError(f"{access.ca}: {error.strerror or error}") from None
        self.url = f"{parts.scheme}://{parts.netloc}{self._base}"

    def get(self, path: str, **fields: str | Sequence[str]) -> Answer:
        """
        @param fields: of the query; one that is a sequence comes several times.
        @raise Refused: for any answer but a good one.
        @raise Unreachable: there is none.
        """
        query = f"?{urlencode(fields, doseq=True)}" if fields else ""
        return self._ask("GET", path + query, b"", {})

    def post(self, path: str, **fields: str) -> Answer:
        """As L{get}; the fields go as a form."""
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        return self._ask("POST", path, urlencode(fields).encode(), kind)

    def post_json(self, path: str, document: Mapping[str, Any]) -> Answer:
        """As L{post}, for what is no flat list of fields."""
        kind = {"Content-Type": "application/json"}
        return self._ask("POST", path, json.dumps(document).encode(), kind)

    def _ask(self, method: str, target: str, body: bytes, kind: Mapping[str, str]) -> Answer:
        connection = self._connection()
        try:
            connection.request(
                method, self._base + target, body or None, {**kind, **self._credentials()}
            )
            response = connection.getresponse()
            text = response.read(ANSWER_LIMIT + 1)
            retry_after = response.getheader("Retry-After", "")
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(f"{self.url}: {_reason(error)}") from None
        finally:
            connection.close()
        answer = self._understood(response.status, text, retry_after)
        if answer.status != 200:
            raise Refused(answer)
        return answer

    def _connection(self) -> http.client.HTTPConnection:
        timeout = self._access.timeout
        if self._context is None:
            return http.client.HTTPConnection(self._host, self._port, timeout=timeout)
        return http.client.HTTPSConnection(
            self._host, self._port, timeout=timeout, context=self._context
        )

    def _credentials(self) -> dict[str, str]:
        access = self._access
        if access.token:
            return {"Authorization": f"Bearer {access.token}"}
        if access.user:
            return {"Authorization": "Basic " + base64.b64encode(access.user.encode()).decode()}
        return {}

    def _understood(self, status: int, text: bytes, retry_after: str) -> Answer:
        try:
            whole = json.loads(text)
            return Answer(
                status=status,
                text=text.decode(),
                message=str(whole["message"]),
                data=whole.get("data"),
                retry_after=float(retry_after) if retry_after.isdigit() else 0.0,
            )
        except (ValueError, KeyError, TypeError, AttributeError):
            raise Unreachable(
                f"{self.url}: status {status}, and not an answer of dynbalance's admin API"
            ) from None


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate was not accepted: {error.verify_message}"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return f"no HTTP answer ({type(error).__name__})"
