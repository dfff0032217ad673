"""Segments that drifted, as an operator sees them of a served model; and one that is healed."""

from __future__ import annotations

import os
import signal
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import requests
from numpy.typing import NDArray
from rich.console import Console

from selfheal_cli.cli.status import rendered
from selfheal_cli.events import types as events
from selfheal_cli.registry.mlflow.registry import MlflowRegistry
from selfheal_cli.serve.healer.status import SEGMENTS, EventFold
from selfheal_cli.serve.operator.page import _environment, _view
from selfheal_cli.serve.operator.status import ModelStatus, ServerInfo, StatusSnapshot
from selfheal_cli.serve.operator.verdict import status
from tests.conftest import PATIENCE, Invoke
from tests.serve.conftest import until
from tests.serve.test_healing import Caller, served


def drifted(segment: str, effect: float) -> events.DriftedSegment:
    return {"segment": segment, "column": "amount", "effect": effect, "evidence": 6.0,
            "rows": 120, "since": 4}  # fmt: skip


def fold_of(*batches: list[events.DriftedSegment]) -> EventFold:
    fold = EventFold()
    for segments in batches:
        fold.apply(
            events.SegmentsDrifted(
                batch=4, reason="country DE: amount by 0.40", by="country", segments=segments,
                pairs=40, rate=0.05, threshold=0.1,
            )
        )  # fmt: skip
    return fold


def test_they_are_ranked_over_all_batches_and_told_in_status() -> None:
    fold = fold_of([drifted("DE", 0.4)], [drifted("FR", 0.7), drifted("AT", 0.2)])
    standing = ModelStatus(**fold.facts).as_status()
    assert [one["segment"] for one in standing["segments"]] == ["FR", "DE", "AT"]
    assert standing["segments"][0]["by"] == "country"
    assert standing["happenings"][0]["text"] == "country DE: amount by 0.40"


def test_what_a_healer_of_a_later_release_says_is_read_as_far_as_it_is_known() -> None:
    told = {**fold_of([drifted("DE", 0.4)]).facts, "moods": ["fair"]}
    told["segments"] = [{**told["segments"][0].model_dump(), "mood": "fair"}]
    assert ModelStatus(**told).segments[0].segment == "DE"


def test_no_more_are_held_than_are_told() -> None:
    fold = fold_of([drifted(f"s{place}", place / 1_000) for place in range(2 * SEGMENTS)])
    assert len(fold.facts["segments"]) == SEGMENTS
    assert fold.facts["segments"][0].segment == f"s{2 * SEGMENTS - 1}"


def test_page_and_command_show_the_furthest_and_nothing_without_any() -> None:
    fold = fold_of([drifted(f"s<{place}>", 0.2 + place / 100) for place in range(30)])
    said = {}
    for name, standing in (("some", ModelStatus(**fold.facts)), ("none", ModelStatus())):
        seen = StatusSnapshot(server=ServerInfo(model="m"), standing=standing, age=1.0, at=10.0)
        console = Console(width=400, record=True, file=StringIO())
        console.print(rendered(status(seen).model_dump(mode="json")))
        page = _environment().get_template("live.html.j2").render(**_view(seen))
        said[name] = page, console.export_text()
    page, command = said["some"]
    assert '<th scope="row">s&lt;29&gt;</th><td data-name="column">amount</td>' in page
    assert "s&lt;9&gt;" not in page  # the twentieth is the last
    assert "Segments that drifted: country s<29> in amount by 0.49, country s<28>" in command
    assert "by 0.45 and 25 more" in command
    assert not any("Segments that drifted" in one for one in said["none"])
    assert ModelStatus().as_status()["segments"] == []


def shops(rows: int, *, turned: bool, seed: int) -> pd.DataFrame:
    """Three shops; where it is ``turned``, s1 goes the other way round."""
    draw = np.random.default_rng(seed)
    x = draw.standard_normal((rows, 2))
    shop = draw.choice(np.array(["s0", "s1", "s2"], dtype=object), rows)
    sign = np.where(turned & (shop == "s1"), -1, 1)
    y = sign * x[:, 0] + 0.5 * draw.standard_normal(rows) > 0
    return pd.DataFrame({"a": x[:, 0], "b": x[:, 1], "shop": shop, "y": y.astype(int)})


class ShopCaller:
    """Somebody who asks a server about shops, and tells it two requests later what was right."""

    def __init__(self, caller: Caller) -> None:
        self.caller = caller

    def ask(self, rows: pd.DataFrame, request: str = "") -> NDArray[np.float64]:
        body = {"dataframe_records": rows.drop(columns="y").to_dict("records")}
        answer = requests.post(
            f"{self.caller.url}/invocations", json=body, timeout=PATIENCE,
            headers={"X-Request-Id": request} if request else {},
        )  # fmt: skip
        assert answer.status_code == 200, answer.text
        return np.array(answer.json()["predictions"])

    def tell(self, rows: pd.DataFrame) -> None:
        parts = [rows.iloc[at : at + 50] for at in range(0, len(rows), 50)]
        for place, part in enumerate([*parts, None, None]):
            if part is not None:
                self.ask(part, f"q{place}")
            if place >= 2:
                labels = [str(one) for one in parts[place - 2].y]
                told = {"labels": [{"request_id": f"q{place - 2}", "labels": labels}]}
                requests.post(f"{self.caller.url}/feedback", json=told, timeout=PATIENCE)

    def until_champion(self) -> int:
        """The champion's version, once it answers."""
        registry = MlflowRegistry()

        def answers() -> int:
            version: int = self.caller.status()["server"]["version"]
            return version if registry.alias("shops", "champion") == version else 0

        return int(until(answers, every=0.1))


@pytest.mark.slow
def test_a_segment_that_turns_round_is_healed_alone_behind_a_server_and_goes_back(
    workdir: Path, invoke: Invoke
) -> None:
    shops(800, turned=False, seed=1).to_csv("rows.csv", index=False)
    invoke("run", "rows.csv", "--target", "y", "--drop", "shop", "--segment-by", "shop",
           "--model", "shops", "--no-plots", "--recipe", "anchored", "--batches", "1",
           "--batch-size", "100",
           "--set", "segments.heal=true", "--set", "network.epochs=5",
           "--set", "policy.publish_change=0.1", "--set", "policy.budget_change=0.5",
           "--set", "policy.budget_change_in_all=0.5")  # fmt: skip
    asked = shops(120, turned=True, seed=2)
    turned = (asked.shop == "s1").to_numpy()
    with served(model="shops") as (_, caller):
        shop = ShopCaller(caller)
        before = shop.ask(asked)
        shop.tell(shops(800, turned=True, seed=3))
        until(lambda: caller.status()["standing"]["rows"] == 920)
        assert shop.until_champion() > 1
        healed = shop.ask(asked)
        until(lambda: "alone for shop s1 (log loss lower by" in str(caller.status()["standing"]))
        assert (healed[~turned] == before[~turned]).all()
        assert ((healed > 0.5) == asked.y)[turned].mean() > 0.7
        # a new healer goes on; the segment goes back, and no other is another
        os.kill(caller.details()["healer_pid"], signal.SIGKILL)
        invoke("rollback", "--model", "shops", "--segment", "s1", "--to", "1", "--yes")
        shop.until_champion()
        assert (shop.ask(asked) == before).all()
    for segment in ("s0", "s1"):
        said = invoke("history", "--model", "shops", "--segment", segment).output
        assert ("alone for shop s1" in " ".join(said.split())) == (segment == "s1")
