"""Work side by side in processes, with the same answers in the same order."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from selfheal_cli.model.threads import use_one_thread

T = TypeVar("T")


def side_by_side(
    jobs: int, work: Callable[..., T], tasks: Sequence[tuple[Any, ...]]
) -> Iterator[T]:
    """What ``work`` gives for each task's arguments, in their order; ``jobs`` processes at once.

    One is this process. Each process computes on one thread, so that the bytes are the same.
    """
    if min(jobs, len(tasks)) <= 1:
        yield from (work(*task) for task in tasks)
        return
    from joblib import Parallel, delayed
    from joblib.parallel import get_active_backend

    # Ray's gives all at the end
    kind = "generator" if get_active_backend()[0].supports_return_generator else "list"
    parallel = Parallel(n_jobs=jobs, return_as=kind, batch_size=1, pre_dispatch=jobs)
    here = Path.cwd()
    yield from parallel(delayed(_on_one_thread)(here, work, *task) for task in tasks)


def _on_one_thread(here: Path, work: Callable[..., T], *task: Any) -> T:
    os.chdir(here)  # a process of Ray's begins in a folder of its own
    use_one_thread()
    return work(*task)
