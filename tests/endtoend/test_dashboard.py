"""
The dashboard in a Chromium, at a daemon with a store: each action as a person does
it, and whether everybody can.
"""

from __future__ import annotations

import tempfile
import threading
from typing import Any

from selenium.webdriver.common.keys import Keys

from dynbalance.hashes import hash_password, hash_token
from tests.endtoend.browser import Browser
from tests.endtoend.daemon import Daemon
from tests.endtoend.harness import LOOPBACK, EndToEndCase, ask, free_port, wait_until
from tests.endtoend.servers import Backend, Redis

UNNAMED = """
const name = (node) => (node.getAttribute("aria-label") || node.textContent
  || [...(node.labels || [])].map((label) => label.textContent).join("")).trim();
return [...document.querySelectorAll("button, input, select, textarea, dialog, table")]
  .filter((node) => !name(node) && !document.getElementById(node.getAttribute("aria-labelledby")))
  .map((node) => node.outerHTML);
"""
"""What of use has no name that a screen reader could say."""

FAINT = """
const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
const rgb = (color) => {
  canvas.clearRect(0, 0, 1, 1);
  canvas.fillStyle = color;
  canvas.fillRect(0, 0, 1, 1);
  return [...canvas.getImageData(0, 0, 1, 1).data];
};
const light = ([red, green, blue]) => [red, green, blue].map((part) => part / 255)
  .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
  .reduce((sum, part, index) => sum + part * [0.2126, 0.7152, 0.0722][index], 0);
const ground = (node) => {
  for (let at = node; at; at = at.parentElement) {
    const color = rgb(getComputedStyle(at).backgroundColor);
    if (color[3] === 255) return color;
  }
  return [255, 255, 255];
};
const told = [];
for (const node of document.querySelectorAll("body *")) {
  const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
  if (!own || !node.checkVisibility() || node.disabled || node.closest("noscript")) continue;
  const [a, b] = [light(rgb(getComputedStyle(node).color)), light(ground(node))];
  const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  if (contrast < 4.5) told.push(`${contrast.toFixed(2)} ${node.outerHTML.slice(0, 120)}`);
}
return told;
"""
"""Texts with less contrast than WCAG 2.2, 1.4.3, asks for."""

MOVED = """
const shifts = [];
new PerformanceObserver((list) => shifts.push(...list.getEntries()))
  .observe({ type: "layout-shift", buffered: true });
const since = arguments[0];
const sum = () => shifts.filter((one) => one.startTime > since)
  .reduce((all, one) => all + one.value, 0);
return new Promise((resolve) => setTimeout(() => resolve(sum()), 100));
"""
"""How much of the page has changed its place without being asked (Layout Instability)."""

ARITHMETIC = """
return import("./dashboard/model.js").then(({ errorShare, Model, sparkline }) => {
  const sample = (rate, picks, errors) => ({ rate, picks, errors });
  const model = new Model("default");
  const server = (addr, weight, state = "up") => ({ addr, weight, state, connections: 0 });
  const data = [server("a", 3), server("b", 1), server("c", 9, "disabled")];
  model.takeStatus({ code: 200, data, etag: '"7"' }, 0);
  return {
    nothing: errorShare([]), none: errorShare([sample(4, 4, 0)]),
    half: errorShare([sample(2, 2, 1), sample(2, 2, 1)]), only: errorShare([sample(0, 0, 3)]),
    line: sparkline([sample(0, 0, 0), sample(5, 5, 0)], 5), dot: sparkline([sample(1, 1, 0)], 1),
    share: model.weightShare("a", 3),
  };
});
"""

_HOLDERS = """
[[admin.tokens]]
name = "reader"
token_hash = "{}"
role = "read"
[[admin.users]]
name = "运维"
password_hash = "{}"
role = "admin"
"""


