"""How many threads PyTorch and numpy's linear algebra use."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_limits


def use_one_thread() -> None:
    """Networks this small are faster on one thread, and the same bytes come out each time.

    The same holds for numpy's linear algebra: threads that wait for a busy core cost seconds.
    """
    torch.set_num_threads(1)
    threadpool_limits(limits=1, user_api="blas")


def use_one_thread_here() -> None:
    """`use_one_thread` for PyTorch in the calling thread alone: the process keeps its number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    # threads that begin later take the number that was set last, by whichever thread
    putting_back = threading.Thread(target=torch.set_num_threads, args=(before,))
    putting_back.start()
    putting_back.join()


@contextmanager
def threads_as_before() -> Iterator[None]:
    """What `use_one_thread` changes within the block is put back after it."""
    before = torch.get_num_threads()
    with threadpool_limits(limits=1, user_api="blas"):
        try:
            yield
        finally:
            torch.set_num_threads(before)
