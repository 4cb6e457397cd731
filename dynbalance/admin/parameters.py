"""
What the fields of a request mean: one parameter, one reader, one refusal.

Knows texts, ranges and defaults; refuses to know what is done with them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Generic, TypeVar, cast

from attrs import frozen

from dynbalance.admin.answers import Json, Refused
from dynbalance.admin.fields import SEPARATOR, brief
from dynbalance.config import DEFAULT_UPSTREAM
from dynbalance.config.ranges import YEAR
from dynbalance.config.upstream import MAX_WEIGHT
from dynbalance.store.contract import Intent, Then

T = TypeVar("T")

_DIGITS = re.compile(r"[0-9]{1,18}")
_DECIMAL = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")
_LINE_ID = re.compile(r"[0-9]{1,18}-[0-9]{1,18}")
_URI = re.compile(r"/[!-~]*")
_TRUTH = {"true": True, "1": True, "yes": True, "on": True}
_FALSITY = {"false": False, "0": False, "no": False, "off": False}

LARGEST = 2**31 - 1
"""Of a count: the configuration file's bound."""


@frozen(slots=True, eq=False)
class Parameter(Generic[T]):
    """
    One parameter of an endpoint.

    @ivar read: what the text means; an absent field is the empty text, since
        shell scripts send C{host=} for "not given".
    @ivar about: a line for people.
    @ivar schema: the same for programs, as JSON Schema.
    @ivar required: whether it has to be given.
    """

    name: str
    read: Callable[[str], T]
    about: str
    schema: Mapping[str, Json]
    required: bool = False

    @property
    def is_repeatable(self) -> bool:
        """Whether it may come several times."""
        return self.schema.get("type") == "array"

    @property
    def is_structured(self) -> bool:
        """Whether it is a JSON value of any shape, and not plain text."""
        return not self.schema.get("type")

    def change(self) -> Parameter[T | None]:
        """The same where it need not be given, and then stays as it is."""
        schema = {name: value for name, value in self.schema.items() if name != "default"}
        about = f"{self.about}; absent: as it is"
        read = self.read
        return Parameter(self.name, lambda text: read(text) if text else None, about, schema)


class Arguments:
    """All parameters of an endpoint, read and judged."""

    __slots__ = ("_values",)

    def __init__(
        self, parameters: Iterable[Parameter[object]], fields: Mapping[str, str]
    ) -> None:
        """
        @raise Refused: for the first unknown name, else for the first
            parameter that is wrong, in the endpoint's order.
        """
        wanted = tuple(parameters)
        names = {parameter.name for parameter in wanted}
        for name in fields:
            if name not in names:
                raise Refused(400, f"Unknown parameter: {brief(name)}")
        self._values: dict[Parameter[object], object] = {
            parameter: parameter.read(fields.get(parameter.name, "")) for parameter in wanted
        }

    def __getitem__(self, parameter: Parameter[T]) -> T:
        return cast(T, self._values[cast("Parameter[object]", parameter)])


def _port(text: str) -> int:
    if not text:
        raise Refused(400, "Missing required parameter: port")
    if not _DIGITS.fullmatch(text) or not 1 <= int(text) <= 65535:
        raise Refused(400, f"Invalid port number: {brief(text)}")
    return int(text)


def _count(name: str, default: int, least: int, most: int, about: str) -> Parameter[int]:
    def read(text: str) -> int:
        if not text:
            return default
        if not _DIGITS.fullmatch(text) or not least <= int(text) <= most:
            raise Refused(400, f"Invalid {name}: {brief(text)} is not {least}-{most}")
        return int(text)

    schema: dict[str, Json] = {"type": "integer", "minimum": least, "maximum": most}
    return Parameter(name, read, about, schema | {"default": default})


def _seconds(name: str, default: float, about: str) -> Parameter[float]:
    def read(text: str) -> float:
        if not text:
            return default
        if not _DECIMAL.fullmatch(text) or float(text) > YEAR:
            raise Refused(400, f"Invalid {name}: {brief(text)} is not 0-{YEAR:.0f} seconds")
        return float(text)

    schema: dict[str, Json] = {"type": "number", "minimum": 0, "maximum": int(YEAR)}
    return Parameter(name, read, about, schema | {"default": int(default)})


def _switch(name: str, default: bool, about: str) -> Parameter[bool]:
    meanings = {**_TRUTH, **_FALSITY, "": default}

    def read(text: str) -> bool:
        meaning = meanings.get(text.lower())
        if meaning is None:
            raise Refused(400, f"Invalid {name}: {brief(text)} is not true or false")
        return meaning

    return Parameter(name, read, about, {"type": "boolean", "default": default})


def _action(text: str) -> Intent:
    try:
        return Intent(text)
    except ValueError:
        raise Refused(400, "Invalid action. Must be enable, disable or drain") from None


