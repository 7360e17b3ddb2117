"""The loop of training: evaluate if due, save if due, fetch a batch, update, report."""

import concurrent.futures
import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, NoReturn

import jax
import numpy as np

from alexnet_jax.data.filling import Source
from alexnet_jax.errors import NotFiniteError, UsageError
from alexnet_jax.evaluation.error_rates import evaluate
from alexnet_jax.experiment.build import Experiment
from alexnet_jax.experiment.feed import Feed
from alexnet_jax.learning.metrics import ZERO, Metrics
from alexnet_jax.learning.step import TrainState
from alexnet_jax.learning.stuck_loss import LABELS, StuckLoss
from alexnet_jax.network import sharding
from alexnet_jax.runtime import allocator, processes
from alexnet_jax.runtime.interruption import Interruption
from alexnet_jax.workdir.checkpoint import Checkpoints
from alexnet_jax.workdir.errors import NotFiniteStateError, SaveError
from alexnet_jax.workdir.metrics_log import row_due
from alexnet_jax.workdir.progress import Progress

STUCK_LOSS_CAUSES = (
    "Likely causes: pixels divided by their deviation under a recipe whose biases start at 1"
    " (config.photometry.standardize, config.network.recipe; try config.network.he_init), or a rate too high or too low"
    " (config.rates)"
)


class Running(NamedTuple):
    """Updates that were started and are not yet reported.

    Attributes:
      step: updates done after them.
      updates: how many.
      metrics: of each, along the first axis, or of the only one.
      waited: seconds for which the devices waited for their images.
      scalars: further numbers by name.
    """

    step: int
    updates: int
    metrics: Metrics
    waited: float
    scalars: dict[str, jax.Array]


