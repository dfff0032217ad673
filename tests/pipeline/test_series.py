"""The article's earlier versions come out to the digit: each figure, each batch."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import pytest

from selfheal_cli.kinds import VERSIONS
from selfheal_cli.model.threads import threads_as_before, use_one_thread
from selfheal_cli.pipeline.offline import series
from selfheal_cli.pipeline.offline.series import LOW_FRAUD, VersionResult, run_version
from tests.conftest import Invoke
from tests.trained import TRAINED

BATCHES = Path(__file__).with_name("series_batches.csv")
# clean accuracy and F1, unhealed accuracy and F1, healed accuracy, precision, recall and F1,
# true and false positives and negatives, heals and batches
EXPECTED = {
    "article-v1": "0.964 0.892 0.197 0.235 0.150 0.1500 1.0000 0.2609 150 0 850 0 10 10",
    "article-v2": "0.952 0.852 0.500 0.324 0.806 0.2317 0.1267 0.1638 19 787 63 131 10 15",
    "article-v3": "0.921 0.721 0.390 0.284 0.810 0.1429 0.0533 0.0777 8 802 48 142 13 15",
    "article-v4": "0.929 0.754 0.446 0.316 0.381 0.1801 0.8800 0.2990 132 249 601 18 20 20",
    "article-v5": "0.929 0.754 0.446 0.316 0.430 0.1837 0.8133 0.2998 122 308 542 28 19 20",
    "article-v6": "0.929 0.754 0.446 0.316 0.391 0.1790 0.8533 0.2960 128 263 587 22 1 20",
    "article-v7": "0.929 0.754 0.446 0.316 0.783 0.1927 0.1400 0.1622 21 762 88 129 20 20",
    "article": "0.929 0.754 0.446 0.316 0.724 0.2237 0.3400 0.2698 51 673 177 99 25 25",
}


@pytest.fixture(scope="module")
def results() -> Iterator[dict[str, VersionResult]]:
    with threads_as_before(), pytest.MonkeyPatch.context() as patch:
        use_one_thread()
        patch.setattr(series, "train", TRAINED)  # what the command wants again it has again
        yield {name: run_version(name) for name in series.VERSIONS}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_versions_figures_are_its_own(name: str, results: dict[str, VersionResult]) -> None:
    one = results[name]
    healed = one.healed
    told = [f"{value:.3f}" for value in (one.clean.accuracy, one.clean.f1, one.unhealed.accuracy,
                                         one.unhealed.f1, healed.accuracy)]  # fmt: skip
    told += [f"{value:.4f}" for value in (healed.precision, healed.recall, healed.f1)]
    told += [str(count) for count in (healed.tp, healed.tn, healed.fp, healed.fn)]
    assert [*told, str(one.heals), str(len(one.batches))] == EXPECTED[name].split()


@pytest.mark.parametrize("name", VERSIONS)
def test_each_batch_of_a_version_is_as_it_was(name: str, results: dict[str, VersionResult]) -> None:
    with BATCHES.open() as lines:
        rows = [row for row in csv.DictReader(lines) if f"article-{row['version']}" == name]
    told = [
        {
            "version": name.removeprefix("article-"), "batch": str(one.batch), "z": f"{one.z:.4f}",
            "conflicts": str(one.conflicts), "fraud_share": f"{one.fraud_share:.4f}",
            "healed": str(int(one.healed)), "accuracy_before": f"{one.accuracy_before:.4f}",
            "accuracy_after": f"{one.accuracy_after:.4f}",
        }
        for one in results[name].batches
    ]  # fmt: skip
    assert told == rows


def test_version_six_says_why_it_did_not_heal(results: dict[str, VersionResult]) -> None:
    skipped = [one.skipped for one in results["article-v6"].batches]
    assert skipped.count(LOW_FRAUD) == 3
    assert skipped.count("") == 1


def test_they_stand_side_by_side_with_the_article_below(
    results: dict[str, VersionResult],
    workdir: Path,
    invoke: Invoke,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    shown = invoke("compare", "--recipes", "article-v1..v1").stdout.splitlines()
    assert max(map(len, shown[:6])) <= 80
    told = "article-v1 0.964 0.892 0.197 0.235 0.150 1.0000 0.2609 10 of 10"
    assert shown[3].split() == told.split()
    assert shown[4].startswith("article ")
    assert "0.295" in "".join(shown)
    assert "78.3 %" in "".join(shown)


@pytest.mark.parametrize("names", ["article-v8", "article-v6..v9", "article-v1,anchored"])
def test_what_is_no_version_is_a_usage_error(workdir: Path, invoke: Invoke, names: str) -> None:
    assert "article-v1 to article-v7" in invoke("compare", "--recipes", names, expect=2).stderr


def test_versions_take_no_rows(workdir: Path, invoke: Invoke) -> None:
    Path("rows.csv").write_text("a,label\n" + "1,0\n2,1\n" * 20)
    asked = ("compare", "rows.csv", "--target", "label", "--recipes", "article-v1")
    assert "leave FILE out" in invoke(*asked, expect=2).stderr