class DashboardTests(EndToEndCase):
    """One browser for all; each test has a daemon of its own."""

    browser: Browser

    @classmethod
    def setUpClass(cls) -> None:
        cls.kept = tempfile.TemporaryDirectory(prefix="dynbalance-browser-")
        cls.browser = Browser(cls.kept.name)

    @classmethod
    def tearDownClass(cls) -> None:
        cls.browser.quit()
        cls.kept.cleanup()

    def begin(self, **options: Any) -> None:
        self.redis = Redis(self)
        self.daemon = Daemon(self, self.redis.url, **options)
        self.browser.size(1280, 800)
        self.browser.prefer(prefers_color_scheme="light")
        self.browser.complaints()
        self.browser.driver.get(f"{self.daemon.url}/")

    def add(self, **fields: str | int) -> str:
        """@return: the address of a server that is not there but in the store."""
        port = free_port()
        self.daemon.add(port, **{"heartbeat": "false", **fields})
        return f"{LOOPBACK}:{port}"

    @staticmethod
    def row(address: str) -> str:
        return f'tr[data-addr="{address}"]'

    def is_so(self, address: str, state: str) -> None:
        """The page says so without being asked anew."""
        self.browser.one(f'{self.row(address)} [data-state="{state}"]')

    def act(self, address: str, act: str) -> None:
        self.browser.click(f"{self.row(address)} [data-act={act}]")

    def history_of(self) -> list[str]:
        answer = ask(self.daemon.admin, "/upstream/history").json
        return [line["action"] for line in answer["data"]]

    def test_servers(self) -> None:
        """Add, edit, disable, enable, drain, remove, undo, recount: each is done and seen."""
        self.begin(heartbeat={"ttl": 1.0, "cleanup_interval": 0.2})
        browser = self.browser
        # From nothing, which is told as such.
        browser.click("#empty-add")
        port = free_port()
        one = f"{LOOPBACK}:{port}"
        browser.fill("#add [name=host]", LOOPBACK)
        browser.fill("#add [name=port]", str(port))
        browser.fill("#add [name=max_conns]", "7")
        browser.click("#add .main")
        browser.gone("#add")
        self.is_so(one, "up")
        browser.gone("#empty")
        self.assertEqual((7, 1), self.ordered(one))
        # What is there already is refused where it was asked for.
        browser.click("#add-open")
        browser.fill("#add [name=host]", LOOPBACK)
        browser.fill("#add [name=port]", str(port))
        browser.click("#add .main")
        browser.reads("#add .wrong", "already exists")
        browser.press(Keys.ESCAPE)
        browser.gone("#add")

        two = self.add(weight=3)
        self.is_so(two, "up")
        self.act(one, "edit")
        browser.fill("#edit [name=weight]", "9")
        browser.reads("#edit-share", "75%")
        browser.click("#edit .main")
        browser.gone("#edit")
        browser.reads(f'{self.row(one)} [data-label="Weight"]', "9")
        self.assertEqual((7, 9), self.ordered(one))

        self.act(one, "disable")
        self.is_so(one, "disabled")
        browser.click(".toast button")
        self.is_so(one, "up")

        self.act(one, "remove")
        browser.reads("#remove-left", "1 usable would be left of 1")
        browser.reads("#remove-list", two)
        browser.click("#remove .danger")
        browser.gone(self.row(one))
        self.act(two, "remove")
        browser.reads("#remove-left", "No usable server would be left")
        browser.click("#remove [data-close]")
        self.assertEqual([two], list(self.daemon.status()))

        browser.click("#history-open")
        browser.reads("#lines", "remove")
        browser.click("#undo-last")
        browser.reads("#rollback-list", f"{one} comes back")
        self.assertNotIn("rollback", self.history_of())
        browser.click("#rollback .danger")
        browser.gone("#rollback")
        browser.reads("#lines", "rollback")
        browser.click("#history [data-close]")
        self.is_so(one, "up")
        self.assertEqual((7, 9), self.ordered(one))

        browser.click("#reset-open")
        browser.click("#reset .main")
        browser.gone("#reset")
        browser.reads("#toasts", "counted anew")

        # What was only observed is not what was changed last.
        silent = self.add(heartbeat="true")
        self.is_so(silent, "expired")
        browser.click("#history-open")
        browser.reads("#lines", "expire")
        browser.click("#undo-last")
        browser.reads("#rollback-list", f"{silent} goes")
        browser.press(Keys.ESCAPE)
        browser.gone("#rollback")
        self.assertEqual([], browser.complaints())

    def reckons(self) -> None:
        """What is made of figures: shares and lines, also of nothing."""
        told = self.browser.run(ARITHMETIC)
        self.assertEqual(
            {
                "nothing": None,
                "none": 0,
                "half": 0.5,
                "only": 1,
                "line": "M59.0 15.0L60.0 1.0",
                "dot": "",
                "share": 0.75,
            },
            {name: round(n, 6) if isinstance(n, float) else n for name, n in told.items()},
        )

    def ordered(self, address: str) -> tuple[int, int]:
        server = self.daemon.status()[address]
        return server["max_conns"], server["weight"]

    def test_traffic(self) -> None:
        """Figures move by themselves; a drain shows what is left; why is told."""
        self.begin(heartbeat={"cleanup_interval": 0.5})
        browser, backend = self.browser, Backend(self)
        self.daemon.add(backend.port, heartbeat="false")
        address = backend.address
        self.is_so(address, "up")
        holding = threading.Thread(target=ask, args=(self.daemon.http, "/held"))
        holding.start()
        self.addCleanup(holding.join, 10)
        browser.reads(f"{self.row(address)} .conns", "1 of 1,000")
        browser.reads("#t-connections", "1")

        settled = browser.run("return performance.now()")

        def shows_times() -> bool:
            for _ in range(5):
                ask(self.daemon.http)
            return " ms" in browser.one(f"{self.row(address)} .times").text

        browser.until(shows_times, "the latency")
        browser.until(
            lambda: browser.one(f"{self.row(address)} .spark path").get_attribute("d"), "a line"
        )
        self.assertEqual("0%", browser.one("#t-errors").text)
        self.assertLess(browser.run(MOVED, settled), 0.01)

        browser.click("#explain-open")
        browser.fill("#explain [name=header]", "X-One: 1\nX-Two: 2")
        browser.click("#explain .main")
        browser.reads("#explained", f"{address} would be chosen")
        browser.press(Keys.ESCAPE)

        self.act(address, "toggle")
        browser.fill("#drain [name=deadline]", "90")
        browser.click("#drain .main")
        self.is_so(address, "draining")
        browser.reads(f"{self.row(address)} .state", "1 left")
        ask(backend.port, "/release")
        self.is_so(address, "disabled")
        self.act(address, "toggle")
        self.is_so(address, "up")
        self.reckons()
        self.assertEqual([], browser.complaints())

    def test_away(self) -> None:
        """What was known last stays, changes have to wait, and all comes back by itself."""
        fixed = f"{LOOPBACK}:{free_port()}"
        self.begin(servers=f'[{{ address = "{fixed}" }}]')
        # What the file says is shown, and not to be changed here.
        self.browser.reads(f"{self.row(fixed)} .acts", "from the file")
        self.assertEqual([], self.browser.all(f"{self.row(fixed)} button"))
        address = self.add()
        self.is_so(address, "up")
        self.redis.process.stop()
        self.browser.reads("#banner", "The store is away")
        self.is_so(address, "up")
        for button in self.browser.all(f"{self.row(address)} button, #add-open"):
            self.assertFalse(button.is_enabled())
        self.redis.start()
        self.browser.gone("#banner")
        self.act(address, "disable")
        self.is_so(address, "disabled")
        self.daemon.process.stop()
        self.browser.reads("#banner", "does not answer")
        self.browser.reads("#pulse", "no answer")
        self.daemon.start()
        self.browser.gone("#banner")
        self.browser.reads("#pulse", "live")
        self.is_so(address, "disabled")

    def test_everybody(self) -> None:
        """By keys alone, in Chinese, on a phone, in the dark: named, legible, within the page."""
        self.begin(more="[upstreams.other]\n")
        browser = self.browser
        first, second = sorted([self.add(), self.add(backup="true")])
        self.daemon.call("toggle", host=LOOPBACK, port=second.rsplit(":", 1)[1], action="disable")
        self.is_so(second, "disabled")
        browser.press(Keys.ARROW_DOWN, Keys.ARROW_DOWN)
        self.assertEqual(second, browser.run("return document.activeElement.dataset.addr"))
        self.assertNotEqual(
            "none", browser.run("return getComputedStyle(document.activeElement).outlineStyle")
        )
        # One stop for all rows: from the table on, tab leaves after the row's buttons.
        reached = browser.run(
            "return new Set([...document.querySelectorAll('#servers [tabindex=\"0\"]')]"
            ".map((node) => node.closest('tr').dataset.addr)).size"
        )
        self.assertEqual(1, reached)
        browser.press("x")
        self.is_so(second, "up")
        browser.press("e")
        browser.one("#edit")
        browser.press(Keys.ESCAPE)
        browser.gone("#edit")
        self.assertEqual(second, browser.run("return document.activeElement.dataset.addr"))
        browser.press(Keys.DELETE)
        browser.one("#remove")
        # Enter at once changes nothing: the safe one has the focus.
        browser.press(Keys.ENTER)
        browser.gone("#remove")
        self.assertIn(second, self.daemon.status())
        browser.press("?")
        browser.one("#help")
        browser.press(Keys.ESCAPE)
        browser.press("/", *first)
        browser.gone(self.row(second))
        browser.reads("#found", "1 of 2")
        browser.press(Keys.ESCAPE)
        browser.one(self.row(second))
        browser.press("]")
        browser.reads("#name", "other")
        browser.press("[")
        browser.reads("#name", "default")

        browser.click("#language")
        browser.reads("#add-open", "添加服务器")
        self.assertEqual("zh-CN", browser.run("return document.documentElement.lang"))
        browser.driver.refresh()
        browser.reads("#add-open", "添加服务器")
        self.is_so(first, "up")
        self.assertEqual([], browser.run(UNNAMED))
        for scheme in ("light", "dark"):
            browser.prefer(prefers_color_scheme=scheme)
            self.assertEqual([], browser.run(FAINT), scheme)
            for dialog in ("#add", "#history", "#explain"):
                browser.click(f"{dialog}-open")
                self.assertEqual([], browser.run(FAINT), (scheme, dialog))
                browser.press(Keys.ESCAPE)
                browser.gone(dialog)
        for width in (1280, 768, 390, 320):
            browser.size(width, 800)
            self.assertLessEqual(browser.run("return document.documentElement.scrollWidth"), width)
        browser.click("#language")
        browser.reads("#add-open", "Add server")
        self.assertEqual([], browser.complaints())

    def test_sign_in(self) -> None:
        """People sign in by a token or a password; nothing is seen before, nor kept after."""
        token = "a-token-of-a-reader"
        self.begin(more=_HOLDERS.format(hash_token(token), hash_password("密码 1")))
        browser = self.browser
        browser.one("#login")
        self.assertEqual([], browser.all("main"))
        browser.press(Keys.ESCAPE)
        browser.reads("#banner", "asks who you are")
        browser.click("#sign-in")
        browser.fill("#login [name=token]", "wrong")
        browser.click("#login .main")
        browser.reads("#login .wrong", "wrong")
        browser.fill("#login [name=token]", token)
        browser.click("#login .main")
        browser.one("#empty")
        browser.reads("#pulse", "live")
        # A reader may not add, and is told so.
        browser.click("#add-open")
        browser.fill("#add [name=host]", LOOPBACK)
        browser.fill("#add [name=port]", "9001")
        browser.click("#add .main")
        browser.reads("#add .wrong", "needs the role")
        browser.press(Keys.ESCAPE)

        browser.click("#sign-out")
        browser.one("#login")
        browser.fill("#login [name=name]", "运维")
        browser.fill("#login [name=password]", "密码 1")
        browser.click("#login .main")
        browser.click("#empty-add")
        browser.fill("#add [name=host]", LOOPBACK)
        browser.fill("#add [name=port]", "9001")
        browser.click("#add .main")
        self.is_so(f"{LOOPBACK}:9001", "up")
        self.assertEqual(0, browser.run("return document.cookie.length"))
        self.assertNotIn("authorization", browser.run("return Object.keys(localStorage).join()"))
        browser.click("#sign-out")
        browser.one("#login")
        wait_until(lambda: not browser.all("main"), "the servers to be gone")
