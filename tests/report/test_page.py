"""The page of a run: its verdict is the log's, it needs nothing else, and nothing breaks it."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import selfheal_cli.report
from selfheal_cli.events.event import Event
from selfheal_cli.events.evidence import WINDOW
from selfheal_cli.events.types import (
    BatchScored,
    CandidatesCompared,
    HealingHeld,
    LabelsArrived,
    ModelTrained,
    RuleStale,
    RunFinished,
    SnapshotTaken,
)
from selfheal_cli.records import Advice
from selfheal_cli.report.page import render, steps
from selfheal_cli.report.summary import STRETCHES, STUDENT, tell
from selfheal_cli.report.verdict import compared, telling
from tests.events.examples import diagnosed, example
from tests.report.logs import log

UP, DOWN = [80, 82, 81, 83, 80, 84] * 4, [60, 58, 61, 59, 60, 62] * 4
LEVEL = [70, 75, 65, 72, 68, 70, 74, 66, 71, 69, 73, 67] * 2
VOID = {"meta", "path", "br", "link", "img", "input", "hr"}


class Checked(HTMLParser):
    """Fails on a tag that is closed wrongly; keeps what the tests ask about."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.headings: list[int] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if re.fullmatch(r"h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


def page(events: list[Event]) -> str:
    return render(tell(events))


def test_a_run_that_helped_says_so_first_with_its_figures_and_rows() -> None:
    told = telling(tell(log(UP, DOWN)))
    assert told.tone == "better"
    assert told.headline == "Healing helped: accuracy and F1 better than doing nothing"
    assert "2,400 labelled rows in 24 batches" in " ".join(told.sentences)
    assert Checked(page(log(UP, DOWN))).words.index(told.headline) < 700


def test_a_run_that_did_harm_says_so_and_offers_the_trained_version() -> None:
    story = tell(log(DOWN, UP))
    assert telling(story).headline.startswith("Healing made it worse: accuracy and F1 worse")
    commands = [command for step in steps(story) for command in step.commands]
    assert "selfheal rollback --to 1 --dry-run" in commands


def test_a_difference_within_chance_is_called_so() -> None:
    moved = [right + (9 if place % 2 else -8) for place, right in enumerate(LEVEL)]
    told = telling(tell(log(moved, LEVEL)))
    assert told.doubt
    assert told.headline.endswith("though that may be chance")
    assert told.badge.endswith("perhaps by chance")


def test_a_run_without_heals_claims_nothing() -> None:
    told = telling(tell(log(LEVEL, LEVEL, heals=False)))
    assert (told.tone, told.headline) == (
        "none", "Nothing was healed: no batch gave a reason to"
    )  # fmt: skip


def test_a_run_that_is_cut_off_is_told_until_there_and_can_go_on() -> None:
    story = tell(log(UP, DOWN, finished=False))
    told = telling(story)
    assert told.tone == "better"
    assert "has no end yet: everything below is of its 24 batches" in told.sentences[0]
    assert steps(story)[0].commands == ("selfheal run --resume 01234567",)
    Checked(render(story))


def test_the_interval_is_students_where_every_stretch_is_as_large() -> None:
    lifts = [3, -1, 4, 1, 5, 9, 2, 6, 5, 3]
    (accuracy, _) = compared(tell(log([60 + lift for lift in lifts], [60] * STRETCHES)))
    mean = sum(lifts) / 10
    error = (sum((lift - mean) ** 2 for lift in lifts) / 9 / 10) ** 0.5
    assert accuracy.gain.low is not None
    assert accuracy.gain.difference == pytest.approx(mean / 100)
    assert accuracy.gain.low == pytest.approx((mean - STUDENT * error) / 100)


def test_too_few_batches_give_no_interval() -> None:
    (accuracy, _) = compared(tell(log([80] * 9, [70] * 9)))
    assert accuracy.interval == "too few rows"
    assert accuracy.reading == "too few batches to say"


def test_late_labels_count_for_the_batch_that_they_belong_to() -> None:
    events = log([70], [60])
    (batch,) = [event for event in events if isinstance(event, BatchScored)]
    early = replace(batch, live=None, shadow=None)
    halves = [example(LabelsArrived, live=batch.live, shadow=batch.shadow)] * 2
    (gain, _) = compared(tell([events[0], early, *halves]))
    assert (gain.gain.rows, gain.gain.live, gain.gain.shadow) == (200, 0.7, 0.6)


def test_every_feature_has_a_picture_and_the_watched_one_is_first() -> None:
    words = Checked(page(log(UP, DOWN, names=["quiet", "loud", "third"]))).words
    assert words.index("quiet (watched)") < words.index("All 3 features")
    assert "mean -1.25 sd, furthest -2.40 in batch 24" in words


def test_a_log_of_old_without_features_still_renders() -> None:
    events: list[Event] = []
    for event in log(UP, DOWN):
        if isinstance(event, ModelTrained):
            events.append(replace(event, features=None, features_in_all=None))
        else:
            old = isinstance(event, BatchScored)
            events.append(replace(event, shifts=None) if old else event)
    words = Checked(page(events)).words
    assert "This log is of an earlier version of selfheal" in words


