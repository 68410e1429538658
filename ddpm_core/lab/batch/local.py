"""Jobs done on this machine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from .jobs import Failure, Worker, finished


class Here:
    """Does jobs one after the other, in this process."""

    def __init__(self, worker: Worker):
        self.worker = worker

    def __enter__(self) -> Here:
        return self

    def __exit__(self, *error) -> None:
        pass

    def run(self, jobs: Iterable) -> Iterator[tuple[object, dict | Failure]]:
        """(job, row), and (job, Failure) where a job ended early."""
        for job in jobs:
            for row in finished(job, self.worker):
                yield job, row
