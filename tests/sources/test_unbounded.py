"""Rows that keep coming: when a batch is cut, what is put aside, what ends and repeats it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from selfheal_cli.config import SegmentSettings
from selfheal_cli.config_sources import StdinSettings
from selfheal_cli.errors import DataError
from selfheal_cli.sources.feed import PARTITION, Keeping, KeepingFeed, KeptLines, Past
from selfheal_cli.sources.stream import KEPT, UnboundedSource
from tests.sources.kinds import Clock, ScriptedFeed, as_lines, numbers, plain, stream
from tests.sources.test_table import same

LINES = as_lines(plain(95))
TRAIN, REST = LINES[:30], LINES[30:]


def rejects(folder: Path) -> list[dict[str, Any]]:
    text = (folder / "rejects.ndjson").read_text()
    return [json.loads(line) for line in text.splitlines()]


def changed(line: str, **values: Any) -> str:
    return json.dumps(json.loads(line) | values)


def test_a_batch_that_is_not_full_is_scored_when_it_has_waited_long_enough() -> None:
    source = stream([TRAIN, REST[:4], 2.0, REST[4:6], 2.9, 0.2, REST[6:]], max_wait=5.0)
    assert numbers(source.batches())[:2] == [list(range(30, 36)), list(range(36, 46))]


def test_a_quiet_stream_is_asked_whether_to_stop_and_ends_with_what_it_has(tmp_path: Path) -> None:
    asked = iter([False, False, True])
    steps = [TRAIN, REST[:4], 0.2, 0.2, 0.2, REST[4:]]
    source = stream(steps, folder=tmp_path, idle=lambda: next(asked), max_wait=60.0)
    assert numbers(source.batches()) == [[30, 31, 32, 33]]


def test_one_that_is_stopped_while_nothing_waits_gives_no_batch(tmp_path: Path) -> None:
    source = stream([TRAIN, 0.2, REST], folder=tmp_path, idle=lambda: True)
    assert list(source.batches()) == []


def test_its_offsets_say_up_to_where_each_batch_was_read() -> None:
    steps = [TRAIN, ["broken", *REST[:10], "{", *REST[10:20]]]
    batches = list(stream(steps).batches())
    # the broken line after the first batch's last row is read with the second
    assert [batch.offsets for batch in batches] == [{PARTITION: 41}, {PARTITION: 52}]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("soon", "not JSON (Expecting value at character 1)"),
        ("[1, 2]", "a JSON object is expected, not a list"),
        ('{"number": [1]}', "column 'number' holds a list; a number or a text is read"),
        ("[" * 100_000, "nested too deeply"),
        ('{"number": ' + "1" * 2_000_000 + "}", "longer than 1,000,000 bytes"),
        ('{"number": ' + "1" * 5_000 + "}", "a number of too many digits"),
    ],
    ids=["word", "list", "nested", "deep", "long", "digits"],
)
def test_a_broken_line_is_put_aside_with_its_reason_and_number(
    line: str, reason: str, tmp_path: Path
) -> None:
    source = stream([TRAIN, [*REST[:3], line, *REST[3:10]]], folder=tmp_path)
    assert numbers(source.batches()) == [list(range(30, 40))]
    (told,) = rejects(tmp_path)
    assert (told["number"], told["place"], told["reason"]) == (34, "script: line 34", reason)
    assert len(told["line"]) <= 10_000
    assert source.notes()["lines put aside (rejects.ndjson)"] == 1


def test_more_broken_lines_than_are_allowed_stop_it() -> None:
    source = stream([TRAIN, ["a", "b", "c", *REST]], max_rejects=2)
    with pytest.raises(DataError, match=r"script: line 33: not JSON .* 3 lines were put aside"):
        list(source.batches())


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"number": "much"}, "column 'number': 'much' is not a number"),
        ({"y": None}, "column 'y': the target is missing"),
    ],
    ids=["text", "no-label"],
)
def test_a_row_against_the_contract_stops_it_or_is_put_aside(
    values: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    rows = [*REST[:3], changed(REST[3], **values), *REST[4:10]]
    with pytest.raises(DataError) as raised:
        list(stream([TRAIN, rows], reject_misfits=False).batches())
    assert str(raised.value).startswith(f"script: line 34, {reason}")
    source = stream([TRAIN, rows], folder=tmp_path)
    assert numbers(source.batches()) == [[30, 31, 32, *range(34, 40)]]
    (told,) = rejects(tmp_path)
    assert told["reason"].startswith(reason)


@pytest.mark.parametrize(
    ("values", "note"),
    [
        ({"number": 1e300}, "numbers beyond 3.4e38, taken as missing"),
        ({"number": 10**400}, "numbers beyond 3.4e38, taken as missing"),
        ({"number": float("inf")}, "numbers beyond 3.4e38, taken as missing"),
        ({"number": float("nan")}, "missing values"),
        ({"y": "perhaps"}, "labels that training did not have, taken as missing"),
        ({"kind": "u\ud83d"}, "unseen categories"),
        ({"kind": "x" * 900_000}, "unseen categories"),
    ],
    ids=["large", "larger", "infinite", "nan", "label", "half-a-pair", "long"],
)
def test_a_strange_value_is_counted_by_reason_and_ends_nothing(
    values: dict[str, Any], note: str
) -> None:
    plain = stream([TRAIN, REST[:10]])
    list(plain.batches())
    source = stream([TRAIN, [*REST[:3], changed(REST[3], **values), *REST[4:10]]])
    (batch,) = source.batches()
    assert len(batch.rows) == 10
    assert np.isfinite(batch.rows.x).all()
    assert source.notes()[note] == plain.notes().get(note, 0) + 1


def test_a_column_that_training_always_had_must_be_there() -> None:
    def without(name: str) -> str:
        return json.dumps({key: value for key, value in json.loads(REST[0]).items() if key != name})

    with pytest.raises(DataError, match=r"script: line 31, column 'number' is missing"):
        list(stream([TRAIN, [without("number")]], reject_misfits=False).batches())
    (batch,) = stream([TRAIN, [without("wave")]]).batches()  # it was null in some rows
    assert len(batch.rows) == 1


def test_a_stream_that_ends_before_it_could_train_says_what_to_do() -> None:
    with pytest.raises(DataError, match="script: ended after 20 rows; 30 train the network"):
        stream([LINES[:20]])


def test_a_mistake_in_the_training_rows_is_found_by_its_line() -> None:
    lines = ["", *TRAIN[:5], changed(TRAIN[5], number="much"), *TRAIN[6:]]
    with pytest.raises(DataError, match="script: line 7, column 'number': 'much' is not a number"):
        stream([lines], reject_misfits=False)
    source = stream([lines])
    assert sum(len(rows) for rows in source.training()) == len(TRAIN) - 1
    assert source.notes()["put aside: column 'number' holds no number"] == 1


def test_it_is_committed_only_up_to_what_was_scored() -> None:
    clock = Clock()
    feed = ScriptedFeed(clock, [TRAIN, REST[:25]])
    settings = StdinSettings(target="y", train_rows=30)
    source = UnboundedSource(settings, feed, None, batch_size=10, batches=None, clock=clock)
    batches = source.batches()
    next(batches)
    source.settle(lambda: None, lambda: True)
    assert feed.committed == {PARTITION: 40}
    next(batches)
    assert feed.committed == {PARTITION: 40}


def test_the_column_of_segments_is_kept_beside_the_features_and_may_be_missing() -> None:
    clock = Clock()
    lines = [changed(line, shop=place % 3) for place, line in enumerate([*TRAIN, *REST[:9]])]
    feed = ScriptedFeed(clock, [[*lines, REST[9]]])
    settings = StdinSettings(target="y", train_rows=30, drop=("shop",))
    by = SegmentSettings(by="shop")
    source = UnboundedSource(
        settings, feed, None, batch_size=10, batches=1, clock=clock, segments=by
    )
    (batch,) = source.batches()
    assert "shop" not in source.encoding.names
    assert batch.rows.columns["shop"].tolist() == ["0", "1", "2"] * 3 + [None]


def kept_source(
    folder: Path, steps: list[list[str] | float], past: Past, clock: Clock, *, live: bool
) -> UnboundedSource:
    settings = StdinSettings(target="y", train_rows=30, record_rows=True, max_wait=5.0)
    keeping, path = Keeping(), folder / KEPT
    lines = path.read_text().count("\n") if path.exists() else 0
    feed = KeepingFeed(ScriptedFeed(clock, steps, lines), keeping) if live else None
    source = UnboundedSource(
        settings, KeptLines(path, feed) if path.exists() else feed, None,
        batch_size=10, batches=None, past=past, keeping=keeping if live else None, live=live,
        clock=clock,
    )  # fmt: skip
    if live:
        source.attend(folder, lambda: False)
    return source


def test_kept_rows_give_the_same_batches_again_and_then_go_on(tmp_path: Path) -> None:
    clock = Clock()
    steps = [TRAIN, ["broken", *REST[:4]], 6.0, REST[4:16]]
    first = kept_source(tmp_path, steps, Past(), clock, live=True)
    batches = list(first.batches())
    first.close()
    assert [len(batch.rows) for batch in batches] == [4, 10, 2]
    marks = tuple((len(batch.rows), batch.offsets) for batch in batches[:2])
    past = Past(first.positions()["begin"], first.positions()["stream"], marks)

    again = kept_source(tmp_path, [], past, clock, live=False)
    assert again.contract == first.contract
    assert same(list(again.batches()), batches[:2])
    later = list(kept_source(tmp_path, [], past, clock, live=False).batches(2))
    assert same(later, batches[1:2])

    with (tmp_path / KEPT).open("a") as kept:
        kept.write('{"partition": "half')  # a crash
    on = kept_source(tmp_path, [REST[16:24]], past, clock, live=True)
    resumed = list(on.batches())
    on.close()
    # the two rows that were read and not scored, and those that came since
    assert same(resumed[:2], batches[:2])
    assert numbers(resumed[2:]) == [list(range(44, 54))]
    assert len(rejects(tmp_path)) == 1


def test_kept_rows_that_are_gone_are_missed(tmp_path: Path) -> None:
    clock = Clock()
    first = kept_source(tmp_path, [TRAIN, REST[:10]], Past(), clock, live=True)
    (batch,) = first.batches()
    first.close()
    path = tmp_path / KEPT
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-3]))
    past = Past(first.positions()["begin"], first.positions()["stream"], ((10, batch.offsets),))
    with pytest.raises(DataError, match=r"of the 10 rows of batch 1 7 are left"):
        list(kept_source(tmp_path, [], past, clock, live=False).batches())