def test_a_run_that_failed_before_its_first_batch_still_has_a_page() -> None:
    events = log([], [], finished=False)
    Checked(page(events[:1]))
    failed = RunFinished(outcome="FAILED", at=events[-1].at)
    assert "The run failed" in Checked(page([events[0], failed])).words


def test_what_a_person_should_do_follows_from_what_happened() -> None:
    extra = [
        diagnosed(9, Advice.GONE, "the information is gone"),
        RuleStale(batch=7, rule="a", treatment="drop", reason="a is stale"),
        RuleStale(batch=8, rule="b", treatment="drop", reason="b is stale"),
        RuleStale(batch=9, rule="b", reason="b fires again"),
        HealingHeld(batch=9, actor="bob", reason="odd"),
        example(SnapshotTaken, id="late", batch=9, scores=None),
        *(
            example(CandidatesCompared, batch=batch, served=60.0 + batch % 2)
            for batch in range(WINDOW)
        ),
    ]
    story = tell(log(UP, DOWN, extra=extra, model="a b"))
    titles = [step.title for step in steps(story)]
    assert "Retrain with new features" in titles
    assert "Bring what waits to the registry" in titles
    (rules,) = [step.why for step in steps(story) if step.title == "Look at the rules"]
    assert rules.startswith("Stale at the end: a. ")
    commands = [command for step in steps(story) for command in step.commands]
    assert "selfheal release --model 'a b'" in commands
    assert "selfheal rollback --to-best --dry-run --model 'a b'" in commands


def test_the_page_asks_for_nothing_outside_itself() -> None:
    text = page(log(UP, DOWN))
    assert re.findall(r"\b(?:src|srcset|action|xlink:href)\s*=", text) == []
    assert all(place.startswith("#") for place in re.findall(r'href="([^"]*)"', text))
    assert re.search(r"url\(|@import|https?:|<script|<link|<iframe", text) is None


def test_the_page_can_be_read_by_a_machine_and_heard() -> None:
    checked = Checked(page(log(UP, DOWN)))
    assert checked.headings[:2] == [1, 2]
    assert checked.headings.count(1) == 1
    steps_down = zip(checked.headings, checked.headings[1:], strict=False)
    assert all(after - before <= 1 for before, after in steps_down)
    named = dict(checked.tags)
    assert named["html"]["lang"] == "en"
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in (
        checked.tags
    )
    assert all(attributes.get("scope") for tag, attributes in checked.tags if tag == "th")
    ids = [attributes["id"] for _, attributes in checked.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for tag, attributes in checked.tags:
        if tag == "svg":
            assert attributes.get("aria-hidden") == "true" or attributes["role"] == "img"
        for name in (attributes.get("aria-labelledby") or "").split():
            assert name in ids


@given(st.text(min_size=1, max_size=20))
def test_no_name_in_the_data_becomes_markup(name: str) -> None:
    plain = [tag for tag, _ in Checked(page(log(UP[:3], DOWN[:3]))).tags]
    extra = [diagnosed(1, Advice.HEAL, name)]
    known = [tag for tag, _ in Checked(page(log(UP[:3], DOWN[:3], extra=extra))).tags]
    told = Checked(page(log(UP[:3], DOWN[:3], extra=extra, names=[name, "b"], model=name)))
    assert [tag for tag, _ in told.tags] == known
    assert len(known) > len(plain)


def test_a_column_called_like_a_script_is_shown_as_text() -> None:
    name = "<script>alert(1)</script>"
    text = page(log(UP, DOWN, names=[name, "V9"]))
    assert "<script" not in text
    assert name in Checked(text).words


def test_the_same_log_gives_the_same_bytes() -> None:
    events = log(UP, DOWN)
    assert page(events) == page(events)


def test_a_long_run_makes_a_page_that_stays_small() -> None:
    long = page(log(UP * 60, DOWN * 60))
    assert len(long) < 6 * len(page(log(UP, DOWN)))
    assert "means of" in long


def _variables(style: str) -> dict[str, str]:
    return dict(re.findall(r"--([a-z]+): (#[0-9a-f]{6})", style))


def _contrast(one: str, other: str) -> float:
    """By WCAG 2.2: relative luminance of the lighter to that of the darker."""

    def luminance(colour: str) -> float:
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_and_lines_stand_out_from_what_is_behind_them(dark: bool) -> None:
    style = Path(selfheal_cli.report.__file__).with_name("page.css").read_text()
    light, night = style.split("@media (prefers-color-scheme: dark)")
    colours = _variables(night if dark else light)
    for ground in ("ground", "panel"):
        for text in ("ink", "quiet", "live"):
            assert _contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
    for tone in ("good", "alarm", "note", "quiet"):
        assert _contrast(colours["ground"], colours[tone]) >= 4.5, tone
    for behind in ("ground", "healthy", "drifting", "healing", "rolled"):
        for line in ("live", "alarm"):
            assert _contrast(colours[line], colours[behind]) >= 3, (line, behind)
    assert _contrast(colours["shadow"], colours["ground"]) >= 3
