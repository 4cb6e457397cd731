"""
What one table of the file says of another.

Works on the file as it was parsed, table by table, so that a mistake in one
place does not hide one in another.  Knows names and places; leaves to the
classes what a value may be, and passes over a value that they refuse.
"""

from __future__ import annotations

from collections.abc import Iterator

from dynbalance.config.admin import AdminConfig
from dynbalance.config.endpointtext import EndpointText
from dynbalance.config.listeners import DEFAULT_UPSTREAM, HttpConfig, StreamConfig

Path = tuple[str | int, ...]
"""The keys and indexes that lead to an option."""

Problem = tuple[Path, str]

_LISTENS = {
    "http": HttpConfig().listen,
    "stream": StreamConfig().listen,
    "admin": AdminConfig().listen,
}


def shown(path: Path) -> str:
    """The path as people write it: C{upstreams.api.servers[1].address}."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            bare = step.replace("-", "").replace("_", "").isalnum() and step.isascii()
            text += ("." if text else "") + (step if bare else f'"{ascii(step)[1:-1]}"')
    return text


def broken_rules(document: dict[str, object]) -> Iterator[Problem]:
    """@param document: the parsed file, with all listeners that will be opened."""
    yield from _unknown_upstreams(document)
    yield from _shared_places(document)
    yield from _keys_of_streams(document)
    yield from _open_doors(document)
    yield from _memory_of_one(document)


def _table(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def _tables(value: object, *path: str | int) -> Iterator[tuple[Path, dict[str, object]]]:
    for index, member in enumerate(value if isinstance(value, list) else ()):
        yield (*path, index), _table(member)


def _unknown_upstreams(document: dict[str, object]) -> Iterator[Problem]:
    known = {DEFAULT_UPSTREAM, *_table(document.get("upstreams"))}
    for path, name in _mentions(document):
        if isinstance(name, str) and name not in known:
            yield path, f'no upstream "{ascii(name)[1:-1]}"'


def _mentions(document: dict[str, object]) -> Iterator[tuple[Path, object]]:
    for path, listener in _tables(document.get("http"), "http"):
        yield (*path, "upstream"), listener.get("upstream")
        for at, route in _tables(listener.get("routes"), *path, "routes"):
            yield (*at, "upstream"), route.get("upstream")
    for path, listener in _tables(document.get("stream"), "stream"):
        yield (*path, "upstream"), listener.get("upstream")
        for server_name, upstream in _table(listener.get("sni_routes")).items():
            yield (*path, "sni_routes", server_name), upstream


def _listens(document: dict[str, object]) -> Iterator[tuple[Path, EndpointText]]:
    listeners = [
        *_tables(document.get("http"), "http"),
        *_tables(document.get("stream"), "stream"),
        (("admin",), _table(document.get("admin"))),
    ]
    for path, listener in listeners:
        endpoint = _endpoint(listener.get("listen", _LISTENS[str(path[0])]))
        if endpoint is not None:
            yield (*path, "listen"), endpoint


def _endpoint(text: object) -> EndpointText | None:
    try:
        return EndpointText.parse(text) if isinstance(text, str) else None
    except ValueError:
        return None


def _shared_places(document: dict[str, object]) -> Iterator[Problem]:
    seen: list[tuple[Path, EndpointText]] = []
    for path, endpoint in _listens(document):
        for earlier, other in seen:
            if endpoint.overlaps(other):
                yield path, f"{endpoint.text!r} is taken by {shown(earlier)}, {other.text!r}"
                break
        seen.append((path, endpoint))


def _keys_of_streams(document: dict[str, object]) -> Iterator[Problem]:
    """A TCP connection has an address and nothing else to go by."""
    upstreams = _table(document.get("upstreams"))
    used: dict[object, Path] = {}
    for path, listener in _tables(document.get("stream"), "stream"):
        routes = _table(listener.get("sni_routes"))
        for name in (listener.get("upstream", DEFAULT_UPSTREAM), *routes.values()):
            if isinstance(name, str):
                used.setdefault(name, path)
    for name, upstream in upstreams.items():
        key = _table(upstream).get("hash_key", "$remote_addr")
        if name in used and _table(upstream).get("policy") == "hash" and key != "$remote_addr":
            said = f"{shown(used[name])} uses this upstream: a stream has only $remote_addr"
            yield ("upstreams", name, "hash_key"), said


def _open_doors(document: dict[str, object]) -> Iterator[Problem]:
    """Whoever reaches the admin API moves the traffic: strangers must not."""
    admin = _table(document.get("admin"))
    if any(admin.get(key) for key in ("users", "tokens", "jwt")):
        return
    remedies = "admin.users, admin.tokens or admin.jwt"
    asks_certificates = bool(_table(admin.get("tls")).get("client_ca"))
    for path, endpoint in _listens(document):
        *table, _ = path
        if path[0] == "admin":
            if not endpoint.is_local and not asks_certificates:
                said = "admin.users, admin.tokens, admin.jwt or admin.tls.client_ca"
                yield path, f"{endpoint.text!r} is reachable from other machines; set {said}"
        elif path[0] == "http":
            listener = dict(_tables(document["http"], "http"))[tuple(table)]
            if listener.get("mount_admin") is not True:
                continue
            option = (*table, "mount_admin")
            # The certificates that a listener of traffic asks for are for traffic.
            if not endpoint.is_local:
                yield option, f"{endpoint.text!r} is reachable from other machines; set {remedies}"
            elif asks_certificates:
                yield option, f"nobody can show a certificate for admin.tls here; set {remedies}"


def _memory_of_one(document: dict[str, object]) -> Iterator[Problem]:
    """Several processes would each have a store of their own."""
    url = _table(document.get("store")).get("url")
    if url == "memory:" and document.get("workers", 1) != 1:
        yield ("workers",), "memory: is the store of one process; several need another store.url"
