"""What the healer publishes is served from the next request on, and only what verifies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from selfheal_cli.actor import clock
from selfheal_cli.pipeline.prepare.lease import RunLease
from selfheal_cli.registry.mlflow.registry import MlflowRegistry
from selfheal_cli.spool.control import ControlChannel, Published
from selfheal_cli.spool.file import spool_path
from tests.serve.conftest import Running, serving, until


@pytest.fixture(scope="module")
def followed(short_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server that these tests publish to."""
    with serving(short_run, tmp_path_factory.mktemp("followed")) as running:
        yield running


def published(running: Running, number: int) -> Published:
    """What the healer would publish for a version."""
    registry = MlflowRegistry(running.front.settings.healer.tracking_uri)
    version = registry.version("fraud", number)
    return Published(
        snapshot=f"snapshot-{number}",
        threshold=0.25,
        base=version.base,
        sha256=version.sha256,
        adapter=registry.adapter(version),
        reason="test",
    )


def test_a_publication_is_served_at_once_and_numbered_later(followed: Running) -> None:
    front, body = followed.front, {"dataframe_split": followed.rows()}
    front.channel.publish(published(followed, 3))
    until(lambda: front.scorer.served.snapshot == "snapshot-3")
    before = followed.post("/invocations", json=body).json()
    backbone = front.scorer.served.network.backbone
    front.channel.publish(published(followed, 2))
    until(lambda: front.scorer.served.snapshot == "snapshot-2")
    answer = followed.post("/invocations", json=body)
    assert answer.headers["x-selfheal-version"] == "pending"
    assert answer.headers["x-selfheal-threshold"] == "0.25"
    assert answer.json() != before
    assert front.scorer.served.network.backbone is backbone
    front.channel.set_version("snapshot-2", 2)
    until(lambda: front.scorer.served.version == 2)
    again = followed.post("/invocations", json=body)
    assert again.headers["x-selfheal-version"] == "2" and again.json() == answer.json()


def test_a_base_that_is_another_is_loaded_from_the_registry(followed: Running) -> None:
    front = followed.front
    wanted = published(followed, 3)
    front.scorer.served = replace(front.scorer.served, base="m-elsewhere")
    front.channel.publish(wanted)
    until(lambda: front.scorer.served.snapshot == "snapshot-3")
    assert front.scorer.served.base == wanted.base


@pytest.mark.parametrize("what", ["hash", "no adapter", "another's adapter", "base", "threshold"])
def test_what_does_not_verify_is_refused_and_the_old_one_serves_on(
    followed: Running, what: str
) -> None:
    front, wanted = followed.front, published(followed, 2)
    now = front.scorer.served
    counted = front.meters.registry.get_sample_value
    before = counted("selfheal_publications_refused_total") or 0.0
    broken = {
        "hash": replace(wanted, sha256="0" * 64),
        "no adapter": replace(wanted, adapter=b"", sha256=""),
        "another's adapter": replace(wanted, adapter=wanted.adapter[:-4]),
        "base": replace(wanted, base="m-nowhere"),
        "threshold": replace(wanted, threshold=float("inf")),
    }[what]
    front.channel.publish(replace(broken, snapshot="broken"))
    until(lambda: counted("selfheal_publications_refused_total") == before + 1)
    assert front.scorer.served is now
    assert followed.get("/health/details").json()["following"]
    answer = followed.post("/invocations", json={"dataframe_split": followed.rows()})
    assert (answer.status_code, answer.headers["x-selfheal-snapshot"]) == (200, now.snapshot)
    front.channel.publish(replace(wanted, snapshot=f"after {what}"))
    until(lambda: front.scorer.served.snapshot == f"after {what}")
    # which is said a moment after it serves
    until(lambda: followed.get("/health/details").json()["following"] == "")


def test_no_answer_mixes_versions_while_they_change(followed: Running) -> None:
    """Rows that are all the same have one probability, whatever is published meanwhile."""
    front, names = followed.front, followed.rows()["columns"]
    wanted = [replace(published(followed, n), snapshot=f"mixed {n}") for n in (1, 2, 3)]
    row = followed.rows(2)["data"][1]
    seen: dict[str, set[float]] = {}
    turn = 0
    while turn < 60 or len([one for one in seen if one.startswith("mixed")]) < 2:
        turn += 1
        assert turn < 100_000, "nothing that is published is served"
        front.channel.publish(wanted[turn % 3])
        body = {"dataframe_split": {"columns": names, "data": [row] * 50}}
        answer = followed.post("/invocations", json=body)
        rounded = {round(p, 6) for p in answer.json()["predictions"]}  # vectors round by place
        assert len(rounded) == 1
        seen.setdefault(answer.headers["x-selfheal-snapshot"], set()).update(rounded)
    mixed = {snapshot: values for snapshot, values in seen.items() if snapshot.startswith("mixed")}
    assert all(len(values) == 1 for values in mixed.values())


@pytest.mark.parametrize("alive", [True, False])
def test_a_server_that_begins_beside_a_healer_serves_what_that_published_last(
    short_copy: Path, alive: bool
) -> None:
    workspace = short_copy / "mlruns" / "selfheal"
    registry = MlflowRegistry()
    run_id = registry.begin_run("selfheal", {}, {})
    lease = RunLease(
        registry, "fraud", run_id, workspace / "runs" / run_id, "healer", clock, four_eyes=False
    )
    if not alive:
        lease.release()
    channel = ControlChannel(spool_path("fraud", workspace))
    version = registry.version("fraud", 2)
    channel.publish(
        Published(
            "not-registered-yet", 0.5, version.base, version.sha256, registry.adapter(version), ""
        )
    )
    champion = registry.version("fraud", registry.alias("fraud", "champion") or 0)
    wanted = "not-registered-yet" if alive else champion.tags["selfheal.snapshot"]
    with serving(short_copy, workspace) as running:
        until(lambda: running.front.scorer.served.snapshot == wanted)
        published_now = channel.published()
        assert published_now is not None and published_now.snapshot == wanted
    lease.release()


def test_what_is_published_on_a_spool_that_took_anothers_place_is_served(
    followed: Running,
) -> None:
    front = followed.front
    for number in (2, 3, 2, 3):
        front.channel.publish(published(followed, number))
    until(lambda: front.scorer.served.snapshot == "snapshot-3")
    path = front.channel._file.path
    front.recorder.flush()  # what was answered before
    path.rename(path.with_name("moved-away.db"))
    front.channel.publish(published(followed, 2))  # the first of the new one
    until(lambda: front.scorer.served.snapshot == "snapshot-2")
    assert followed.post("/invocations", json={"dataframe_split": followed.rows()}).ok
    front.recorder.flush()
    assert front.spool.rows_beyond(0) == 3
