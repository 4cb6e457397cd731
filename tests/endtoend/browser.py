"""
A Chromium without a window, led by selenium.

Knows how it is started, waited for and ended; refuses to know the page.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException, WebDriverException
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from tests.endtoend.harness import program, wait_until

T = TypeVar("T")


class Browser:
    """
    @ivar driver: selenium's.
    """

    def __init__(self, directory: str, languages: str = "en-US") -> None:
        """
        @param directory: for what it keeps.
        @param languages: that its person prefers.
        """
        options = webdriver.ChromeOptions()
        options.binary_location = program("chromium")
        options.add_argument("--headless=new")
        options.add_argument(f"--user-data-dir={os.path.join(directory, 'profile')}")
        options.add_argument(f"--accept-lang={languages}")
        for flag in (
            "no-first-run",
            "disable-gpu",
            "disable-dev-shm-usage",
            "disable-extensions",
            "disable-background-networking",
            "hide-scrollbars",
        ):
            options.add_argument(f"--{flag}")
        if os.geteuid() == 0:
            # Its sandbox is not for the superuser.
            options.add_argument("--no-sandbox")
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        log = os.path.join(directory, "driver.log")
        service = webdriver.ChromeService(executable_path=program("chromedriver"), log_output=log)
        self.driver = webdriver.Chrome(options=options, service=service)
        self.driver.set_page_load_timeout(20)
        self.driver.set_script_timeout(20)

    def quit(self) -> None:
        """End it, and its driver."""
        self.driver.quit()

    def size(self, width: int, height: int) -> None:
        """Of the page, in CSS pixels."""
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600},
        )

    def prefer(self, **features: str) -> None:
        """What its person prefers: C{prefers_color_scheme="dark"}."""
        told = [{"name": k.replace("_", "-"), "value": v} for k, v in features.items()]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": told})

    def complaints(self) -> list[str]:
        """What the console was told since it was asked last: no refusals of the API, no advice."""
        told = [
            line["message"]
            for line in self.driver.get_log("browser")
            if line["level"] in ("WARNING", "SEVERE")
        ]
        return [line for line in told if "Failed to load resource" not in line]

    def run(self, script: str, *given: Any) -> Any:
        """A script's answer."""
        return self.driver.execute_script(script, *given)

    def all(self, selector: str) -> list[WebElement]:
        """What is there and is seen."""
        found = self.driver.find_elements(By.CSS_SELECTOR, selector)
        return [each for each in found if each.is_displayed()]

    def until(self, ready: Callable[[], T], what: str) -> T:
        """Wait; what is replaced meanwhile is looked for anew."""

        def looked() -> T | None:
            try:
                return ready()
            except (StaleElementReferenceException, IndexError):
                return None
            except WebDriverException as error:
                raise AssertionError(f"{what}: {error.msg}") from None

        found = wait_until(looked, what)
        assert found is not None
        return found

    def one(self, selector: str) -> WebElement:
        """What is seen there, as soon as it is."""
        return self.until(lambda: self.all(selector)[0], f"{selector} to be seen")

    def gone(self, selector: str) -> None:
        """Wait until nothing of it is seen."""
        self.until(lambda: not self.all(selector), f"{selector} to go")

    def reads(self, selector: str, text: str) -> None:
        """Wait until it says something."""
        self.until(lambda: text in self.one(selector).text, f"{selector} to say {text!r}")

    def click(self, selector: str) -> None:
        self.until(lambda: self.one(selector).is_enabled(), f"{selector} to be of use")
        self.one(selector).click()

    def fill(self, selector: str, text: str) -> None:
        """Put a text where another one may be."""
        field = self.one(selector)
        field.clear()
        field.send_keys(text)

    def press(self, *keys: str) -> None:
        """Keys, wherever the focus is."""
        for key in keys:
            self.driver.switch_to.active_element.send_keys(key)
