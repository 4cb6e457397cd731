"""
What an option's value may be, as attrs validators and converters.

Knows numbers, texts and header fields; refuses to know which option has which
range.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

from attrs import Attribute, frozen

from dynbalance.config.endpointtext import EndpointText
from dynbalance.config.template import KEY_VARIABLES, TRAFFIC_VARIABLES, parse_template

Check = Callable[[Any, "Attribute[Any]", Any], None]
"""An attrs validator: instance, attribute, value."""

YEAR = 366 * 24 * 3600.0
"""The longest time that an option takes: what is longer was meant as milliseconds."""

TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
"""A header field's name (RFC 9110, 5.6.2)."""

_FIELD_VALUE = re.compile(r"[\t\x20-\x7e]*\Z")

FRAMING = frozenset([
    "connection", "content-length", "expect", "keep-alive", "proxy-connection", "te", "trailer",
    "transfer-encoding", "upgrade",
])
"""Fields that say where a message ends or concern one connection only."""


class OptionError(ValueError):
    """
    A value that is wrong beside another value of the same table.

    @ivar option: the name of the option at fault within its table.
    """

    def __init__(self, option: str, text: str) -> None:
        super().__init__(text)
        self.option = option


def _shown(number: float) -> str:
    """The number in few characters: the file may hold one of a thousand digits."""
    if abs(number) >= 10**15:
        return f"{number:.6g}" if abs(number) < 10**300 else "a number of hundreds of digits"
    return str(int(number)) if number == int(number) else repr(number)


@frozen(slots=True)
class Range:
    """
    A number from C{least} to C{most}, both included, never NaN or infinite.

    @ivar unit: for people; empty for what is only counted.
    """

    least: float
    most: float = math.inf
    unit: str = ""

    def __call__(self, instance: Any, attribute: Attribute[Any], value: float) -> None:
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{value} is not a finite number")
        if self.least <= value <= self.most:
            return
        if self.most == math.inf:
            raise ValueError(f"{_shown(value)} is less than {_shown(self.least)}")
        raise ValueError(f"{_shown(value)} is not in {self}")

    def __str__(self) -> str:
        return f"{_shown(self.least)}-{_shown(self.most)}"


def within(least: float, most: float = math.inf, unit: str = "") -> Check:
    """A number, as L{Range} has it."""
    return Range(least, most, unit)


def seconds(least: float = 0.0) -> Check:
    """A time in seconds, a year at most."""
    return Range(least, YEAR, "seconds")


@frozen(slots=True)
class Choice:
    """
    One of a few values; a bool is not taken for a number.
    """

    choices: tuple[object, ...]

    def __call__(self, instance: Any, attribute: Attribute[Any], value: object) -> None:
        if not any(value == choice and type(value) is type(choice) for choice in self.choices):
            shown = ", ".join(str(choice) for choice in self.choices)
            raise ValueError(f"{value!r} is not one of {shown}")


def one_of(*choices: object) -> Check:
    """One of a few values, as L{Choice} has it."""
    return Choice(choices)


def matches(pattern: str, wanted: str) -> Check:
    """A text that is C{wanted} because all of it matches C{pattern}."""
    compiled = re.compile(pattern)

    def check(instance: Any, attribute: Attribute[Any], value: str) -> None:
        if not compiled.fullmatch(value):
            shown = repr(value) if attribute.repr else "what is given"
            raise ValueError(f"{shown} is not {wanted}")

    return check


def no_repeats(instance: Any, attribute: Attribute[Any], value: Iterable[object]) -> None:
    """A list in which nothing stands twice."""
    seen: set[object] = set()
    for member in value:
        if member in seen:
            raise ValueError(f"{member!r} stands in the list twice")
        seen.add(member)


def frozen_texts(value: Mapping[str, str]) -> Mapping[str, str]:
    """A read-only copy of C{value}."""
    return MappingProxyType(dict(value))


def lowered(value: str) -> str:
    """The text in lower case."""
    return value.lower()


def endpoint(instance: Any, attribute: Attribute[Any], value: str) -> None:
    """An endpoint string that Twisted understands."""
    EndpointText.parse(value)


_TRAFFIC = ("tcp", "tcp6", "unix", "systemd")


def traffic_endpoint(instance: Any, attribute: Attribute[Any], value: str) -> None:
    """An endpoint string whose connections the hub can carry."""
    kind = EndpointText.parse(value).kind
    if kind not in _TRAFFIC:
        known = ", ".join(f"{each}:" for each in _TRAFFIC)
        raise ValueError(f"{value!r}: traffic comes by one of {known}; TLS is the tls table's")


def hash_key(instance: Any, attribute: Attribute[Any], value: str) -> None:
    """A template of what a hash may be made of."""
    if not parse_template(value, KEY_VARIABLES):
        raise ValueError("the key is empty")


def header_value(instance: Any, attribute: Attribute[Any], value: str) -> None:
    """A header's value: a template of visible ASCII, blanks and tabs."""
    if not _FIELD_VALUE.match(value):
        raise ValueError(f"{value!r} holds what is not ASCII or a control character")
    parse_template(value, TRAFFIC_VARIABLES)


def headers(instance: Any, attribute: Attribute[Any], value: Mapping[str, str]) -> None:
    """Header fields to be set: names that are tokens, values that are templates."""
    seen: set[str] = set()
    for name, text in value.items():
        lowered = name.lower()
        if not TOKEN.match(name):
            raise ValueError(f"{name!r} is not a header's name")
        if lowered in FRAMING:
            raise ValueError(f"{name} belongs to the connection and cannot be set")
        if lowered == "host":
            raise ValueError("Host is set by the option host of the upstream")
        if lowered in seen:
            raise ValueError(f"{name} is set twice")
        seen.add(lowered)
        try:
            header_value(instance, attribute, text)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None


NAME = matches(r"[A-Za-z0-9_.-]{1,64}", "a name of 1-64 letters, digits, '_', '.' and '-'")
"""An upstream's name.  It becomes a part of store keys, hence no colon."""

SOME = matches(r"[^\x00-\x1f\x7f]+", "a text without control characters")
PRINTABLE = matches(r"[^\x00-\x1f\x7f]*", "a text without control characters")
COUNTS = within(0, 2**31 - 1)
BYTES = within(0, 2**53, "bytes")
POSITIVE = seconds(0.001)