def _then(text: str) -> Then:
    try:
        return Then(text)
    except ValueError:
        raise Refused(400, f"Invalid then: {brief(text)} is not disable or remove") from None


def _revision(text: str) -> int:
    if not text:
        raise Refused(400, "Missing required parameter: revision")
    if not _DIGITS.fullmatch(text):
        raise Refused(400, f"Invalid revision: {brief(text)}")
    return int(text)


def _line_id(text: str) -> str:
    if text and not _LINE_ID.fullmatch(text):
        raise Refused(400, f"Invalid before: {brief(text)} is no id of a line")
    return text


def _uri(text: str) -> str:
    if not text:
        return "/"
    if not _URI.fullmatch(text):
        raise Refused(400, f"Invalid uri: {brief(text)} is no path")
    return text


def _data(text: str) -> object:
    if not text:
        raise Refused(400, "Missing required parameter: data")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise Refused(400, "Invalid data: no JSON") from None


_TEXT: Mapping[str, Json] = {"type": "string"}

UPSTREAM = Parameter(
    "upstream",
    lambda text: text or DEFAULT_UPSTREAM,
    "name of the upstream",
    {"type": "string", "default": DEFAULT_UPSTREAM},
)
HOST = Parameter("host", str, "the server's address or name; empty: the caller's address", _TEXT)
PORT = Parameter(
    "port",
    _port,
    "the server's port",
    {"type": "integer", "minimum": 1, "maximum": 65535},
    required=True,
)
WEIGHT = _count("weight", 1, 1, MAX_WEIGHT, "share of the work")
MAX_CONNS = _count(
    "max_conns", 1000, 0, LARGEST, "connections over all nodes at most; 0 for no limit"
)
HEARTBEAT = _switch("heartbeat", True, "whether the server goes out when heartbeats stop")
BACKUP = _switch("backup", False, "whether it serves only when no other can")
MAX_FAILS = _count(
    "max_fails", 1, 0, LARGEST, "failures within fail_timeout that take it out; 0 for never"
)
FAIL_TIMEOUT = _seconds("fail_timeout", 10.0, "seconds that failures count")
SLOW_START = _seconds(
    "slow_start", 0.0, "seconds in which it reaches its weight; 0 for what its upstream says"
)
ACTION = Parameter(
    "action",
    _action,
    "enable, disable or drain",
    {"type": "string", "enum": [intent.value for intent in Intent]},
    required=True,
)
DEADLINE = _seconds(
    "deadline",
    0.0,
    "seconds after which a drain ends in any case; 0 for however long it takes",
)
THEN = Parameter(
    "then",
    _then,
    "what comes after a drain: disable or remove",
    {"type": "string", "enum": [then.value for then in Then], "default": ""},
)
DRAIN = _seconds("drain", 0.0, "seconds that the server has to finish its work; 0 for none")

DRAINING = _switch(
    "draining", False, "whether the server wants no new work; false ends what true began"
).change()

NEW_WEIGHT = WEIGHT.change()
NEW_MAX_CONNS = MAX_CONNS.change()
NEW_HEARTBEAT = HEARTBEAT.change()
NEW_BACKUP = BACKUP.change()
NEW_MAX_FAILS = MAX_FAILS.change()
NEW_FAIL_TIMEOUT = FAIL_TIMEOUT.change()
NEW_SLOW_START = SLOW_START.change()

LIMIT = _count("limit", 100, 1, 1000, "how many lines at most")
BEFORE = Parameter("before", _line_id, "only lines older than the one with this id", _TEXT)
ADDRESS = Parameter("address", str, "only lines about this server, HOST:PORT", _TEXT)
REVISION = Parameter(
    "revision",
    _revision,
    "the revision to go back to",
    {"type": "integer", "minimum": 0, "maximum": 10**18 - 1},
    required=True,
)
URI = Parameter(
    "uri",
    _uri,
    "of the request: its path and query",
    {"type": "string", "pattern": "^/[!-~]*$", "default": "/"},
)
CLIENT = Parameter("client", str, "the client's address; empty: the caller's", _TEXT)
HEADER = Parameter(
    "header",
    lambda text: tuple(text.split(SEPARATOR)) if text else (),
    "a field of the request, NAME: VALUE; may be given several times",
    {"type": "array", "items": {"type": "string"}},
)
ALL = _switch("all", False, "all upstreams instead of one")
ONLY = Parameter("upstream", str, "only this upstream of the document; empty: all of them", _TEXT)
DATA = Parameter("data", _data, "what an export gave as data", {}, required=True)
CODE = Parameter("code", str, "of an export's whole answer; not looked at", _TEXT)
MESSAGE = Parameter("message", str, "of an export's whole answer; not looked at", _TEXT)
DRY_RUN = _switch("dry_run", False, "only say what would change")
