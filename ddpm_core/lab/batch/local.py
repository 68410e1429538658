"""Jobs done on this machine: in this process, or in several."""

from __future__ import annotations

import argparse
import multiprocessing
import signal
from collections.abc import Iterable, Iterator
from contextlib import suppress
from multiprocessing import connection

import torch

from .jobs import Failure, Worker, answer, finished, told_of

LOST = 3  # jobs in a row whose workers die, after which the run ends: the machine lacks something, not the pictures
KILLED = "its worker was killed, and then the next one (too little memory?)"


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


class Processes:
    """Does jobs in ``count`` processes, each with a worker of its own; they share the threads of this
    one, and have a GPU each where there are as many.

    A job whose process is killed is done again, once. A process starts with its first job.
    """

    def __init__(self, kind: type[Worker], args: argparse.Namespace, count: int):
        threads = max(1, torch.get_num_threads() // count)
        self._hands = [_Hand(kind, on_device(args, number), threads) for number in range(count)]

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *error) -> None:
        for hand in self._hands:
            hand.stop()

    def run(self, jobs: Iterable) -> Iterator[tuple[object, dict | Failure]]:
        """As ``Here.run``; jobs come as they are finished, the rows of one together. Raises ValueError
        where the workers of ``LOST`` jobs in a row die."""
        jobs, lost = iter(jobs), 0
        while True:
            for hand in self._hands:
                job = next(jobs, None) if hand.job is None else None
                if job is not None:
                    hand.give(job)
            busy = {hand.pipe: hand for hand in self._hands if hand.job is not None}
            if not busy:
                return
            for pipe in connection.wait(list(busy)):
                hand = busy[pipe]
                job, told = hand.take()
                if told is None and hand.tries == 1:
                    hand.give(job)
                    continue
                lost = lost + 1 if told is None else 0
                if lost == LOST:
                    raise ValueError(f"{LOST} jobs, one after the other, lost their workers: {KILLED}.")
                yield from told_of(job, [Failure(KILLED, job.size)] if told is None else told)


class _Hand:
    """A process and the job that it has; ``tries`` counts the processes that this job has lost."""

    def __init__(self, *worker):
        self._worker, self._process = worker, None
        self.pipe, self.job, self.tries = None, None, 0

    def give(self, job) -> None:
        if self._process is None:
            self._start()
        self.job = job
        with suppress(ConnectionError):  # a process that is gone says so when its answer is taken
            self.pipe.send(job)

    def take(self) -> tuple[object, list | Exception | None]:
        """The job, and its rows, or what ends the run, or None where the process has been killed."""
        job, self.job = self.job, None
        try:
            told = self.pipe.recv()
        except (EOFError, ConnectionError):
            self.stop()
            self.tries = self.tries % 2 + 1
            return job, None
        self.tries = 0
        return job, told

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, *self._worker), daemon=True)
        self._process.start()
        theirs.close()  # or the end of the process would not be seen here

    def stop(self) -> None:
        """End the process: at once if it works, and otherwise it does so by itself."""
        if self._process is not None:
            self.pipe.close()
            self._process.join(0 if self.job else 10)
            self._process.terminate()
            self._process.join()
            self._process = None


def on_device(args: argparse.Namespace, number: int) -> argparse.Namespace:
    """The settings of worker ``number``: where --device is cuda, its own GPU, in turn."""
    count = torch.cuda.device_count() if args.device == "cuda" else 0
    return argparse.Namespace(**{**vars(args), "device": f"cuda:{number % count}"}) if count else args


def _serve(pipe, kind: type[Worker], args: argparse.Namespace, threads: int) -> None:
    """What a process does: answers jobs until the driver is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ctrl-c is the driver's, who ends this process then
    torch.set_num_threads(threads)
    worker = kind(args)
    with suppress(EOFError, ConnectionError):
        while True:
            pipe.send(answer(pipe.recv(), worker))
