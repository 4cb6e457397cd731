"""
What the fields of a request mean: one parameter, one reader, one refusal.

Knows texts, ranges and defaults; refuses to know what is done with them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Generic, TypeVar, cast

from attrs import frozen

from dynbalance.admin.answers import Refused
from dynbalance.admin.fields import brief
from dynbalance.config import DEFAULT_UPSTREAM
from dynbalance.config.ranges import YEAR
from dynbalance.config.upstream import MAX_WEIGHT
from dynbalance.store.contract import Intent, Then

T = TypeVar("T")

_DIGITS = re.compile(r"[0-9]{1,18}")
_DECIMAL = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")
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
    """

    name: str
    read: Callable[[str], T]
    about: str


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


def _count(name: str, default: int, least: int, most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not text:
            return default
        if not _DIGITS.fullmatch(text) or not least <= int(text) <= most:
            raise Refused(400, f"Invalid {name}: {brief(text)} is not {least}-{most}")
        return int(text)

    return read


def _seconds(name: str, default: float, most: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        if not text:
            return default
        if not _DECIMAL.fullmatch(text) or float(text) > most:
            raise Refused(400, f"Invalid {name}: {brief(text)} is not 0-{most:.0f} seconds")
        return float(text)

    return read


def _switch(name: str, default: bool) -> Callable[[str], bool]:
    meanings = {**_TRUTH, **_FALSITY, "": default}

    def read(text: str) -> bool:
        meaning = meanings.get(text.lower())
        if meaning is None:
            raise Refused(400, f"Invalid {name}: {brief(text)} is not true or false")
        return meaning

    return read


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


UPSTREAM = Parameter("upstream", lambda text: text or DEFAULT_UPSTREAM, "name of the upstream")
HOST = Parameter("host", str, "the server's address or name; empty: the caller's address")
PORT = Parameter("port", _port, "the server's port, 1-65535")
WEIGHT = Parameter("weight", _count("weight", 1, 1, MAX_WEIGHT), "share of the work")
MAX_CONNS = Parameter(
    "max_conns",
    _count("max_conns", 1000, 0, LARGEST),
    "connections over all nodes at most; 0 for no limit",
)
HEARTBEAT = Parameter(
    "heartbeat", _switch("heartbeat", True), "whether the server goes out when heartbeats stop"
)
BACKUP = Parameter(
    "backup", _switch("backup", False), "whether it serves only when no other can"
)
MAX_FAILS = Parameter(
    "max_fails",
    _count("max_fails", 1, 0, LARGEST),
    "failures within fail_timeout that take it out; 0 for never",
)
FAIL_TIMEOUT = Parameter(
    "fail_timeout", _seconds("fail_timeout", 10.0, YEAR), "seconds that failures count"
)
SLOW_START = Parameter(
    "slow_start",
    _seconds("slow_start", 0.0, YEAR),
    "seconds in which it reaches its weight; 0 for what its upstream says",
)
ACTION = Parameter("action", _action, "enable, disable or drain")
DEADLINE = Parameter(
    "deadline",
    _seconds("deadline", 0.0, YEAR),
    "seconds after which a drain ends in any case; 0 for however long it takes",
)
THEN = Parameter("then", _then, "what comes after a drain: disable or remove")
DRAIN = Parameter(
    "drain",
    _seconds("drain", 0.0, YEAR),
    "seconds that the server has to finish its work; 0 for none",
)
