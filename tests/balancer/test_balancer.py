"""The one object that holds all upstreams, and the rule that nothing here acts."""

from __future__ import annotations

import ast
from pathlib import Path
from random import Random

from twisted.trial.unittest import TestCase

import dynbalance.balancer
from dynbalance.balancer.balancer import Balancer, UpstreamOrder
from dynbalance.balancer.options import UpstreamOptions
from dynbalance.balancer.upstream import FileServer
from dynbalance.errors import UnknownUpstream
from tests.balancer.building import letters, order, snapshot


def balancer() -> Balancer:
    """Two upstreams, one with a server of the file."""
    return Balancer(
        [
            UpstreamOrder(name="default"),
            UpstreamOrder(
                name="api", policy="round_robin", servers=(FileServer(order=order("f")),)
            ),
        ],
        lambda: 0.0,
        Random(1).random,
    )


class BalancerTests(TestCase):
    """Upstreams by name."""

    def test_upstreams(self) -> None:
        """Each order is an upstream, found by name and in order."""
        made = balancer()
        self.assertEqual([upstream.name for upstream in made], ["default", "api"])
        self.assertEqual(made.upstream("api").policy, "round_robin")
        self.assertIs(made.upstream("api"), made.upstreams["api"])
        self.assertEqual(repr(made), "<Balancer default api>")

    def test_options(self) -> None:
        """An order's options reach its upstream; without any the defaults hold."""
        order_ = UpstreamOrder(
            name="api", policy="hash", options=UpstreamOptions(retry_budget=0.5, queue=1)
        )
        made = Balancer([order_, UpstreamOrder(name="web")], lambda: 0.0, Random(1).random)
        self.assertEqual(made.upstream("api").budget.share, 0.5)
        self.assertEqual(made.upstream("web").budget.share, 0.2)
        self.assertEqual(
            [made.upstream(name).wants_key for name in ("api", "web")], [True, False]
        )

    def test_unknown(self) -> None:
        """A name that is none is an error that tells it."""
        error = self.assertRaises(UnknownUpstream, balancer().upstream, "web")
        self.assertEqual((str(error), error.name), ("Unknown upstream: web", "web"))

    def test_apart(self) -> None:
        """The servers of one upstream are not those of another."""
        made = balancer()
        made.upstream("default").apply(snapshot(order("a")))
        self.assertEqual(letters(made.upstream("default"), 2), "aa")
        self.assertEqual(letters(made.upstream("api"), 2), "ff")


class PurityTests(TestCase):
    """Time, chance and the world come in from outside."""

    def test_imports(self) -> None:
        """
        No module of the package imports a clock, chance or a transport; nor
        Twisted, but what a hook that awaits, and is logged when it raises,
        is made of.
        """
        allowed = {
            "__future__", "attrs", "bisect", "collections", "dynbalance", "enum", "functools",
            "hashlib", "heapq", "ipaddress", "itertools", "math", "re", "sys", "types", "typing",
            "zlib",
        }  # fmt: skip
        awaiting = {
            "dynbalance.log", "twisted.internet.defer", "twisted.logger", "twisted.python.failure",
        }  # fmt: skip
        of_hooks = allowed | {"importlib", "inspect"}
        seams = (
            "dynbalance.balancer",
            "dynbalance.errors",
            "dynbalance.store.contract",
            "dynbalance.store.reports",
        )
        files = list(Path(dynbalance.balancer.__file__).parent.glob("*.py"))
        self.assertGreater(len(files), 5)
        for file in files:
            for node in ast.walk(ast.parse(file.read_text())):
                names = []
                if isinstance(node, ast.Import):
                    names = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom):
                    names = [node.module or ""]
                hook = file.name.startswith("hook")
                for name in names:
                    if hook and name in awaiting:
                        continue
                    self.assertIn(name.split(".")[0], of_hooks if hook else allowed, file.name)
                    if name.startswith("dynbalance"):
                        self.assertTrue(name.startswith(seams), f"{file.name}: {name}")
