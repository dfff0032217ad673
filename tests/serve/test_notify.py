"""Who is told of what happened: at least once, in order of need, whatever becomes of the others."""

from __future__ import annotations

import json
import re
import shlex
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from mlflow.webhooks.delivery import _generate_hmac_signature

from selfheal_cli.actor import clock as now
from selfheal_cli.errors import ConfigurationError, StorageError
from selfheal_cli.events import types as events
from selfheal_cli.events.event import Event
from selfheal_cli.events.log import EventLog
from selfheal_cli.records import Advice
from selfheal_cli.serve.notify import targets
from selfheal_cli.serve.notify.metrics import NoticeMetrics
from selfheal_cli.serve.notify.notice import KINDS, Notice, NoticeFold
from selfheal_cli.serve.notify.sender import DOWN_SECONDS, Sender
from selfheal_cli.serve.notify.store import LONGEST, PATIENCE, Due, NoticeStore
from selfheal_cli.serve.notify.targets import (
    CommandTarget,
    NotTold,
    WebhookTarget,
    signature,
    webhooks_from_environment,
)
from selfheal_cli.serve.notify.writer import NoticeWriter
from selfheal_cli.serve.operator.status import HEALER, ModelStatus
from selfheal_cli.serve.settings import Webhook
from selfheal_cli.spool.control import ControlChannel
from tests.conftest import Invoke
from tests.events.examples import diagnosed, example
from tests.serve.conftest import serving, until

ALL = tuple(KINDS)
KEY = "to sign with"
DUE = Due(1, "an-id", "rollback", "thing", "{}", 0)


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(empty_dir: Path, clock: Clock) -> Iterator[NoticeStore]:
    kept = NoticeStore("fraud", clock=clock)
    yield kept
    kept.close()


def notice(number: int = 1, kind: str = "rollback") -> Notice:
    return Notice.of(kind, "2026-01-01T00:00:00.000+00:00", f"thing {number}", number)


class Receiver:
    """Somebody who is posted to, answering with the codes that are said, then 200."""

    def __init__(self) -> None:
        self.codes: list[int] = []
        self.got: list[tuple[str, dict[str, str], str]] = []

    @contextmanager
    def listening(self) -> Iterator[str]:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                headers = {name.lower(): value for name, value in self.headers.items()}
                receiver.got.append((self.path, headers, body))
                self.send_response(receiver.codes.pop(0) if receiver.codes else 200)
                self.send_header("Location", "/elsewhere")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Quiet."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/hook?token=hush"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


def sender_of(store: NoticeStore, *told: Any) -> Sender:
    store.introduce([one.name for one in told])
    return Sender(store, ControlChannel(Path("spool.db")), told, Path("telling.lock"))


def test_a_repeat_has_the_same_id_and_body_a_new_time_and_mlflows_signature(
    store: NoticeStore, clock: Clock
) -> None:
    receiver = Receiver()
    receiver.codes = [500, 302]
    with receiver.listening() as url:
        hook = WebhookTarget(Webhook(name="ops", url=url, secret=KEY), clock)
        sender = sender_of(store, hook)
        store.put([notice()])
        for _ in range(3):
            assert sender.send(hook)
            assert not sender.send(hook)  # it is not due again yet
            clock.now += LONGEST
    assert [path for path, _, _ in receiver.got] == ["/hook?token=hush"] * 3  # no redirect
    assert len({body for _, _, body in receiver.got}) == 1
    for _, headers, body in receiver.got:
        assert headers["x-mlflow-delivery-id"] == notice().id
        assert headers["x-mlflow-signature"] == _generate_hmac_signature(
            KEY, notice().id, headers["x-mlflow-timestamp"], body
        )
    times = [headers["x-mlflow-timestamp"] for _, headers, _ in receiver.got]
    assert times == ["1000000", "1000600", "1001200"]
    told = json.loads(receiver.got[0][2])
    about = told["data"]
    assert (told["action"], about["model"], about["sequence"]) == ("rollback", "fraud", 1)
    assert store.counts() == {("ops", "done"): 1}