class Loop:
    """The updates of a run, and what happens between them.

    `_evaluate_if_due`, `_fetch` and `_update` report to the watchdog what this process does.
    """

    def __init__(
        self,
        experiment: Experiment,
        feed: Feed,
        checkpoints: Checkpoints,
        progress: Progress,
        interruption: Interruption,
    ):
        self._experiment, self._feed, self._checkpoints = experiment, feed, checkpoints
        self._progress, self._interruption = progress, interruption
        self._running: Running | None = None
        self._last_metrics: Metrics | None = None  # of the final state with the centre crop
        self._stuck_loss = StuckLoss(
            classes=len(experiment.data.class_names),
            num_steps=experiment.num_steps,
            labels=lambda: _some_labels(experiment.train_source, LABELS),
        )

    def run(self, state: TrainState, start_step: int) -> TrainState:
        """Makes exactly the updates from `start_step` to the end of the run."""
        self._start_step, num_steps = start_step, self._experiment.num_steps
        self._feed.start(start_step)
        step = start_step
        while True:
            state, means = self._evaluate_if_due(state, step)
            if self._interruption.due():
                self._leave(state, step, means)
            self._save_if_due(state, step, means)
            if step == num_steps:
                break
            count = self._count(step)
            fetched, waited = self._fetch(state, step, count)
            state = self._update(state, step, count, fetched, waited)
            step += count
        self._report()
        return state

    def final_evaluation(self, state: TrainState) -> dict[str, float]:
        """Errors of the final state with the centre crop and with ten views, by name. The state is saved by then.

        Raises:
          SaveError: the state could not be saved.
        """
        step = self._experiment.num_steps
        result: dict[str, float] = {"step": step}
        for views in (1, 10):
            known = self._last_metrics if views == 1 else None
            metrics = self._measure(state, step, views) if known is None else known
            if metrics is None:
                self._leave(state, step, None)
            result |= {f"{name}_{views}_views": value for name, value in metrics.means().items()}
            result["count"] = int(metrics.count)
        self._attempt(self._checkpoints.wait)
        if not self._checkpoints.holds(step):  # once more: no later save will make up for this one
            self._checkpoints.save(step, state, top1=result["top1_1_views"], loss=result["loss_1_views"])
            self._checkpoints.wait()
        self._progress.log.write(step, {f"final/{name}": value for name, value in result.items() if name != "step"})
        self._progress.say(f"finished: {errors_of(result)}")
        return result

    def _is_due(self, step: int, epochs: float | None) -> bool:
        """Whether a multiple of so many epochs lies between the step before and this one; always at the end."""
        assert epochs is not None, "`follow.with_epochs` gives the number"
        every = epochs * self._experiment.steps_per_epoch
        return step == self._experiment.num_steps or step // every > (step - 1) // every

    def _count(self, step: int) -> int:
        """How many updates to make together after `step`: to the next evaluation, save or row of metrics, at most."""
        settings, num_steps = self._experiment.settings, self._experiment.num_steps
        for end in range(step + 1, step + self._feed.longest):
            due = self._is_due(end, settings.evaluate_every) or self._is_due(end, settings.save_every)
            if due or row_due(end, num_steps):
                return end - step
        return self._feed.longest

    def _evaluate_if_due(self, state: TrainState, step: int) -> tuple[TrainState, dict[str, float] | None]:
        """The state, which remembers the evaluation where its schedule wants it, and the metrics, if evaluated."""
        processes.enter(f"evaluating or saving after update {step:,}")
        if not self._is_due(step, self._experiment.settings.evaluate_every) or not self._lacks_error(state, step):
            return state, None
        self._report()
        metrics = self._measure(state, step, views=1)
        if metrics is None:
            return state, None
        if step == self._experiment.num_steps:
            self._last_metrics = metrics
        means = metrics.means()
        self._progress.log.write(step, {f"eval/{name}": value for name, value in means.items()})
        self._progress.say(
            f"epoch {step / self._experiment.steps_per_epoch:.1f}  evaluation of {int(metrics.count):,} images:"
            f" loss {means['loss']:.4f}  top-1 error {means['top1']:.1%}"
        )
        observe = self._experiment.steps.observe
        return (state if observe is None else observe(state, means["top1"])), means

    def _lacks_error(self, state: TrainState, step: int) -> bool:
        """Whether the state was not evaluated yet, which a signal may have cut off before this process began."""
        if step > self._start_step or step == 0:
            return step > 0
        if state.plateau is not None:
            return bool(jax.device_get(state.plateau.seen) < step)
        return not self._checkpoints.is_evaluated(step)

    def _measure(self, state: TrainState, step: int, views: int) -> Metrics | None:
        """The metrics of the evaluation split; None: a signal came."""
        with self._keeping(state, step), self._progress.paused("evaluation"):
            metrics = evaluate(
                self._experiment,
                state.params,
                state.batch_stats,
                views=views,
                feed=self._feed,
                stop=self._interruption.due,
            )
        if metrics is not None and not np.isfinite(metrics.loss):
            self._stop_not_finite(step, "evaluation loss")
        return metrics

    def _save_if_due(self, state: TrainState, step: int, means: dict[str, float] | None) -> None:
        if step > self._start_step and self._is_due(step, self._experiment.settings.save_every):
            self._save(state, step, means)
        elif step == self._start_step and means is not None:
            self._checkpoints.add_error(step, top1=means["top1"], loss=means["loss"])

    def _save(self, state: TrainState, step: int, means: dict[str, float] | None) -> None:
        metrics = means or {}
        self._report()
        with self._progress.paused("saves"):
            self._attempt(self._checkpoints.wait)  # raises where the save before this one failed
            try:
                self._attempt(
                    lambda: self._checkpoints.save(step, state, top1=metrics.get("top1"), loss=metrics.get("loss"))
                )
            except NotFiniteStateError:
                self._stop_not_finite(step, "state")

    def _attempt(self, write: Callable[[], None]) -> None:
        """Writes. After a failure the run goes on, where the config says so or the run is leaving anyway."""
        leaving = self._interruption.agreed is not None
        try:
            write()
        except SaveError as error:
            if self._experiment.settings.on_failed_save == "stop" and not leaving:
                raise
            self._progress.say(f"warning: {error}{'' if leaving else '; the run goes on, and saves when next due'}")

    @contextlib.contextmanager
    def _keeping(self, state: TrainState, step: int) -> Iterator[None]:
        """Reads data. Where the data cannot be read, a single process saves the updates made so far.

        Several processes save together or not at all.
        """
        try:
            yield
        except UsageError:
            if jax.process_count() == 1 and not self._checkpoints.holds(step):
                self._save(state, step, None)
            raise

    def _fetch(self, state: TrainState, step: int, count: int) -> tuple[Any, float]:
        """The next batches on the devices, and the seconds for which the devices waited for them."""
        processes.enter(f"fetching images for update {step + 1:,}")
        begun = time.monotonic()
        with self._keeping(state, step):
            fetched = self._feed.fetch(step, count)
        running: Any = self._running and self._running.metrics.loss
        busy = running is not None and not running.is_ready()
        return fetched, 0.0 if busy else time.monotonic() - begun

    def _update(self, state: TrainState, step: int, count: int, fetched: Any, waited: float) -> TrainState:
        """Starts the updates, and reports those before while these run."""
        processes.enter(f"update {step + 1:,}", slow=step == self._start_step)  # the first update compiles
        state, metrics = self._feed.update(state, fetched, self._experiment.key)
        allocator.keep_large_arrays()  # the first update has compiled its program
        end = step + count
        self._report()  # before the scalars, which a CPU computes at once, when these updates are done
        scalars = self._scalars(state, end) if row_due(end, self._experiment.num_steps) else {}
        self._running = Running(end, count, metrics, waited, scalars)
        return state

    def _scalars(self, state: TrainState, step: int) -> dict[str, jax.Array]:
        """The learning rate of the last update, and the lengths of the kernels after it."""
        last = sharding.put_scalar(np.int32(step - 1), self._experiment.mesh)
        rate = self._experiment.learning_rate(last, state.plateau)
        norms = self._experiment.steps.kernel_norms(state.params)
        return {"train/learning_rate": rate} | {f"train/kernel_norm/{layer}": norm for layer, norm in norms.items()}

    def _report(self) -> None:
        """Waits for the last updates that were started, and reports them."""
        if self._running is None:
            return
        end, count, metrics, waited, scalars = self._running
        self._running = None
        metrics = jax.tree.map(lambda leaf: np.atleast_1d(leaf)[:count], jax.device_get(metrics))
        total = ZERO
        for number in range(count):
            one = jax.tree.map(lambda leaf, number=number: leaf[number], metrics)
            step = end - count + number + 1
            if not np.isfinite(one.loss):
                self._stop_not_finite(step, "loss")
            if stuck := self._stuck_loss.add(step, float(one.loss / one.count)):
                self._progress.say(f"warning: {stuck}. {STUCK_LOSS_CAUSES}. The run goes on")
            total += one
        numbers = {name: float(jax.device_get(value)) for name, value in scalars.items()}
        self._progress.step(end, total, waited=waited, updates=count, scalars=numbers)

    def _stop_not_finite(self, step: int, what: str) -> NoReturn:
        self._attempt(self._checkpoints.wait)
        last = self._checkpoints.last_sound
        kept = "there is no checkpoint yet" if last is None else f"the checkpoint of update {last} is kept"
        advice, settings = "lower the learning rate", self._experiment.settings
        if self._experiment.tower.he_init and not settings.photometry.standardize:
            advice = f"set config.photometry.standardize=True, which initial values of He need, or {advice}"
        raise NotFiniteError(f"the {what} of update {step} is not finite; {kept}; {advice} and start anew")

    def _leave(self, state: TrainState, step: int, means: dict[str, float] | None) -> NoReturn:
        """Saves, and ends the process with the signal's status."""
        if not self._checkpoints.holds(step):
            self._save(state, step, means)
        self._attempt(self._checkpoints.wait)
        last = self._checkpoints.last_sound
        if last == step:
            self._progress.say(f"saved after update {step:,}; the same command resumes here")
        else:
            there = "at the beginning" if last is None else f"after update {last:,}"
            self._progress.say(f"update {step:,} is not saved; the same command resumes {there}")
        self._interruption.leave()


def _some_labels(source: Source, count: int) -> list[int]:
    """The labels of so many examples, from places all over the split. Empty: they cannot be read."""
    places = np.linspace(0, len(source) - 1, min(count, len(source))).astype(int)
    with contextlib.suppress(UsageError), concurrent.futures.ThreadPoolExecutor() as pool:
        return list(pool.map(lambda place: int(source[int(place)]["label"]), places))
    return []


def errors_of(result: dict[str, float]) -> str:
    """The errors of a result, in words."""
    return (
        f"top-1 error {result['top1_1_views']:.1%} (centre), {result['top1_10_views']:.1%} (ten views)"
        f" of {result['count']:,} images"
    )
