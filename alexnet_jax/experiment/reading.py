"""How many processes read images, and the memory they take."""

import contextlib
from collections.abc import Callable, Iterator

import jax

from alexnet_jax.data.batch import Shard
from alexnet_jax.data.filling import EvalPlan
from alexnet_jax.data.pipeline import usable_cores
from alexnet_jax.data.process import MEMORY
from alexnet_jax.data.ring import ring_of
from alexnet_jax.data.workers import Workers
from alexnet_jax.errors import reason_of
from alexnet_jax.experiment.build import train_plan
from alexnet_jax.experiment.fields import Settings
from alexnet_jax.runtime import output

MIN_CROPS = 128  # of a batch: an evaluation need not take the small batches that train well
MOST_WORKERS = 64  # with workers=None; they take 4 GB


def worker_count(wanted: int | None, platform: str) -> int:
    """The number of processes that read images; 0: threads read them.

    An update on a CPU takes longer than its images, and needs the cores. On one core threads are as fast.

    Args:
      wanted: `config.dataset.workers`.
      platform: of the devices.
    """
    if wanted is not None:
        return wanted
    cores = usable_cores()
    return 0 if platform == "cpu" or cores == 1 else min(cores, MOST_WORKERS)


def devices_mirror(wanted: int | None, platform: str) -> bool:
    """Whether the devices mirror the crops: the same in all processes, which have to run the same programs.

    Args:
      wanted: `config.dataset.workers`.
      platform: of the devices.
    """
    return platform != "cpu" if wanted is None else wanted > 0


def open_workers(wanted: int | None, *, say: Callable[[str], None] = output.warn) -> Workers | None:
    """Starts the processes that read images; None: threads read them.

    Args:
      wanted: `config.dataset.workers`.
      say: prints a line.
    """
    count = worker_count(wanted, jax.default_backend())
    if not count:
        return None

    def refused(reason: str) -> None:
        say(
            f"warning: {reason}; threads read the images in their place; a smaller config.dataset.workers or"
            " config.batch_size needs less, and 0 workers are threads"
        )

    try:
        workers = Workers(count, refused)
    except OSError as error:
        refused(f"there is no shared memory ({reason_of(error)})")
        return None
    workers.start()
    return workers


@contextlib.contextmanager
def some_workers(wanted: int | None) -> Iterator[Workers | None]:
    """Processes that read images within the block; None: threads read them.

    Args:
      wanted: `config.dataset.workers`.
    """
    workers = open_workers(wanted)
    try:
        yield workers
    finally:
        if workers is not None:
            workers.close()


def describe_workers(settings: Settings, crop_size: int) -> str:
    """The processes of a run on one machine, and their memory, as a line of text.

    Args:
      settings: of the run.
      crop_size: pixels along a side.
    """
    wanted, cores = settings.dataset.workers, usable_cores()
    count = worker_count(wanted, "gpu")
    if not count:
        return f"images are read by {cores} thread{'s' * (cores > 1)}, one a core"
    crops = max(settings.batch_size, MIN_CROPS)
    plans = (
        train_plan(settings, Shard(), crop_size),
        EvalPlan(crops, Shard(), crop_size, 1),
        EvalPlan(crops // 10, Shard(), crop_size, 10),
    )
    train, *evaluations = (ring_of(plan, count).size / 1e6 for plan in plans)
    where = "" if wanted else " on GPUs and TPUs, by threads on CPUs"
    return (
        f"images are read by {count} worker process{'es' * (count > 1)}{where}: {count * MEMORY / 1e6:,.0f} MB, and"
        f" shared memory of {train:,.0f} MB for updates and {sum(evaluations):,.0f} MB for evaluations"
    )
