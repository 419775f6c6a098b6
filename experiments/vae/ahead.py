"""Compile the programs of a cell while another one trains."""

import concurrent.futures
import contextlib
from collections.abc import Iterator
from typing import NamedTuple

from experiments.vae import evaluation, images, training
from experiments.vae.models import make_model
from experiments.vae.settings import Settings


class Programs(NamedTuple):
    """What a cell runs on one device, compiled, as far as it is there."""

    train: training.Programs | None = None
    evaluate: evaluation.Programs | None = None


def compile_all(settings: Settings, data: images.AnyDataset, *, in_turn: bool) -> Programs:
    """Compile what training and evaluation of a cell run on one device."""
    model = make_model(settings, pixel_mean=images.pixel_mean(data))
    of_training = training.make_programs(model, settings, data, in_turn=in_turn)
    of_evaluation = evaluation.make_programs(model, settings, data)
    best = of_training.state_shapes(settings).best
    return Programs(
        training.compiled(of_training, settings, data),
        evaluation.compiled(of_evaluation, settings, best, data),
    )


class Compiler:
    """One thread that compiles."""

    def __init__(self, pool: concurrent.futures.ThreadPoolExecutor):
        self._pool = pool
        self._begun: dict[str, concurrent.futures.Future[Programs]] = {}

    def begin(self, settings: Settings, data: images.AnyDataset, *, in_turn: bool) -> None:
        """Begin to compile the programs of a cell, unless that was begun before. Returns at once."""
        if settings.name() not in self._begun:
            self._begun[settings.name()] = self._pool.submit(compile_all, settings, data, in_turn=in_turn)

    def take(self, settings: Settings) -> Programs | None:
        """The programs of a cell, if that was begun. None if it failed: who compiles them again sees the reason."""
        begun = self._begun.pop(settings.name(), None)
        return None if begun is None or begun.exception() is not None else begun.result()


@contextlib.contextmanager
def compiler() -> Iterator[Compiler]:
    """A compiler. At the end of the context it gives up what it has not begun."""
    pool = concurrent.futures.ThreadPoolExecutor(1)
    try:
        yield Compiler(pool)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
