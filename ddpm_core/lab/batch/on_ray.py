"""Jobs done on a Ray cluster: one actor a GPU, which loads the model once."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch

from .jobs import Failure, Worker, answer, told_of
from .local import KILLED


class OnRay:
    """Does jobs in Ray actors. ``address`` is that of a cluster, "auto" the one that this machine
    belongs to, "local" a new one on this machine; ``count`` actors, or one a GPU, or without GPUs one
    a CPU.

    A job whose actor dies is done again, once, by Ray itself, which starts the actor anew. Raises
    ValueError without Ray, and ConnectionError without a cluster.
    """

    def __init__(self, kind: type[Worker], args: argparse.Namespace, address: str, count: int | None):
        try:
            import ray
        except ImportError as error:
            how = "python -m pip install -r requirements-ray.txt"
            raise ValueError(f"--ray needs Ray: install it with {how}. Importing it failed: {error}") from error
        self._ours = not ray.is_initialized()
        if self._ours:
            package = Path(__file__).parents[2]  # the machines of the cluster run the code of this one
            options = {"runtime_env": {"py_modules": [str(package)]}, "log_to_driver": False, "logging_level": "error"}
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no report of ours to Ray's makers
            ray.init(address, **options, **({"include_dashboard": False} if address == "local" else {}))
        needs = "GPU" if torch.device(args.device).type == "cuda" else "CPU"
        there = int(ray.cluster_resources().get(needs, 0))
        if not there:
            raise ValueError(f"--device {args.device} needs a {needs} in the Ray cluster, which has none.")
        count = count or there
        share = {"num_gpus": 1} if needs == "GPU" else {"num_cpus": max(1, there // count)}
        values = vars(args).items()  # the actors have another current folder
        args = argparse.Namespace(**{name: v.absolute() if isinstance(v, Path) else v for name, v in values})
        hand = ray.remote(Hand).options(**share, max_restarts=-1, max_task_retries=1)
        self._hands = [hand.remote(kind, args, share.get("num_cpus")) for _ in range(count)]

    def __enter__(self) -> OnRay:
        return self

    def __exit__(self, *error) -> None:
        import ray

        for hand in self._hands:
            ray.kill(hand)
        if self._ours:
            ray.shutdown()

    def run(self, jobs: Iterable) -> Iterator[tuple[object, dict | Failure]]:
        """As ``Here.run``; jobs come as they are finished, the rows of one together."""
        from ray.exceptions import RayActorError
        from ray.util import ActorPool

        pool, given, jobs = ActorPool(self._hands), {}, enumerate(jobs)
        while True:
            while pool.has_free() and (numbered := next(jobs, None)):
                given.update([numbered])
                pool.submit(lambda hand, numbered: hand.answer.remote(*numbered), numbered)
            if not pool.has_next():
                break
            try:
                number, told = pool.get_next_unordered()
            except RayActorError:  # which job it was, Ray does not say: the one that nobody answers
                continue
            job = given.pop(number)
            yield from told_of(job, told)
        for job in given.values():
            yield job, Failure(KILLED, job.size)


class Hand:
    """The actor: a worker and its answers."""

    def __init__(self, kind: type[Worker], args: argparse.Namespace, threads: int | None):
        if threads:
            torch.set_num_threads(threads)
        self._worker = kind(args)

    def answer(self, number: int, job) -> tuple[int, list]:
        return number, answer(job, self._worker)
