"""``selfheal score`` by `ray.data`: each part is read, scored and written out by one of the
cluster's processes, and put in its place by the one that asked, in the table's order.
"""

from __future__ import annotations

import io
import json
import logging
import os
import queue
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import IO, TYPE_CHECKING, Any

from selfheal_cli import errors
from selfheal_cli.engine.cluster import connected, has_cpus
from selfheal_cli.errors import NoAnswer, SelfhealError, one_line
from selfheal_cli.model.threads import use_one_thread
from selfheal_cli.pipeline.offline.part_scorer import PartScorer, PartTask
from selfheal_cli.pipeline.offline.scored_parts import ScoredParts

if TYPE_CHECKING:
    from selfheal_cli.pipeline.offline.scoring import Notes

LOOK_SECONDS = 10.0  # without a part, after which the cluster is looked at
FACTS, CONTENT = "facts", "content"
Answer = tuple[dict[str, Any], bytes]
Told = Callable[[int], None]


class RemoteParts:
    """In one of the cluster's processes: pieces of the table to parts of the answer."""

    def __init__(self, task: PartTask) -> None:
        use_one_thread()  # so that the bytes are the same
        self._task = task

    def __call__(self, batch: Any) -> Iterator[dict[str, Any]]:
        """Rows of first and last row number to rows of a part's facts, as JSON, and bytes."""
        for first, last in zip(batch["first"].tolist(), batch["last"].tolist(), strict=True):
            for facts, content in self._answers(first, None if last < 0 else last):
                yield {FACTS: [json.dumps(facts)], CONTENT: [content]}

    def _answers(self, first: int, last: int | None) -> Iterator[Answer]:
        """Parts; at the end what was unusual, or what went wrong."""
        written = io.BytesIO()

        @contextmanager
        def stream() -> Iterator[IO[bytes]]:
            written.seek(0)
            written.truncate()
            yield written

        try:
            scorer = PartScorer(self._task)
            for part in scorer.parts(first, last, stream, lambda row: None):
                facts = {"begin": part.begin, "end": part.end, "counts": part.counts}
                yield facts, written.getvalue()
            yield {"notes": scorer.table.notes()}, b""
        except SelfhealError as exc:
            yield {"error": type(exc).__name__, "says": str(exc)}, b""


def score_on_cluster(scorer: PartScorer, parts: ScoredParts, told: Told) -> Notes:
    """Score what no part has yet on a cluster; a node that dies is made up for.

    Raises `DataError` as a process of its own would, and `NoAnswer` for a cluster that is gone.
    """
    # `ray.data` would be warned of its own actors in the middle of what the command says
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    task = _placed(replace(scorer.task, kinds=scorer.kinds()))
    with connected() as cpus:
        notes: dict[str, int] = {}
        for facts, content in _in_time(_run(task, scorer.cuts(parts.rows), cpus)):
            if "error" in facts:
                raise getattr(errors, facts["error"])(facts["says"])
            if "notes" in facts:
                notes.update(facts["notes"])
                continue
            _keep(parts, facts, content)
            told(parts.rows)
        return notes


def _placed(task: PartTask) -> PartTask:
    """The same with whole paths: each node has a working folder of its own."""
    path = getattr(task.rows, "path", None)
    rows = task.rows if path is None else task.rows.model_copy(update={"path": path.resolve()})
    return replace(task, rows=rows, copy=task.copy.resolve())


def _keep(parts: ScoredParts, facts: dict[str, Any], content: bytes) -> None:
    if facts["begin"] != parts.rows:
        raise NoAnswer(
            f"the part after row {facts['begin']} came after row {parts.rows}: ask again"
        )
    with parts.stream() as stream:
        stream.write(content)
    parts.end(facts["end"], Counter(facts["counts"]))


def _run(task: PartTask, cuts: list[tuple[int, int | None]], cpus: int) -> Iterator[Answer]:
    """What `RemoteParts` answers, in order."""
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    pieces = [{"first": first, "last": -1 if last is None else last} for first, last in cuts]
    answers = ray.data.from_items(pieces, override_num_blocks=len(pieces)).map_batches(
        RemoteParts,
        fn_constructor_args=(task,),
        batch_size=1,
        num_cpus=1,
        compute=ray.data.ActorPoolStrategy(size=min(cpus, len(pieces))),
    )
    for row in answers.iter_rows():
        yield json.loads(row[FACTS]), row[CONTENT]


def _in_time(answers: Iterator[Answer]) -> Iterator[Answer]:
    """The same, but that a cluster without a CPU is an error: Ray would wait for one for ever."""
    waiting: queue.Queue[tuple[bool, Any]] = queue.Queue(maxsize=2)

    def read() -> None:
        try:
            for answer in answers:
                waiting.put((True, answer))
            waiting.put((False, None))
        except Exception as exc:
            waiting.put((False, exc))

    threading.Thread(target=read, name="ray-data", daemon=True).start()
    while True:
        try:
            more, answer = waiting.get(timeout=LOOK_SECONDS)
        except queue.Empty:
            if not has_cpus():
                raise NoAnswer(
                    "no node of the Ray cluster is left; the same command goes on"
                ) from None
            continue
        if more:
            yield answer
        elif answer is None:
            return
        else:
            raise NoAnswer(f"the Ray cluster failed: {one_line(answer)[:500]}") from answer
