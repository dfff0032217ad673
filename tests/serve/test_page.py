"""The status page in a browser: fresh by itself, steered by keyboard, whole without script."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import cast

import pytest
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

import selfheal_cli
from selfheal_cli.serve.operator.status import HEALER
from selfheal_cli.serve.settings import Tokens
from selfheal_cli.spool.control import ControlChannel
from tests.serve.browser import click, fill, look_at, needs_browser, shows, until
from tests.serve.operating import (
    ANSWERS,
    BETTER,
    DIGEST,
    REFUSED,
    WORSE,
    Healer,
    channel_with,
    operator_app,
    serving,
)

pytestmark = needs_browser
TOKENS = Tokens.of(scoring="score", operating="0perate")
Chrome = webdriver.Chrome


@pytest.fixture
def driver(browser: Chrome) -> Iterator[Chrome]:
    """The browser; whatever a test does, the page complains of nothing."""
    browser.get_log("browser")
    yield browser
    told = [one for one in browser.get_log("browser") if "Failed to load" not in one["message"]]
    assert told == []


@pytest.fixture
def channel(tmp_path: Path) -> Iterator[ControlChannel]:
    new_board = channel_with(tmp_path, WORSE)
    yield new_board
    new_board.close()


def text(driver: Chrome, place: str) -> str:
    """At one moment: the page may renew a part between two calls of the driver."""
    words: str = driver.execute_script(
        "return document.querySelector(arguments[0]).innerText", place
    )
    return words


def unlock(driver: Chrome, token: str) -> None:
    fill(driver, "#look-token", token, Keys.ENTER)
    until(driver, lambda d: d.find_elements(By.ID, "now"))


def press(driver: Chrome, keys: str) -> None:
    """To whatever has the focus."""
    ActionChains(driver).send_keys(keys).perform()


def focused(driver: Chrome) -> dict[str, str]:
    """What has the focus: its id, its words and its outline, at one moment."""
    return cast("dict[str, str]", driver.execute_script(FOCUSED))


FOCUSED = """
const here = document.activeElement;
return {id: here.id, words: here.innerText, outline: getComputedStyle(here).outlineStyle};
"""


def tab_to(driver: Chrome, **wanted: str) -> None:
    """Go on by Tab until the focus is there; each stop shows that it has the focus."""
    for _ in range(60):
        press(driver, Keys.TAB)
        here = focused(driver)
        assert here["outline"] != "none"
        if here.items() >= wanted.items():
            return
    raise AssertionError("not reached by keyboard")


def test_it_says_that_healing_makes_it_worse_and_on_how_many_rows(
    driver: Chrome, channel: ControlChannel
) -> None:
    with serving(operator_app(channel)) as url:
        driver.get(url)
        now = text(driver, "#now")
        assert "Healing makes it worse: F1 0.402 against 0.517 without it" in now
        assert "On 18,040 labelled rows" in now
        assert "ROLLED BACK" in now
        assert "-0.115 worse" in text(driver, "#against")
        assert "V14 is 2.31 training standard deviations away: it drifts" in text(driver, "#drift")
        assert "worse on 180 held-out rows" in text(driver, "#happened")
        assert "v12 serves since 2026-11-25 21:57:02 UTC" in text(driver, "#versions")


def test_it_is_fresh_by_itself_and_says_when_it_is_not(
    driver: Chrome, channel: ControlChannel
) -> None:
    with serving(operator_app(channel)) as url:
        driver.get(url)
        until(driver, lambda d: text(d, "#fresh") == "Updates by itself.")
        driver.execute_script("document.getElementById('plan-9').focus()")
        candidates = tuple(one for one in BETTER.candidates if one.version != 1)
        channel.set_status(HEALER, BETTER.model_copy(update={"candidates": candidates}).as_status())
        shows(driver, "#now", "Healing helps")
        assert not driver.find_elements(By.ID, "plan-1")
        assert focused(driver)["id"] == "plan-9"
    shows(driver, "#fresh", "No answer from the server since")
    assert "Healing helps" in text(driver, "#now")


def test_a_button_that_is_held_down_while_the_page_renews_itself_is_pressed_all_the_same(
    driver: Chrome, channel: ControlChannel
) -> None:
    with Healer(channel, ANSWERS), serving(operator_app(channel)) as url:
        driver.get(url)
        until(driver, lambda d: text(d, "#fresh") == "Updates by itself.")
        ActionChains(driver).click_and_hold(driver.find_element(By.ID, "plan-9")).perform()
        candidates = tuple(one for one in BETTER.candidates if one.version != 1)
        channel.set_status(HEALER, BETTER.model_copy(update={"candidates": candidates}).as_status())
        shows(driver, "#now", "Healing helps")
        ActionChains(driver).release().perform()
        shows(driver, "#said", "The plan: nothing has moved yet")
        until(driver, lambda d: not d.find_elements(By.ID, "plan-1"))


def test_a_rollback_goes_by_keyboard_alone_with_its_plan_first(
    driver: Chrome, channel: ControlChannel
) -> None:
    with Healer(channel, ANSWERS) as healer, serving(operator_app(channel, TOKENS)) as url:
        driver.get(url)
        tab_to(driver, id="look-token")
        press(driver, "score" + Keys.ENTER)
        until(driver, lambda d: d.find_elements(By.ID, "now"))
        tab_to(driver, id="token")
        press(driver, "0perate")
        tab_to(driver, id="actor")
        press(driver, "ann")
        tab_to(driver, words="Plan rollback to best")
        press(driver, Keys.ENTER)
        shows(driver, "#said", "The plan: nothing has moved yet")
        assert focused(driver)["id"] == "said"
        assert "would serve: v9, F1 0.584 on 700 rows" in text(driver, "#said")
        assert [kind for kind, _ in healer.orders] == ["plan"]
        tab_to(driver, id="confirm-reason")
        press(driver, "worse")
        tab_to(driver, words="Carry it out")
        press(driver, Keys.ENTER)
        shows(driver, "#said", "Rolled back: v9 is the champion")
        assert driver.current_url == f"{url}/"
        assert driver.get_cookies() == []
        assert not driver.find_element(By.ID, "token").is_displayed()
        click(driver, "#forget")
        assert driver.find_element(By.ID, "token").is_displayed()
        assert driver.execute_script("return sessionStorage.length") == 0
    assert healer.orders[1:] == [
        ("rollback", {"to": "best", "digest": DIGEST, "actor": "ann (claimed)", "reason": "worse"})
    ]


def test_a_wrong_token_is_told_and_not_kept(driver: Chrome, channel: ControlChannel) -> None:
    with serving(operator_app(channel, TOKENS)) as url:
        driver.get(url)
        unlock(driver, "score")
        fill(driver, "#token", "guess")
        click(driver, "#plan-9")
        shows(driver, "#said", "the operating token is needed")
        until(driver, lambda d: d.find_element(By.ID, "token").is_displayed())
        assert driver.execute_script("return Object.values(sessionStorage)") == ["score"]


def test_what_was_overtaken_is_told(driver: Chrome, channel: ControlChannel) -> None:
    answers = ANSWERS | {"rollback": REFUSED}
    with Healer(channel, answers), serving(operator_app(channel)) as url:
        driver.get(url)
        click(driver, "#plan-1")
        until(driver, lambda d: d.find_elements(By.ID, "confirm"))
        click(driver, "#confirm .strong")
        shows(driver, "#said", "Nothing was changed: the champion was moved")


def test_a_locked_page_opens_with_the_token(driver: Chrome, channel: ControlChannel) -> None:
    with serving(operator_app(channel, TOKENS)) as url:
        driver.get(url)
        until(driver, lambda d: text(d, "#fresh") == "A token is needed to look.")
        unlock(driver, "score")
        assert "V14" in text(driver, "#drift")
        assert not driver.find_elements(By.ID, "locked")


@pytest.mark.parametrize("width", [360, 768, 1200])
def test_it_fits_the_screen(driver: Chrome, channel: ControlChannel, width: int) -> None:
    with serving(operator_app(channel)) as url:
        look_at(driver, width)
        driver.get(url)
        wide = driver.execute_script("return document.documentElement.scrollWidth")
        assert wide <= width
        if width < 600:
            sizes = driver.execute_script(
                "return [...document.querySelectorAll('button')].filter(b => b.offsetParent)"
                ".map(b => [b.offsetWidth, b.offsetHeight])"
            )
            assert min(min(size) for size in sizes) >= 24  # WCAG 2.2, 2.5.8


def test_a_screen_reader_has_a_name_for_everything(driver: Chrome, channel: ControlChannel) -> None:
    with serving(operator_app(channel, TOKENS)) as url:
        driver.get(url)
        unlock(driver, "score")
        nodes = driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    wanted = {"button", "textbox", "link", "table", "image", "img", "navigation", "form", "list"}
    unnamed, roles = [], set()
    for node in nodes:
        role = node.get("role", {}).get("value")
        roles.add(role)
        if role in wanted - {"list"} and not node.get("name", {}).get("value"):
            unnamed.append(node)
    assert unnamed == []
    assert roles >= {"button", "textbox", "table", "main", "navigation", "heading"}
    headings = [
        int(prop["value"]["value"])
        for node in nodes
        if node.get("role", {}).get("value") == "heading"
        for prop in node["properties"]
        if prop["name"] == "level"
    ]
    assert headings[0] == 1
    assert headings.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(headings))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_from_its_ground(
    driver: Chrome, channel: ControlChannel, scheme: str
) -> None:
    with Healer(channel, ANSWERS), serving(operator_app(channel)) as url:
        look_at(driver, 1200, scheme)
        driver.get(url)
        click(driver, "#plan-9")
        until(driver, lambda d: d.find_elements(By.ID, "confirm"))
        colours = driver.execute_script(COLOURS)
    pale = {
        (words, ratio) for words, ink, ground in colours if (ratio := contrast(ink, ground)) < 4.5
    }
    assert pale == set()
    grounds = {ground for _, _, ground in colours}
    assert ("rgb(18, 22, 27)" in grounds) == (scheme == "dark")


COLOURS = """
const ground = (one) => {
  for (; one; one = one.parentElement) {
    const found = getComputedStyle(one).backgroundColor;
    if (found !== "rgba(0, 0, 0, 0)") return found;
  }
  return "rgb(255, 255, 255)";
};
return [...document.querySelectorAll("body *")]
  .filter((one) => one.offsetParent && [...one.childNodes].some(
    (node) => node.nodeType === 3 && node.textContent.trim()))
  .map((one) => [one.textContent.trim().slice(0, 30), getComputedStyle(one).color, ground(one)]);
