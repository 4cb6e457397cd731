"""Reading the configuration again: what follows what, and what needs a restart."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from dynbalance.accesslog import LogFiles
from dynbalance.change import needing_restart
from dynbalance.config import AdminConfig, Config, StoreConfig, StoreUrl, UpstreamConfig
from dynbalance.errors import ConfigError
from dynbalance.materials import Materials
from dynbalance.reloads import Reloads


class ChangeTests(SynchronousTestCase):
    """Which changes a running node can follow."""

    def needing(self, after: Config, before: Config | None = None) -> list[str]:
        lines = needing_restart(before or Config(), after)
        paths = [line.partition(":")[0] for line in lines]
        self.assertEqual([f"{path}: needs a restart to change" for path in paths], lines)
        return paths

    def test_lasting(self) -> None:
        """What a node is built on needs a restart, each option by its name."""
        url = StoreUrl.parse("redis://:secret@10.0.0.1")
        after = Config(node="a", workers=2, store=StoreConfig(url=url, prefix="x"))
        self.assertEqual(["workers", "node", "store.url", "store.prefix"], self.needing(after))
        self.assertNotIn("secret", str(needing_restart(Config(), after)))

    def test_other(self) -> None:
        """Anything else does not."""
        after = Config(
            shutdown_timeout=1.0,
            log_level="debug",
            http=(),
            stream=(),
            upstreams={"new": UpstreamConfig(), "default": UpstreamConfig(policy="hash")},
            admin=AdminConfig(listen="tcp:1:interface=127.0.0.1"),
        )
        self.assertEqual([], self.needing(after))
        self.assertEqual(
            ["admin.listen"], self.needing(evolve(after, demo=True), Config(demo=True))
        )


class Node:
    """Follows when a test says so."""

    def __init__(self) -> None:
        self.ending = False
        self.followed: list[Config] = []
        self.waits: list[Deferred[None]] = []

    async def reload(self, read: Callable[[], Config]) -> None:
        config = read()
        wait: Deferred[None] = Deferred()
        self.waits.append(wait)
        await wait
        self.followed.append(config)

    def reopen_logs(self) -> None:
        """Not asked here."""


class ReloadsTests(SynchronousTestCase):
    """One after the other."""

    def setUp(self) -> None:
        self.node = Node()
        self.configs = [Config(shutdown_timeout=float(number)) for number in range(5)]
        self.read = 0
        self.reloads = Reloads(self.node, self.next)

    def next(self) -> Config:
        self.read += 1
        return self.configs[self.read - 1]

    def test_while_one_is_under_way(self) -> None:
        """Whoever asks meanwhile, however often, has the file read once more."""
        for _ in range(3):
            self.reloads.ask()
        self.assertEqual(1, self.read)
        self.node.waits[0].callback(None)
        self.assertEqual(2, self.read)
        self.node.waits[1].callback(None)
        self.assertEqual(self.configs[:2], self.node.followed)
        self.assertEqual(2, self.read)

    def test_mistakes(self) -> None:
        """Each has its line, and the next reload is made all the same."""
        with capturedLogs() as logs:
            self.reloads.ask()
            self.node.waits[0].errback(ConfigError(["a: wrong", "b: worse"]))
        told = [event["log_format"].format(**event) for event in logs]
        self.assertEqual(["a: wrong", "b: worse"], told[:2])
        self.assertIn("nothing has changed", told[2])
        self.reloads.ask()
        self.assertEqual(2, self.read)

    def test_own_mistake(self) -> None:
        """A mistake of ours is logged, and the next reload is made all the same."""
        self.reloads.ask()
        self.node.waits[0].errback(ZeroDivisionError("ours"))
        self.assertEqual(1, len(self.flushLoggedErrors(ZeroDivisionError)))
        self.reloads.ask()
        self.assertEqual(2, self.read)


class MaterialsTests(SynchronousTestCase):
    """What a configuration needs from outside."""

    def setUp(self) -> None:
        self.directory = tempfile.mkdtemp(prefix="dynbalance-materials-")
        self.addCleanup(shutil.rmtree, self.directory)
        self.logs = LogFiles()

    def test_all_mistakes(self) -> None:
        """Everything that cannot be had is named at once."""
        config = Config(
            upstreams={"u": UpstreamConfig(balancer="no.such:hook", request_buffering=True)},
            state_dir=os.path.join(__file__, "state"),
        )
        http = evolve(config.http[0], access_log=os.path.join(self.directory, "no", "log"))
        with self.assertRaises(ConfigError) as caught:
            Materials.gather(evolve(config, http=(http,)), self.logs)
        paths = [problem.partition(":")[0] for problem in caught.exception.problems]
        self.assertEqual(
            ["upstreams.u.balancer", "http[0].access_log", f"{config.state_dir}/spool"], paths
        )

    def test_logs(self) -> None:
        """Listeners with one log have one file, which is opened anew and closed in the end."""
        path = os.path.join(self.directory, "access.log")
        listener = evolve(Config().http[0], access_log=path)
        config = Config(http=(listener, evolve(listener, listen="tcp:1")))
        materials = Materials.gather(config, self.logs)
        self.assertEqual([path], list(materials.logs))
        materials.logs[path].write("1")
        materials.logs[path].flush()
        os.rename(path, f"{path}.1")
        again = Materials.gather(config, self.logs, (config, materials))
        self.assertIs(materials.logs[path], again.logs[path])
        again.logs[path].write("2")
        again.logs[path].flush()
        with open(path) as new, open(f"{path}.1") as old:
            self.assertEqual(("1", "2"), (old.read(), new.read()))
        shutil.rmtree(self.directory)
        self.assertEqual([f"{path}: No such file or directory"], self.logs.reopen())
        os.makedirs(self.directory)
        del materials, again
        self.assertEqual([], self.logs.reopen())
        self.assertEqual([], os.listdir(self.directory))
