"""
The API described for programs, as OpenAPI 3.1.

Made from the table that routes, so that it cannot say anything else.  Knows the
form; refuses to know any single endpoint.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable

from dynbalance import __version__
from dynbalance.admin.answers import Json, Page
from dynbalance.admin.api import Endpoint
from dynbalance.admin.caller import Role
from dynbalance.admin.parameters import Parameter
from dynbalance.admin.scene import Ask

PATH = b"/openapi.json"

_FORM, _JSON = "application/x-www-form-urlencoded", "application/json"

_ANSWER: Json = {
    "type": "object",
    "required": ["code", "message"],
    "properties": {
        "code": {"type": "integer", "description": "the HTTP status"},
        "message": {"type": "string", "description": "for people"},
        "status": {"enum": ["healthy", "unhealthy"], "description": "of health alone"},
        "data": {"description": "what was asked for"},
    },
    "additionalProperties": False,
}

_GUARDED = {
    "401": "credentials are needed, or are wrong",
    "403": "the caller may not do this",
}
_ALWAYS = {"429": "too many requests from this address"}
_EVERYWHERE = {"400": "an argument is missing, unknown or wrong"}
_ABOUT_UPSTREAMS = {
    "404": "no such upstream or server",
    "503": "the store does not answer; nothing was changed",
}
_OF_ORDERS = {
    "403": "the caller may not do this, or is a page of another origin",
    "409": "the membership has another revision than If-Match names",
    "413": "a body of more than 1 MiB",
    "415": "a body that is neither a form nor JSON",
}

_SCHEMES: Json = {
    "basic": {"type": "http", "scheme": "basic"},
    "bearer": {"type": "http", "scheme": "bearer"},
    "certificate": {"type": "mutualTLS"},
}

_IF_MATCH: Json = {
    "name": "If-Match",
    "in": "header",
    "description": "the revision that the order was made for, in quotes",
    "schema": {"type": "string", "pattern": '^("[0-9]{1,18}"|\\*)$'},
}


def with_description(endpoints: Iterable[Endpoint]) -> tuple[Endpoint, ...]:
    """The table, and the endpoint that describes it."""
    table = tuple(endpoints)
    written: list[Page] = []

    async def describe(ask: Ask) -> Page:
        return written[0]

    described = (*table, _describing(describe))
    text = json.dumps(document(described), separators=(",", ":"))
    written.append(Page(content_type=b"application/json", body=text.encode("ascii")))
    return described


def _describing(describe: Callable[[Ask], Awaitable[Page]]) -> Endpoint:
    about = "Describe the API"
    return Endpoint(PATH, (b"GET",), None, describe, about, needs=Role.READ)


def document(endpoints: Iterable[Endpoint]) -> Json:
    """The description of a table."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "dynbalance",
            "version": __version__,
            "description": "What operators and servers say to a dynbalance node.",
        },
        "paths": {
            endpoint.path.decode("ascii"): {
                method.decode("ascii").lower(): _operation(endpoint, method)
                for method in endpoint.methods
            }
            for endpoint in endpoints
        },
        # Where the API asks for nothing, none of them is needed.
        "security": [{}, {"basic": []}, {"bearer": []}, {"certificate": []}],
        "components": {"schemas": {"Answer": _ANSWER}, "securitySchemes": _SCHEMES},
    }


def _operation(endpoint: Endpoint, method: bytes) -> Json:
    path = endpoint.path.decode("ascii").strip("/").replace("/", "_").replace(".", "_")
    wanted = endpoint.parameters or ()
    needs = "everybody" if endpoint.needs is None else f"the role {endpoint.needs.value}"
    operation: dict[str, Json] = {
        "description": f"For {needs}.",
        "operationId": f"{method.decode('ascii').lower()}_{path or 'dashboard'}",
        "summary": endpoint.about,
        "responses": _responses(endpoint, method),
    }
    if method == b"POST":
        operation["parameters"] = [_IF_MATCH]
        operation["requestBody"] = _body(wanted)
    elif wanted:
        operation["parameters"] = [_in_query(parameter) for parameter in wanted]
    return operation


def _in_query(parameter: Parameter[object]) -> Json:
    return {
        "name": parameter.name,
        "in": "query",
        "required": parameter.required,
        "description": parameter.about,
        "schema": dict(parameter.schema),
    }


def _body(wanted: tuple[Parameter[object], ...]) -> Json:
    schema: Json = {
        "type": "object",
        "properties": {
            parameter.name: {**parameter.schema, "description": parameter.about}
            for parameter in wanted
        },
        "required": [parameter.name for parameter in wanted if parameter.required],
        "additionalProperties": False,
    }
    return {
        "required": any(parameter.required for parameter in wanted),
        "content": {kind: {"schema": schema} for kind in (_FORM, _JSON)},
    }


def _responses(endpoint: Endpoint, method: bytes) -> Json:
    answer: Json = {_JSON: {"schema": {"$ref": "#/components/schemas/Answer"}}}
    good: Json = answer if endpoint.produces == _JSON else {endpoint.produces: {}}
    if endpoint.path == PATH:
        good = {_JSON: {"schema": {"type": "object"}}}
    refusals = dict(_ALWAYS)
    if endpoint.needs is not None:
        refusals |= _GUARDED
    else:
        refusals["403"] = "requests from this address or by this host name are refused"
    if endpoint.parameters is not None:
        refusals |= {**_EVERYWHERE, **_ABOUT_UPSTREAMS}
    elif endpoint.may_fail:
        refusals["503"] = "not now; the answer says why"
    if method == b"POST":
        refusals |= _OF_ORDERS
    told: dict[str, Json] = {"200": {"description": "done", "content": good}}
    if method == b"GET" and endpoint.has_revision:
        told["304"] = {"description": "the caller knows this revision"}
    for status, why in sorted(refusals.items()):
        told[status] = {"description": why, "content": answer}
    return told
