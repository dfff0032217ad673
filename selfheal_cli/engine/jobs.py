"""What joblib does side by side, done by the processes of a Ray cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from selfheal_cli.engine.cluster import connected
from selfheal_cli.errors import NoAnswer, SelfhealError, one_line


@contextmanager
def jobs_on_cluster(jobs: int) -> Iterator[None]:
    """Within the block so many jobs of joblib's run on a cluster at once.

    Raises as `connected`, what a job raised, and `NoAnswer` where the cluster failed.
    """
    with connected(jobs):
        from joblib import parallel_config
        from ray.exceptions import RayError, RayTaskError
        from ray.util.joblib import register_ray

        register_ray()
        try:
            with parallel_config(backend="ray"):
                yield
        except RayTaskError as exc:
            if isinstance(exc.cause, SelfhealError):
                raise exc.cause from None
            raise
        except RayError as exc:
            raise NoAnswer(f"the Ray cluster failed: {one_line(exc)[:500]}") from exc
