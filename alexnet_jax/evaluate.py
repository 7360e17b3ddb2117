"""Error rates of a checkpoint: `python -m alexnet_jax.evaluate --workdir=runs/elpv --views=10`.

Restores on whatever devices there are, however the run was laid out.
"""

import dataclasses
import os
import sys
from collections.abc import Callable

if not __package__:  # `python alexnet_jax/evaluate.py` puts this folder on the path; its parent holds the package
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

from absl import flags
from etils import epath

from alexnet_jax import cli, strict_json
from alexnet_jax.errors import UsageError
from alexnet_jax.evaluation import evaluate, restore
from alexnet_jax.experiment import build as experiments
from alexnet_jax.experiment.fields import Settings
from alexnet_jax.experiment.settings import read_settings
from alexnet_jax.hints import hints
from alexnet_jax.network.native import build as native
from alexnet_jax.runtime import processes
from alexnet_jax.workdir import data_identity
from alexnet_jax.workdir import record as workdirs
from alexnet_jax.workdir.checkpoint import Checkpoints, choose_step

WORKDIR = flags.DEFINE_string("workdir", None, "Workdir of a training run.")
CHECKPOINT = flags.DEFINE_string("checkpoint", "last", "last, best (by validation error), or the number of a step.")
SPLIT = flags.DEFINE_string("split", None, "Split in TFDS's notation; default: the run's evaluation split.")
DATASET = flags.DEFINE_string("dataset", None, "Prepared data set with the run's classes; default: the run's.")
VIEWS = flags.DEFINE_enum("views", "1", ["1", "10"], "1: the centre crop; 10: the paper's ten views, averaged.")
DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder of prepared data sets; default: TFDS's own.")
DISTRIBUTED = flags.DEFINE_enum("distributed", "auto", ["auto", "on", "off"], processes.HELP)
NATIVE = flags.DEFINE_enum("native", "auto", ["auto", "off"], native.HELP)
JSON = flags.DEFINE_bool("json", False, "Print one JSON object and nothing else.")


@hints()
def main() -> None:
    """Prints the error rates of one checkpoint."""
    processes.start(DISTRIBUTED.value)
    if WORKDIR.value is None:
        raise UsageError("--workdir is missing; name the workdir of a training run")
    folder = epath.Path(cli.absolute(WORKDIR.value))
    config = workdirs.read_config(folder)
    chosen = {"--views": VIEWS.value, "--split": SPLIT.value, "--dataset": DATASET.value}
    processes.agree(workdirs.facts(config) | {"--workdir": str(folder)} | chosen)
    # The run's own mesh may not fit here, and changes no number.
    settings = on_split(read_settings(config).on_any_mesh(), SPLIT.value)
    settings = settings.on_data_set(data_identity.form_of(folder, settings.dataset.name))
    operations = cli.start(cpu_devices=experiments.cpu_devices(settings), native=NATIVE.value)
    checkpoints = Checkpoints(folder / workdirs.CHECKPOINTS, read_only=True)
    step = choose_step(checkpoints, CHECKPOINT.value)
    checkpoints.close()
    experiment = experiments.build(settings, DATA_DIR.value, say=_say, evaluate_on=DATASET.value)
    data_identity.check(folder, experiment.data.identity())
    processes.agree(experiment.facts() | {"the checkpoint": step})
    network = restore(experiment, folder, step)
    _say(operations)
    views, images = int(VIEWS.value), len(experiment.eval_source)
    metrics = evaluate(experiment, network.params, network.batch_stats, views=views, stop=_progress(images))
    assert metrics is not None, "nothing stops this evaluation"
    dataset = DATASET.value or settings.dataset.name
    split = str(experiment.settings.dataset.eval_split)
    count = int(metrics.count)
    processes.log(describe(metrics.means(), step=step, views=views, count=count, dataset=dataset, split=split))


def _say(line: str) -> None:
    """Prints a line on process 0, beside the result on standard output."""
    if line and processes.index() == 0:
        print(line, file=sys.stderr, flush=True)


def _progress(images: int) -> Callable[[int], bool]:
    def tell(done: int) -> bool:
        if sys.stderr.isatty() and processes.index() == 0:
            end = "\n" if done >= images else ""
            print(f"\revaluated {done:,}/{images:,} images", end=end, file=sys.stderr, flush=True)
        return False

    return tell


def on_split(settings: Settings, split: str | None) -> Settings:
    """The settings with another evaluation split; None: the same.

    Raises:
      UsageError: the name is empty.
    """
    if split is None:
        return settings
    if not split.strip():
        raise UsageError("--split is empty; name a split, such as test or 'test[:100]'")
    return dataclasses.replace(settings, dataset=dataclasses.replace(settings.dataset, eval_split=split))


def describe(means: dict[str, float], *, step: int, views: int, count: int, dataset: str, split: str) -> str:
    """One line for people, or one JSON object."""
    if JSON.value:
        facts = {"step": step, "views": views, "dataset": dataset, "split": split, "count": count}
        return strict_json.dumps(facts | means)
    errors = "  ".join(f"top-{name[3:]} error {value:.2%}" for name, value in means.items() if name != "loss")
    return (
        f"step {step:,}  {views} view{'s' * (views > 1)}  {errors}  loss {means['loss']:.4f}  {count:,} images of"
        f" {dataset} {split}"
    )


if __name__ == "__main__":
    cli.run(main)