"""


def contrast(ink: str, ground: str) -> float:
    """The ratio of WCAG 2.2, section 1.4.3."""

    def luminance(colour: str) -> float:
        parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        red, green, blue = (
            part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
        )
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    low, high = sorted((luminance(ink), luminance(ground)))
    return (high + 0.05) / (low + 0.05)


@pytest.fixture
def scriptless(driver: Chrome) -> Iterator[Chrome]:
    driver.execute_cdp_cmd(SCRIPTS, {"value": True})
    yield driver
    driver.execute_cdp_cmd(SCRIPTS, {"value": False})


SCRIPTS = "Emulation.setScriptExecutionDisabled"


def test_it_is_whole_without_script(scriptless: Chrome, channel: ControlChannel) -> None:
    driver = scriptless
    with (
        Healer(channel, ANSWERS) as healer,
        serving(operator_app(channel, TOKENS)) as url,
    ):
        with serving(operator_app(channel)) as open_url:
            driver.get(open_url)
            shows(driver, "#now", "Healing makes it worse")
            channel.set_status(HEALER, BETTER.as_status())
            click(driver, "#fresh a")
            shows(driver, "#now", "Healing helps")
        driver.get(url)
        fill(driver, "#look-token", "score")
        click(driver, "#look button")
        shows(driver, "#now", "Healing helps")
        fill(driver, "#token", "0perate")
        click(driver, "#plan-9")
        shows(driver, "#said", "would serve: v9, F1 0.584 on 700 rows")
        fill(driver, "#confirm-token", "0perate")
        click(driver, "#confirm .strong")
        shows(driver, "#said", "Rolled back")
        assert driver.current_url == f"{url}/"
    assert [kind for kind, _ in healer.orders] == ["plan", "rollback"]


def test_the_package_ships_what_the_page_is_made_of() -> None:
    folder = Path(selfheal_cli.__file__).parent / "serve/operator"
    shipped = {"page.css", "page.js", "page.html.j2", "live.html.j2"}
    assert shipped <= {path.name for path in folder.iterdir()}
    settings = (folder.parents[2] / "setup.cfg").read_text()
    assert all(f"serve/operator/*{Path(name).suffix}" in settings for name in shipped)


TOKYO = "Asia/Tokyo"


def test_its_course_is_drawn_said_and_timed_in_the_readers_zone_on_a_phone_too(
    driver: Chrome, channel: ControlChannel
) -> None:
    driver.execute_cdp_cmd("Emulation.setTimezoneOverride", {"timezoneId": TOKYO})
    try:
        look_at(driver, 360)
        with serving(operator_app(channel)) as url:
            driver.get(url)
            shows(driver, "#versions", "2026-11-26 06:57:02")
            assert "GMT+9" in text(driver, "#versions") and "UTC" not in text(driver, "#versions")
            words = text(driver, "#course")
            assert "Live 0.920 at first and 0.780 at last, the shadow 0.920 and 0.810" in words
            assert "2.30 at most; above the threshold in 2 of 4 stretches" in words
            assert "18,040 labels came" in words
            assert "11-26 03:30" in words  # below a picture: 18:30 UTC
            pictures = driver.find_elements(By.CSS_SELECTOR, "#course svg[role=img]")
            assert len(pictures) == 3
            for one in pictures:
                assert "over time" in one.accessible_name
                assert one.rect["width"] > 200 and one.rect["height"] > 80
            wide: int = driver.execute_script("return document.documentElement.scrollWidth")
            assert wide <= 360
            tab_to(driver, words="The latest in figures")
            press(driver, Keys.ENTER)
            shows(driver, "#course-figures", "151 to 200")
            shows(driver, "#fresh", "Updates by itself.")
            assert "151 to 200" in text(driver, "#course-figures")  # it stays open
    finally:
        driver.execute_cdp_cmd("Emulation.setTimezoneOverride", {"timezoneId": "UTC"})
