"""A headless Chromium of Debian's, steered by its own driver."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from selenium import webdriver
from selenium.common.exceptions import (
    JavascriptException,
    NoSuchElementException,
    StaleElementReferenceException,
    TimeoutException,
)
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from tests.conftest import PATIENCE

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
needs_browser = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None,
    reason="no browser: apt-get install chromium chromium-driver",
)
NAME = "scores.example"  # of this machine, for the browser
ARGUMENTS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
             "--no-first-run", "--disable-background-networking",
             f"--host-resolver-rules=MAP {NAME} 127.0.0.1")  # fmt: skip
# what comes of reading while the browser goes from one page to the next
IN_BETWEEN = (JavascriptException, NoSuchElementException, StaleElementReferenceException)


@contextmanager
def chromium() -> Iterator[webdriver.Chrome]:
    """A browser with nothing in its memory."""
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for argument in ARGUMENTS:
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    try:
        yield driver
    finally:
        driver.quit()


def look_at(driver: webdriver.Chrome, width: int, scheme: str = "light") -> None:
    """A screen of this width, in a colour scheme."""
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600},
    )
    wanted = [{"name": "prefers-color-scheme", "value": scheme}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": wanted})


def until(
    driver: webdriver.Chrome, holds: Callable[[webdriver.Chrome], Any], seconds: float = PATIENCE
) -> Any:
    """What ``holds`` gives once it is true; a page that is not there yet is asked again."""
    return WebDriverWait(driver, seconds, 0.05, IN_BETWEEN).until(holds)


def shows(driver: webdriver.Chrome, place: str, words: str, seconds: float = PATIENCE) -> None:
    """Wait until ``words`` stand at ``place``: a click ends before the page that it asks for."""
    try:
        until(driver, lambda d: words in d.find_element(By.CSS_SELECTOR, place).text, seconds)
    except TimeoutException:
        raise AssertionError(f"no {words!r} at {place} of:\n{driver.page_source}") from None


def click(driver: webdriver.Chrome, place: str, seconds: float = PATIENCE) -> None:
    """Click what stands at ``place``, once it is there."""
    until(driver, lambda d: d.find_element(By.CSS_SELECTOR, place).click() or True, seconds)


def fill(driver: webdriver.Chrome, place: str, *keys: str) -> None:
    """Type into the field at ``place``, once it is there."""
    until(driver, lambda d: d.find_element(By.CSS_SELECTOR, place).send_keys(*keys) or True)
