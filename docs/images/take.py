"""
Take the pictures of the dashboard anew: C{python docs/images/take.py [DIRECTORY]}
from the root of a checkout, with Chromium, chromedriver, redis-server and a font
that has Chinese.

Starts a daemon, servers and some load on loopback ports, and ends them.
"""

from __future__ import annotations

import http.client
import pathlib
import sys
import threading
import time
import unittest

from tests.endtoend.browser import Browser
from tests.endtoend.daemon import Daemon
from tests.endtoend.harness import LOOPBACK, EndToEndCase, ask, free_port
from tests.endtoend.servers import Backend, Redis

WIDE, PHONE = (1280, 800), (390, 844)
SECONDS = 60
LARGEST = 200_000
PATHS = ("/", "/busy/0.02", "/", "/busy/0.004", "/", "/", "/busy/0.012", "/busy/0.08")


class Pictures(EndToEndCase):
    """One scene after the other, on one stage."""

    directory_of_pictures = pathlib.Path(__file__).parent
    only: tuple[str, ...] = ()

    def take(self) -> None:
        self.redis = Redis(self)
        more = '[upstreams.video]\npolicy = "random_two"\n[upstreams.archive]\n'
        upstream = {"read_timeout": 900}
        self.daemon = Daemon(self, self.redis.url, upstream=upstream, more=more)
        self.browser = Browser(self.directory("browser"))
        self.addCleanup(self.browser.quit)
        self.open()
        self.picture("empty", WIDE)
        self.furnish()
        self.open("#default")
        time.sleep(SECONDS)
        self.picture("light", WIDE)
        self.picture("dark", WIDE, dark=True)
        self.picture("phone", PHONE)
        self.picture("phone-dark", PHONE, dark=True)
        self.dialogs()
        self.browser.click("#language")
        self.picture("chinese", WIDE)
        self.picture("phone-chinese", PHONE)
        self.browser.size(*WIDE)
        self.browser.click("#language")
        self.many()
        self.away()

    def open(self, fragment: str = "") -> None:
        self.browser.driver.get(f"{self.daemon.url}/{fragment}")
        self.browser.one("main")

    def furnish(self) -> None:
        """Four servers, one of them draining, one disabled, one that is silent; and load."""
        self.backends = [Backend(self, f"backend{number}") for number in range(4)]
        for number, backend in enumerate(self.backends):
            limit = (20, 8, 0, 40)[number]
            self.daemon.add(backend.port, heartbeat="false", weight=number + 1, max_conns=limit)
        self.daemon.add(free_port(), heartbeat="false", weight=2, backup="true")
        self.daemon.add(free_port(), weight=2)
        self.daemon.call("update", host=LOOPBACK, port=self.backends[1].port, weight=3)
        self.ending = threading.Event()
        self.threads = [threading.Thread(target=self.ask_on, args=(n,)) for n in range(6)]
        self.addCleanup(self.rest)
        for thread in self.threads:
            thread.start()
        self.hold()
        time.sleep(1)
        port = self.backends[2].port
        drain = {"action": "drain", "deadline": 300, "then": "remove"}
        self.daemon.call("toggle", host=LOOPBACK, port=port, **drain)
        backup = next(addr for addr, server in self.daemon.status().items() if server["backup"])
        self.daemon.call("toggle", host=LOOPBACK, port=backup.rsplit(":", 1)[1], action="disable")

    def hold(self) -> None:
        """Some requests that take their time."""
        for _ in range(9):
            line = http.client.HTTPConnection(LOOPBACK, self.daemon.http, timeout=900)
            line.request("GET", "/held")
            self.addCleanup(line.close)

    def rest(self) -> None:
        self.ending.set()
        for thread in self.threads:
            thread.join(30)

    def ask_on(self, number: int) -> None:
        line = http.client.HTTPConnection(LOOPBACK, self.daemon.http, timeout=30)
        turn = number
        while not self.ending.wait(0.01 + 0.02 * (turn % 7 == 0) + 0.03 * (turn // 40 % 2)):
            turn += 1
            line.request("GET", PATHS[turn % len(PATHS)] if turn % 67 else "/status/503")
            line.getresponse().read()

    def dialogs(self) -> None:
        """What is asked before something is done."""
        self.browser.size(*WIDE)
        address = self.backends[0].address
        row = f'tr[data-addr="{address}"]'
        for name, opening, dialog in (
            ("remove", f"{row} [data-act=remove]", "#remove"),
            ("edit", f"{row} [data-act=edit]", "#edit"),
            ("history", "#history-open", "#history"),
            ("explain", "#explain-open", "#explain"),
            ("add", "#add-open", "#add"),
            ("help", "#help-open", "#help"),
        ):
            self.browser.click(opening)
            if name == "explain":
                self.browser.click("#explain .main")
                self.browser.one("#explained table")
            time.sleep(0.6)
            self.picture(name, WIDE)
            if name in ("history", "explain", "remove"):
                self.picture(f"{name}-phone-dark", PHONE, dark=True)
                self.browser.size(*WIDE)
            self.browser.click(f"{dialog} [data-close]")

    def many(self) -> None:
        for number in range(40):
            beats = "false" if number % 5 else "true"
            server = {"host": f"10.0.{number % 3}.{number + 10}", "port": 8080, "heartbeat": beats}
            self.daemon.call("add", upstream="video", weight=1 + number % 4, **server)
        self.browser.one('[data-upstream="video"]')
        self.browser.click('[data-upstream="video"]')
        self.browser.until(lambda: len(self.browser.all("#servers tbody tr")) == 40, "them all")
        time.sleep(2)
        self.picture("many", WIDE)
        self.browser.click('[data-upstream="default"]')

    def away(self) -> None:
        self.redis.process.stop()
        self.browser.one("#banner")
        time.sleep(6)
        self.picture("away", WIDE)
        self.picture("away-phone", PHONE)

    def picture(self, name: str, size: tuple[int, int], *, dark: bool = False) -> None:
        if self.only and name not in self.only:
            return
        self.browser.prefer(prefers_color_scheme="dark" if dark else "light")
        self.browser.size(*size)
        time.sleep(0.8)
        path = self.directory_of_pictures / f"{name}.png"
        self.browser.driver.save_screenshot(str(path))
        assert path.stat().st_size < LARGEST, f"{path} is too large"
        self.browser.prefer(prefers_color_scheme="light")
        ask(self.daemon.admin, "/healthz")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        Pictures.directory_of_pictures = pathlib.Path(sys.argv[1])
    Pictures.only = tuple(sys.argv[2:])
    outcome = unittest.TextTestRunner().run(Pictures("take"))
    sys.exit(not outcome.wasSuccessful())