def test_one_dead_target_holds_up_no_other_and_is_set_aside_after_three_days(
    store: NoticeStore, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    receiver = Receiver()
    with receiver.listening() as url:
        well = WebhookTarget(Webhook(name="well", url=url, shape="slack"), clock)
        dead = WebhookTarget(Webhook(name="dead", url="http://127.0.0.1:9/hush"), clock)
        sender = sender_of(store, dead, well)
        store.put([notice(1), notice(2)])
        assert sender.send(dead)
        assert sender.send(well)
        assert sender.send(well)
    texts = [json.loads(body)["text"] for _, _, body in receiver.got]
    assert texts == ["fraud: thing 1", "fraud: thing 2"]
    clock.now += PATIENCE
    assert sender.send(dead)
    said = capsys.readouterr().err
    assert "'dead' was not told of event 1 in three days (no answer (URLError))" in said
    assert "hush" not in said
    (family,) = NoticeMetrics(store).collect()
    figures = {tuple(one.labels.values()): one.value for one in family.samples}
    assert figures == {("dead", "aside"): 1.0, ("well", "done"): 2.0}
    assert store.resend("well") == 0
    assert store.resend() == 1
    due = store.due("dead", ALL)
    assert due is not None
    assert (due.sequence, due.tries) == (1, 0)


def test_what_happened_once_is_kept_once_and_numbered_without_a_gap(store: NoticeStore) -> None:
    store.put([notice(1), notice(1), notice(2)])
    store.put([notice(2), notice(3)])
    latest = store.latest(10)
    assert [one["sequence"] for one in latest] == [3, 2, 1]


def test_a_new_target_is_told_of_what_comes_and_of_its_kinds_alone(store: NoticeStore) -> None:
    store.put([notice(1)])
    store.introduce(["ops"])
    store.put([notice(2, "drift"), notice(3)])
    due = store.due("ops", ["rollback"])
    assert due is not None
    assert due.text == "thing 3"
    assert store.due("stranger", ALL) is None


def test_a_clock_that_is_put_back_holds_up_nothing(store: NoticeStore, clock: Clock) -> None:
    store.introduce(["ops"])
    store.put([notice(1)])
    assert not store.failed("ops", 1, "answered 500")
    assert store.due("ops", ALL) is None
    clock.now -= 86_400
    assert store.due("ops", ALL) is not None
    assert not store.failed("ops", 1, "answered 500")


def test_a_command_gets_the_event_without_a_shell(store: NoticeStore, empty_dir: Path) -> None:
    script = (
        "import os, sys; "
        "open('told', 'w').write(os.environ['SELFHEAL_EVENT_ID'] + sys.stdin.read())"
    )
    command = CommandTarget(shlex.join([sys.executable, "-c", script]))
    sender = sender_of(store, command)
    store.put([notice()])
    assert sender.send(command)
    told = Path("told").read_text()
    assert told.startswith(notice().id)
    assert json.loads(told.removeprefix(notice().id))["data"]["text"] == "thing 1"
    assert store.counts() == {("command", "done"): 1}


@pytest.mark.parametrize("odd", ["'{python}' -c 'raise SystemExit(3)'", "/no/such/program", "'"])
def test_a_command_that_fails_was_not_told(odd: str) -> None:
    with pytest.raises(NotTold):
        CommandTarget(odd.format(python=sys.executable)).tell(DUE, "fraud")


@pytest.mark.parametrize(
    "odd", [b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 200]
)
def test_a_webhook_that_does_not_speak_http_was_not_told(odd: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            with listening.accept()[0] as caller:
                caller.recv(65_536)
                caller.sendall(odd)

        thread = threading.Thread(target=answer)
        thread.start()
        hook = Webhook(name="shop", url=f"http://127.0.0.1:{listening.getsockname()[1]}/")
        with pytest.raises(NotTold, match="no answer"):
            WebhookTarget(hook).tell(DUE, "fraud")
        thread.join()


def test_targets_and_secrets_come_by_the_environment_and_stay_out_of_sight(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(
        "SELFHEAL_WEBHOOKS",
        "ops: https://hooks.test/a slack rollback paused; all-of: http://b.test/x",
    )
    monkeypatch.setenv("SELFHEAL_WEBHOOK_SECRET", "for all")
    monkeypatch.setenv("SELFHEAL_WEBHOOK_SECRET_ALL_OF", "its own")
    ops, rest = webhooks_from_environment()
    assert (ops.shape, ops.kinds, ops.secret) == ("slack", ("rollback", "paused"), "for all")
    assert (rest.shape, rest.kinds, rest.secret) == ("plain", (), "its own")
    assert "hooks.test" not in repr(ops)
    assert "for all" not in repr(ops)
    assert not [name for name in targets.os.environ if name.startswith("SELFHEAL_WEBHOOK")]
    assert webhooks_from_environment() == ()


@pytest.mark.parametrize(
    "text",
    ["ops https://hush.test", "ops: ftp://hush.test", "ops: https://hush.test gossip",
     "a: https://hush.test; a: https://hush.test", "command: https://hush.test", "o p: https://hush.test"],
)  # fmt: skip
def test_what_is_no_webhook_is_told_without_its_url(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SELFHEAL_WEBHOOKS", text)
    with pytest.raises(ConfigurationError, match="SELFHEAL_WEBHOOKS: entry") as refused:
        webhooks_from_environment()
    assert "hush" not in str(refused.value)


def test_a_silent_healer_and_labels_that_stopped_are_told_once(store: NoticeStore) -> None:
    channel = ControlChannel(Path("spool.db"))
    channel.set_status(HEALER, ModelStatus(labels_at="2020-01-01T00:00:00+00:00").as_status())
    said = channel.status(HEALER)[1]
    sender = Sender(store, channel, (), Path("lock"))
    sender.watch(said)
    assert [one["kind"] for one in store.latest(5)] == ["labels-stopped"]
    for late in (1, 2):
        sender.watch(said + DOWN_SECONDS + late)
    assert sorted(one["kind"] for one in store.latest(5)) == ["healer-down", "labels-stopped"]
    channel.close()


def at(event: Event, minute: int) -> Event:
    return replace(
        event, at=f"2026-01-01T{minute // 60:02}:{minute % 60:02}:00.000+00:00", sequence=minute
    )


def test_what_is_told_of_a_runs_events() -> None:
    drifts = example(events.BatchScored, drifting=True)
    calm = example(events.BatchScored, drifting=False)
    course = [
        example(events.RunStarted), example(events.HealRejected), example(events.HealPublished),
        example(events.RolledBack), example(events.ModeChanged), example(events.ProposalMade),
        example(events.HealingPaused), drifts, drifts, calm, drifts,
        diagnosed(1, Advice.HEAL, "heal"), diagnosed(2, Advice.GONE, "gone"),
        diagnosed(3, Advice.GONE, "gone"),
        example(events.ChampionFollowed, batch=0), example(events.ChampionFollowed, batch=4),
    ]  # fmt: skip
    fold = NoticeFold("fraud")
    told = [one for minute, event in enumerate(course) for one in fold.add(at(event, minute))]
    assert [one.kind for one in told] == [
        "heal-refused", "rollback", "mode-changed", "proposal", "paused", "drift", "verdict",
        "champion-moved",
    ]  # fmt: skip
    assert all(one.text for one in told)
    proposal = re.search(
        r"^proposal (\d+): .*; 'selfheal approve (\d+) --model fraud'", told[3].text
    )
    assert proposal and proposal[1] == proposal[2]
    assert not list(fold.add(at(calm, 20)))
    assert [one.kind for one in fold.add(at(drifts, 90))] == ["drift"]  # an hour later
    another = NoticeFold("fraud")
    list(another.add(example(events.RunStarted, run_id="another")))
    (mode,) = another.add(at(example(events.ModeChanged), 9))
    assert mode.id == told[2].id  # each run says it when it begins
    (rollback,) = another.add(at(example(events.RolledBack), 3))
    assert rollback.id != told[1].id


def test_what_a_healer_had_no_time_to_write_is_told_by_the_next(
    store: NoticeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = NoticeWriter(store)

    def full(notices: Any) -> None:
        raise StorageError("the disk is full")

    with closing(EventLog(Path("events.jsonl"), now)) as log:
        for event in (example(events.RunStarted), example(events.RolledBack)):
            writer.see(log.append(event))
        left = log.append(example(events.HealingPaused))
        log.sync()
    assert [one["kind"] for one in store.latest(5)] == ["rollback"]
    NoticeWriter(store).catch_up(Path("events.jsonl"))
    assert [one["kind"] for one in store.latest(5)] == ["paused", "rollback"]
    with monkeypatch.context() as patch:
        patch.setattr(store, "put", full)
        writer.see(left)  # it holds up nothing
    writer.see(replace(left, sequence=99))
    assert [one["kind"] for one in store.latest(5)] == ["paused", "paused", "rollback"]


def test_the_command_lists_events_and_sends_again(
    store: NoticeStore, invoke: Invoke, clock: Clock
) -> None:
    store.introduce(["ops"])
    store.put([notice()])
    store.failed("ops", 1, "answered 500")
    clock.now += PATIENCE
    store.failed("ops", 1, "answered 500")
    assert "ops: aside (answered 500)" in invoke("events", "list", "fraud", "--wide").stdout
    assert json.loads(invoke("events", "resend", "fraud", "--json").stdout) == {"resent": 1}
    assert "was not served in this folder" in invoke("events", "list", "other", expect=3).stderr


def test_a_signature_is_over_id_time_and_body() -> None:
    assert signature("k", "1", "2", "{}") != signature("k", "1", "3", "{}")


def test_a_server_tells_what_its_healer_wrote_down(short_run: Path, tmp_path: Path) -> None:
    receiver = Receiver()
    with receiver.listening() as url:
        hook = Webhook(name="ops", url=url, kinds=("rollback",))
        with serving(short_run, tmp_path, webhooks=(hook,)) as running:
            store = NoticeStore("fraud", tmp_path)
            until(lambda: store.knows("ops"))
            store.put([notice(1, "drift"), notice(2)])
            until(lambda: bool(receiver.got))
            until(lambda: 'state="done",target="ops"} 1.0' in running.get("/metrics").text)
            store.close()
    assert [json.loads(body)["data"]["text"] for _, _, body in receiver.got] == ["thing 2"]
