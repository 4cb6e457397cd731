"""
From C{package.module:callable} in the configuration to the balancer hook.

Knows how Python finds modules; refuses to know what the hook is called with.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any

from dynbalance.errors import BadHook

HookFunction = Callable[[Any], object]
"""
Takes a L{Context <dynbalance.balancer.hook.Context>}.  What it returns is
waited for when it is a coroutine or a Deferred, and otherwise ignored.
"""


def load_hook(text: str) -> HookFunction:
    """
    Import the module and find the callable in it.

    @param text: C{package.module:callable}; the callable may be an attribute
        of an attribute, such as C{policies:sticky.choose}.
    @raise BadHook: saying which part of the name leads nowhere.
    """
    module_name, colon, path = text.partition(":")
    if not (colon and module_name and path):
        raise BadHook(f"{text!r} is not package.module:callable")
    found: object = _import(module_name)
    where = f"module {module_name!r}"
    for name in path.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            raise BadHook(f"{where} has no {name!r}") from None
        where = f"{name!r} of {where}"
    if not callable(found):
        raise BadHook(f"{where} cannot be called: its type is {type(found).__name__}")
    _check_arguments(found, where)
    return found


def _import(name: str) -> object:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as missing:
        if missing.name is not None and f"{name}.".startswith(f"{missing.name}."):
            raise BadHook(f"there is no module {missing.name!r}") from None
        raise BadHook(f"module {name!r} cannot be imported: {missing}") from missing
    except (Exception, SystemExit) as error:
        why = f"{type(error).__name__}: {error}"
        raise BadHook(f"module {name!r} cannot be imported: {why}") from error


def _check_arguments(found: Callable[..., object], where: str) -> None:
    try:
        signature = inspect.signature(found)
    except (TypeError, ValueError):
        # Some callables of C have none to show.
        return
    try:
        signature.bind(None)
    except TypeError as wrong:
        raise BadHook(f"{where} cannot be called with one argument: {wrong}") from None
