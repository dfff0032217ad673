"""Files as people have them: 'init' finds out how they are written, and 'run' reads them so."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pandas as pd

from selfheal_cli.report.export import keep_apart
from tests.cli.test_bad_input import refused
from tests.conftest import Invoke

ROWS = 240
QUICK = ("--batches", "1", "--batch-size", "30", "--no-plots", "--set", "network.epochs=1")
AT = pd.date_range("2026-01-01", periods=ROWS, freq="h")


def payments() -> pd.DataFrame:
    """Rows with an id, a time, money, and labels that come a day later."""
    rng = np.random.default_rng(4)
    fraud = (rng.random(ROWS) < 0.3).astype(int)
    return pd.DataFrame({
        "payment_id": [f"p{n}" for n in rng.permutation(ROWS)], "booked": AT,
        "amount": np.round(np.exp(rng.normal(6 + fraud, 1)), 2),
        "shop": rng.choice(["A", "B"], ROWS), "label_known_at": AT + pd.Timedelta("1D"),
        "is_fraud": fraud,
    })  # fmt: skip


def trained_on(invoke: Invoke, *arguments: str) -> dict[str, object]:
    """Figures of a run, which are those of its rows."""
    document = json.loads(invoke("run", *arguments, *QUICK, "--json").stdout)
    stages: dict[str, object] = document["results"]["stages"][0]
    return stages


def test_a_file_from_a_european_spreadsheet_gives_what_its_plain_twin_gives(
    workdir: Path, invoke: Invoke
) -> None:
    plain = payments()
    plain.to_csv("plain.csv", index=False)
    people = plain.assign(
        amount=[f"{a:,.2f} €".replace(",", "#").replace(".", ",").replace("#", ".")
                for a in plain.amount],
        booked=AT.strftime("%d.%m.%Y %H:%M"), label_known_at=plain.label_known_at.dt.strftime(
            "%d.%m.%Y %H:%M"),
    )  # fmt: skip
    text = "Umsätze\n\n" + people.to_csv(index=False, sep=";")
    Path("people.csv").write_bytes(text.encode("cp1252"))
    Path("people.csv.gz").write_bytes(gzip.compress(text.encode("cp1252")))
    refused(["run", "people.csv", "--target", "is_fraud"], 3, "not UTF-8 text", "--encoding")
    said = invoke("init", "people.csv.gz", "--out", "people.yaml").stdout
    for part in ("text in cp1252", "lines above the header, passed over: 2", "is 1", "%d.%m.%Y"):
        assert part in said
    invoke("init", "plain.csv", "--out", "plain.yaml")
    as_written = trained_on(invoke, "--config", "people.yaml")
    assert as_written == trained_on(invoke, "--config", "plain.yaml")
    by_options = ("people.csv", "--target", "is_fraud", "--encoding", "cp1252", "--decimal", ",",
                  "--thousands", ".", "--date-format", "%d.%m.%Y %H:%M", "--time", "booked",
                  "--label-time", "label_known_at")  # fmt: skip
    assert as_written == trained_on(invoke, *by_options)


def test_labels_that_come_at_times_may_be_said_after_init_as_before_it(
    workdir: Path, invoke: Invoke
) -> None:
    payments().rename(columns={"label_known_at": "second"}).to_csv("rows.csv", index=False)
    assert (
        "dropped 'second': a time after the row's own: a leak" in invoke("init", "rows.csv").stdout
    )
    late = ("--time", "booked", "--label-time", "second", "--json", *QUICK)
    document = json.loads(invoke("run", *late, "--drop", "payment_id").stdout)
    assert document["config"]["labels"]["regime"] == "timed"
    invoke("init", "rows.csv", "--label-time", "second", "--force")
    document = json.loads(invoke("run", "--labels", "delayed:1", "--json", *QUICK).stdout)
    assert document["config"]["labels"] == {"regime": "delayed", "delay": 1, "keep": 100_000}


def test_a_bare_run_leaves_ids_and_times_out_and_says_so(workdir: Path, invoke: Invoke) -> None:
    rows = payments()
    rows.assign(card=[f"c{n % 70}" for n in range(ROWS)]).to_csv("rows.csv", index=False)
    bare = invoke("run", "rows.csv", "--target", "is_fraud", *QUICK)
    assert (
        "Left out: booked (a time), label_known_at (a time), payment_id (an identifier), card (too "
        "many values: 70 in 240 rows); "
        "--set source.drop_identifiers=no keeps them"
    ) in bare.stderr
    (own,) = Path("monitoring_export/runs").iterdir()
    assert (own / "report.html").read_bytes() == Path("monitoring_export/report.html").read_bytes()
    shown = json.loads(invoke("config", "show", "--json", "rows.csv", "--target", "a").stdout)
    assert shown["values"]["source.drop_identifiers"]["value"] is True
    Path("selfheal.yaml").write_text("source: {kind: table, path: rows.csv, target: is_fraud}\n")
    assert "left out" not in invoke("run", *QUICK).stderr  # what a file says holds as it stands


def test_rows_out_of_order_are_told_and_sorted(workdir: Path, invoke: Invoke) -> None:
    rows = payments()
    rows.to_csv("rows.csv", index=False)
    rows.sample(frac=1, random_state=1).to_csv("mixed.csv", index=False)
    assert "the rows are not in the order of 'booked'" in invoke("init", "mixed.csv").stdout
    invoke("init", "mixed.csv", "--sort-by", "booked", "--force")
    told = trained_on(invoke)
    Path("selfheal.yaml").unlink()
    late = ("--target", "is_fraud", "--time", "booked", "--label-time", "label_known_at")
    assert told == trained_on(invoke, "rows.csv", *late)
    assert told == trained_on(invoke, "mixed.csv", *late, "--sort-by", "booked")


def test_rows_that_train_and_have_no_label_yet_are_left_out_and_counted(
    workdir: Path, invoke: Invoke
) -> None:
    rows = payments().astype({"is_fraud": "Int64"})
    rows.loc[[3, 5, 8], "is_fraud"] = pd.NA
    rows.to_csv("rows.csv", index=False)
    late = ("rows.csv", "--target", "is_fraud", "--labels", "delayed:1", *QUICK)
    assert (
        "3 of the 60 rows that train the network have no label, and are left out"
        in invoke("run", *late).stderr
    )


def test_the_only_model_of_a_store_is_the_one_that_commands_take(
    workdir: Path, invoke: Invoke
) -> None:
    from mlflow import MlflowClient

    def registered(name: str) -> None:
        MlflowClient(f"sqlite:///{workdir}/mlflow.db").create_registered_model(name)

    registered("small")
    assert "Model 'small': nothing is recorded." in invoke("history").stdout
    registered("other")
    refused(["history"], 4, "which of 2 registered models? Give --model: other, small")
    assert "Model 'other'" in invoke("history", "--model", "other").stdout
    registered("fraud")  # what is meant where nothing is said, as ever
    assert "Model 'fraud'" in invoke("history").stdout


def test_what_a_run_exported_is_kept_where_no_later_run_writes(tmp_path: Path) -> None:
    for run, text in (("first", "1"), ("second", "2")):
        files = [tmp_path / "metrics.csv", tmp_path / "plots" / "costs.png"]
        for file in files:
            file.parent.mkdir(exist_ok=True)
            file.write_text(text)
        keep_apart(files, tmp_path, run)
    kept = {str(one.relative_to(tmp_path)): one.read_text() for one in tmp_path.rglob("*.*")}
    assert kept == {
        "metrics.csv": "2", "plots/costs.png": "2",
        "runs/first/metrics.csv": "1", "runs/first/plots/costs.png": "1",
        "runs/second/metrics.csv": "2", "runs/second/plots/costs.png": "2",
    }  # fmt: skip
