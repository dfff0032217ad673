"""Rows and batches that cannot be gone through: left out, counted, and no end of the run."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from selfheal_cli.errors import DataError, RegistryUnreachable
from selfheal_cli.events.log import read
from selfheal_cli.model.network import SelfHealingNetwork
from selfheal_cli.pipeline.stream.batch import chosen
from selfheal_cli.pipeline.stream.session import Session
from selfheal_cli.records import Answers, Batch, Rows
from tests.pipeline.small import DELAYED, Altered, Change, config, ran, stream_of

POISON = 77.0


def with_inputs(batches: Collection[int], rows: Any, value: float) -> Change:
    """Some rows of some batches have this value in every input."""

    def change(batch: Batch) -> Batch:
        if batch.index not in batches:
            return batch
        x = batch.rows.x.copy()
        x[rows] = value
        return replace(batch, rows=Rows(x, batch.rows.y, batch.rows.columns))

    return change


@pytest.fixture
def picky(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that fails on a row with `POISON`, as one does on a token that it does not know."""
    features = SelfHealingNetwork.features

    def checked(network: SelfHealingNetwork, x: Any) -> Any:
        if (x == POISON).any():
            raise IndexError("index out of range in self")
        return features(network, x)

    monkeypatch.setattr(SelfHealingNetwork, "features", checked)


def test_rows_that_the_model_gives_no_finite_number_for_are_left_out_and_counted(
    empty_dir: Path,
) -> None:
    settings = config()
    done = ran(settings, Altered(stream_of(settings), with_inputs({3}, [0, 7], np.nan)))
    third = next(event for event in done.of("batch") if event.batch == 3)
    assert third.rows == 98
    (reason,) = third.left_out
    assert "no finite number" in reason
    assert done.finished.view.finished.notes[reason] == 2
    assert done.batches("batch") == list(range(1, 9))
    assert done.stage("healed")["rows"] == 798


def test_a_row_that_the_model_fails_on_is_found_among_the_others_and_left_out(
    empty_dir: Path, picky: None
) -> None:
    settings = config(labels=DELAYED)
    done = ran(settings, Altered(stream_of(settings), with_inputs({2, 5}, [41], POISON)))
    rows = {event.batch: event.rows for event in done.of("batch")}
    assert rows == {n: 99 if n in (2, 5) else 100 for n in range(1, 9)}
    assert done.finished.view.finished.notes["rows that the model fails on, left out"] == 2


def test_rows_beside_one_that_was_left_out_keep_their_places_for_late_labels(
    empty_dir: Path,
) -> None:
    settings = config()
    rows = next(stream_of(settings).batches()).rows
    answers = Answers(np.full(100, 0.5, np.float32), 0.5)
    answers.probabilities[10] = np.nan
    kept = chosen(Batch(1, rows, answers=answers), np.isfinite(answers.probabilities))
    assert kept.place.tolist() == [n for n in range(100) if n != 10]
    assert kept.answers is not None
    assert len(kept.answers.probabilities) == len(kept.rows) == 99


def test_a_batch_that_cannot_be_gone_through_is_set_apart_and_the_run_goes_on(
    empty_dir: Path, picky: None
) -> None:
    settings = config()
    done = ran(settings, Altered(stream_of(settings), with_inputs({3, 4, 6}, slice(None), POISON)))
    assert done.batches("batch-set-apart") == [3, 4, 6]
    assert done.batches("batch") == [1, 2, 5, 7, 8]
    first = done.of("batch-set-apart")[0].as_dict()
    assert first["rows"] == 100
    assert first["reason"] == "IndexError: index out of range in self"
    notes = done.finished.view.finished.notes
    assert notes["rows of batches that could not be gone through"] == 300


def test_three_such_batches_in_a_row_end_the_run_in_words(empty_dir: Path, picky: None) -> None:
    settings = config()
    poisoned = with_inputs({3, 4, 5}, slice(None), POISON)
    with pytest.raises(DataError, match=r"batch 5: IndexError.*3 batches in a row") as caught:
        ran(settings, Altered(stream_of(settings), poisoned))
    assert caught.value.exit_code == 3
    (log,) = Path().glob("workspace-0/**/events.jsonl")
    kinds = [event.kind for event in read(log)]
    assert kinds.count("batch-set-apart") == 3
    assert kinds[-1] == "run-finished"


def test_an_error_of_the_registrys_ends_the_run_as_before(
    empty_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(session: Session, batch: Batch) -> None:
        raise RegistryUnreachable("no answer")

    monkeypatch.setattr(Session, "_step", away)
    with pytest.raises(RegistryUnreachable):
        ran(config())


def test_an_empty_batch_says_nothing_and_ends_nothing(empty_dir: Path) -> None:
    settings = config()

    def emptied(batch: Batch) -> Batch:
        none = np.zeros(100, dtype=np.bool_)
        return chosen(batch, none) if batch.index in (2, 3, 4) else batch

    done = ran(settings, Altered(stream_of(settings), emptied))
    assert done.batches("batch") == [1, 5, 6, 7, 8]
    assert not done.of("batch-set-apart")
