"""
The command line: C{twistd dynbalance [options]}, laid over the configuration
file.

Knows the options' names and what they replace; refuses to open files, to look
into the environment, or to start anything: those come in or are others' work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NoReturn

import attrs
from twisted.python import usage

from dynbalance import __version__
from dynbalance.config import DEFAULT_STATE_DIR, Config, StoreUrl
from dynbalance.config.endpointtext import EndpointText
from dynbalance.configfile import Document, build, read_toml
from dynbalance.errors import ConfigError


def refusal(problems: Iterable[str]) -> SystemExit:
    """What ends a start that cannot be: a line each on stderr, exit status 1."""
    return SystemExit("\n".join(f"dynbalance: {problem}" for problem in problems))


class Options(usage.Options):
    """
    What the command line said.  A value that cannot be is noted, so that
    L{load} reports it together with the file's mistakes.

    @ivar problems: one line for each such value.
    """

    synopsis = "[options]"
    longdesc = (
        "A load balancer for HTTP and TCP whose servers come and go at run time. "
        "Without --config there is one HTTP listener on tcp:8080, one TCP listener on tcp:10000 "
        "and the admin API on 127.0.0.1:8081. With --config only those HTTP and TCP listeners are "
        "opened that the file or these options name, or those two if they name none; the admin "
        "API is always there. Listeners are Twisted endpoints, and those of --http and --stream "
        "serve the upstream \"default\"."
    )

    def __init__(self) -> None:
        usage.Options.__init__(self)
        self.problems: list[str] = []
        self.config: str | None = None
        self.http: list[str] = []
        self.stream: list[str] = []
        self.admin: str | None = None
        self.store: str | None = None
        self.state_dir: str | None = None
        self.workers: int | None = None
        self.demo = False

    def parseOptions(self, options: list[str] | None = None) -> None:
        """
        Parse, and end the process with one line if that fails: twistd would
        print its whole help around the line, and on standard output.
        """
        try:
            usage.Options.parseOptions(self, options)
        except usage.UsageError as error:
            raise refusal([f"{error} (--help lists the options)"]) from None

    def parseArgs(self, *arguments: str) -> None:
        if arguments:
            raise usage.UsageError(f"unexpected argument {arguments[0]!r}")

    def opt_config(self, path: str) -> None:
        """TOML file; these options override it"""
        self.config = path

    opt_c = opt_config

    def opt_http(self, endpoint: str) -> None:
        """HTTP listener, repeatable; replaces the file's [[http]] [default: tcp:8080]"""
        if self._check("http", EndpointText.parse, endpoint):
            self.http.append(endpoint)

    def opt_stream(self, endpoint: str) -> None:
        """TCP listener, repeatable; replaces the file's [[stream]] [default: tcp:10000]"""
        if self._check("stream", EndpointText.parse, endpoint):
            self.stream.append(endpoint)

    def opt_admin(self, endpoint: str) -> None:
        """Admin listener [default: tcp:8081:interface=127.0.0.1]"""
        if self._check("admin", EndpointText.parse, endpoint):
            self.admin = endpoint

    def opt_store(self, url: str) -> None:
        """embedded:, memory:, or a redis://, rediss:// or unix:// URL [default: embedded:]"""
        if self._check("store", StoreUrl.parse, url):
            self.store = url

    def opt_state_dir(self, path: str) -> None:
        """Directory for what is kept [default: $STATE_DIRECTORY or ./dynbalance-state]"""
        if path:
            self.state_dir = path
        else:
            self.problems.append("--state-dir: the path is empty")

    def opt_workers(self, number: str) -> None:
        """Processes that share the listeners, 0 for one per core [default: 1]"""
        if self._check("workers", _integer, number):
            self.workers = int(number)

    def opt_demo(self) -> None:
        """Start three small HTTP backends that register themselves"""
        self.demo = True

    def opt_version(self) -> NoReturn:
        """Print the version and exit"""
        print(f"dynbalance {__version__}")
        raise SystemExit(0)

    def _check(self, option: str, parse: Callable[[str], object], text: str) -> bool:
        try:
            parse(text)
        except ValueError as error:
            self.problems.append(f"--{option}: {error}")
            return False
        return True


def _integer(text: str) -> None:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise ValueError(f"expected an integer, got {text!r}")


def load(
    options: Options, environ: Mapping[str, str], read: Callable[[str], bytes]
) -> Config:
    """
    The file, if there is one, with the command line over it.

    @param environ: the process's environment; C{STATE_DIRECTORY} is looked at.
    @param read: gives the contents of a file or raises C{OSError}.
    @raise ConfigError: with all that is wrong with either.
    """
    problems = list(options.problems)
    try:
        document = _document(options.config, read)
        config = build(_overlay(document, options))
    except ConfigError as error:
        raise ConfigError([*problems, *error.problems]) from None
    if problems:
        raise ConfigError(problems)
    return attrs.evolve(
        config, state_dir=options.state_dir or _state_directory(environ), demo=options.demo
    )


def _document(path: str | None, read: Callable[[str], bytes]) -> Document:
    if path is None:
        return {"http": [{}], "stream": [{}]}
    try:
        return read_toml(read(path).decode())
    except OSError as error:
        raise ConfigError([f"--config: {path}: {error.strerror or error}"]) from None
    except UnicodeDecodeError as error:
        raise ConfigError([f"--config: {path}: byte {error.start} is not UTF-8"]) from None
    except ConfigError as error:
        raise ConfigError([f"--config: {path}: {each}" for each in error.problems]) from None


def _overlay(document: Document, options: Options) -> Document:
    laid = dict(document)
    if options.http:
        laid["http"] = [{"listen": endpoint} for endpoint in options.http]
    if options.stream:
        laid["stream"] = [{"listen": endpoint} for endpoint in options.stream]
    if options.workers is not None:
        laid["workers"] = options.workers
    if options.admin is not None:
        _put(laid, "admin", "listen", options.admin)
    if options.store is not None:
        _put(laid, "store", "url", options.store)
    return laid


def _put(document: Document, table: str, option: str, value: str) -> None:
    """Set one option, unless what should be its table is a mistake of the file."""
    existing = document.get(table, {})
    if isinstance(existing, dict):
        document[table] = {**existing, option: value}


def _state_directory(environ: Mapping[str, str]) -> str:
    """systemd may give several directories, joined by colons."""
    return environ.get("STATE_DIRECTORY", "").partition(":")[0] or DEFAULT_STATE_DIR
