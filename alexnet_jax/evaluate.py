"""Error rates of a checkpoint: `python -m alexnet_jax.evaluate --workdir=runs/elpv --views=10`.

Restores on whatever devices there are, however the run was laid out. Several workdirs are an ensemble, whose members'
probabilities are averaged: `--workdir=runs/a --workdir=runs/b --weights=0.6,0.4`. The line of each member comes first.

More about the errors: `--per_class --confusion=confusion.png --predictions=predictions.csv`.
"""

import contextlib
import dataclasses
import hashlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

if not __package__:  # `python alexnet_jax/evaluate.py` puts this folder on the path; its parent holds the package
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
if __name__ == "__main__":  # before the other imports
    from alexnet_jax import startup

    startup.leave_on_interrupt()

import numpy as np
from absl import flags
from etils import epath
from jaxtyping import Float

from alexnet_jax import cli, cli_network, loading
from alexnet_jax.data import geometry
from alexnet_jax.data import preprocessing as preprocessings
from alexnet_jax.data.dataset import Dataset
from alexnet_jax.data.pipeline import Source
from alexnet_jax.data.preprocessing import Preprocessing
from alexnet_jax.drawing import canvas
from alexnet_jax.drawing import confusion as confusion_picture
from alexnet_jax.errors import UsageError
from alexnet_jax.evaluation import ensemble, tables
from alexnet_jax.evaluation.predictions import Block
from alexnet_jax.evaluation.report import Member, Report
from alexnet_jax.evaluation.tally import Tally
from alexnet_jax.experiment import follow
from alexnet_jax.experiment.data import open_data
from alexnet_jax.hints import hints
from alexnet_jax.network.native import build as native
from alexnet_jax.paths import is_file
from alexnet_jax.progress_line import progress_line
from alexnet_jax.runtime import processes
from alexnet_jax.trained import Trained
from alexnet_jax.workdir import data_identity, record
from alexnet_jax.workdir.checkpoint import Checkpoints, choose_step

flags.adopt_module_key_flags(cli_network)  # so that --help lists them
SPLIT = flags.DEFINE_string(
    "split",
    None,
    "Split, in TFDS's notation, such as 'test[:100]'; default: that of the run, or another --dataset's usual one.",
)
DATASET = flags.DEFINE_string("dataset", None, "Prepared data set with the run's classes; default: the run's.")
VIEWS = flags.DEFINE_enum("views", "1", list(map(str, geometry.VIEWS)), geometry.VIEWS_HELP)
WEIGHTS = flags.DEFINE_string("weights", None, "Weights of an ensemble's members, such as 0.6,0.4; default: equal.")
PER_CLASS = flags.DEFINE_bool("per_class", False, "Also print the error of each class.")
CONFUSION = flags.DEFINE_multi_string(
    "confusion", [], "FILE.csv, .png or .svg for how many images of each class were predicted as each other class."
)
PREDICTIONS = flags.DEFINE_string("predictions", None, "FILE.csv for the probabilities of each image.")
DISTRIBUTED = flags.DEFINE_enum("distributed", "auto", ["auto", "on", "off"], processes.HELP)
JSON = flags.DEFINE_bool("json", False, "Print one JSON object and nothing else.")


@dataclasses.dataclass(frozen=True)
class Outputs:
    """The files that the flags name. Of several processes, the first has them."""

    confusion: Sequence[epath.Path] = ()
    predictions: epath.Path | None = None


@hints()
def main() -> None:
    """Prints the error rates of one checkpoint, or of an ensemble and its members."""
    processes.start(DISTRIBUTED.value)
    folders = _folders()
    weights = ensemble.read_weights(WEIGHTS.value, len(folders))
    outputs = _outputs() if processes.index() == 0 else Outputs()
    processes.agree(_facts_of_command(folders))
    operations = cli_network.start(folders)
    networks = _open_networks(folders)
    data, dataset = _open_data(folders, networks)
    split = _split_of(folders, networks, data, dataset)
    source = data.split(split)
    processes.agree(data.facts() | {"the split": split})
    cli_network.say(operations)
    total, members = _evaluate(networks, weights, source, outputs.predictions)
    if total.undefined:
        cli_network.say(
            f"warning: {total.undefined:,} images have probabilities that are not finite; they count as errors, and are"
            " in no column of a confusion matrix"
        )
    report = Report(
        members=[
            Member(name, network.step, float(weight), tally.means())
            for name, network, weight, tally in zip(
                cli_network.WORKDIR.value or [], networks, weights, members, strict=True
            )
        ],
        total=total,
        class_names=networks[0].classes,
        views=int(VIEWS.value),
        dataset=dataset,
        split=split,
    )
    form = report.as_json if JSON.value else report.as_text
    if processes.index() == 0:
        cli.print_results(form(per_class=PER_CLASS.value) + "\n")
    _write_confusion(total, networks[0].classes, outputs.confusion)  # where that fails, the errors are printed already


def _folders() -> list[epath.Path]:
    folders = cli_network.folders()
    real = [str(name) if "://" in str(name) else os.path.realpath(name) for name in folders]  # links are names, too
    twice = [name for number, name in enumerate(folders) if real[number] in real[:number]]
    if twice:
        raise UsageError(f"--workdir={twice[0]} is given twice; name each member once, and weigh it with --weights")
    return folders


def _outputs() -> Outputs:
    """The files for results, checked before the evaluation, which may take hours.

    Raises:
      UsageError: a file cannot be written, or matplotlib is missing for a picture.
    """
    confusion = [cli_network.output_file("--confusion", name, (".csv", *canvas.SUFFIXES)) for name in CONFUSION.value]
    if any(file.suffix.lower() != ".csv" for file in confusion):
        canvas.need_matplotlib()
    name = PREDICTIONS.value
    predictions = None if name is None else cli_network.output_file("--predictions", name, (".csv",))
    files = [*confusion, *([] if predictions is None else [predictions])]
    if repeated := next((file for number, file in enumerate(files) if file in files[:number]), None):
        raise UsageError(f"{repeated} is named for two results, and the second would replace the first; name another")
    return Outputs(confusion, predictions)


def _facts_of_command(folders: Sequence[epath.Path]) -> dict[str, Any]:
    """The facts that all processes must share before they open anything: the flags, and the config of each run."""
    chosen = (VIEWS, SPLIT, DATASET, WEIGHTS, cli_network.CHECKPOINT)
    facts = {f"--{flag.name}": flag.value for flag in chosen} | {"--workdir": ", ".join(map(str, folders))}
    for folder in folders:
        of = f" of {folder}" if len(folders) > 1 else ""
        facts |= {f"{key}{of}": value for key, value in record.facts(record.read_config(folder)).items()}
    return facts


def _open_networks(folders: Sequence[epath.Path]) -> list[Trained]:
    """The networks, of checkpoints on which all processes agree.

    Raises:
      UsageError: a workdir has no such checkpoint, or the networks are no ensemble.
    """
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(contextlib.closing(loading.open_checkpoints(folder))) for folder in folders]
        steps = [_step_of(folder, checkpoints) for folder, checkpoints in zip(folders, opened, strict=True)]
        # With and without native kernels, the programs would wait for different sums.
        facts: dict[str, Any] = {"the native kernels": native.available()}
        for folder, step in zip(folders, steps, strict=True):
            shown = is_file(folder / preprocessings.FILE_NAME)
            facts |= {f"the checkpoint of {folder}": step, f"whether {folder} shows {preprocessings.FILE_NAME}": shown}
        processes.agree(facts)
        networks = [
            loading.restore(folder, checkpoints, step, data_dir=cli_network.DATA_DIR.value)
            for folder, checkpoints, step in zip(folders, opened, steps, strict=True)
        ]
    ensemble.check_members(networks)
    processes.agree({f"the preprocessing of {network.name}": _digest(network.preprocessing) for network in networks})
    return networks


def _step_of(folder: epath.Path, checkpoints: Checkpoints) -> int:
    try:
        return choose_step(checkpoints, cli_network.CHECKPOINT.value)
    except UsageError as error:
        if len(cli_network.folders()) > 1:
            raise UsageError(f"{folder}: {error}") from error
        raise


def _digest(preprocessing: Preprocessing) -> str:
    return hashlib.sha256(preprocessings.to_bytes(preprocessing)).hexdigest()[:16]


def _open_data(folders: Sequence[epath.Path], networks: Sequence[Trained]) -> tuple[Dataset, str]:
    """The data set to evaluate on, and its name: that of `--dataset`, else the runs' own.

    Raises:
      UsageError: the data set does not fit, or it is the name of a run's own with other data.
    """
    own = [network.settings.dataset.name for network in networks]
    name = DATASET.value or own[0]
    other = next((number for number, theirs in enumerate(own) if theirs != own[0]), None)
    if DATASET.value is None and other is not None:
        raise UsageError(
            f"{folders[0]} was trained on {own[0]} and {folders[other]} on {own[other]}; name the data set to evaluate"
            " on with --dataset"
        )
    say, data_dir = cli_network.say, cli_network.DATA_DIR.value
    data = processes.first_then_rest(lambda: open_data(name, data_dir, say=say, named="--dataset"))
    identity = data.identity()
    for folder, network in zip(folders, networks, strict=True):
        if follow.is_data_of(network.settings, data, name):
            data_identity.check(folder, identity)
        ensemble.check_data(network, data, name)
    return data, name


def _split_of(folders: Sequence[epath.Path], networks: Sequence[Trained], data: Dataset, name: str) -> str:
    """The split to evaluate on: that of `--split`, else the runs' evaluation split.

    Raises:
      UsageError: the runs have different ones.
    """
    if SPLIT.value is not None:
        return SPLIT.value
    splits = [follow.evaluation_split(follow.on_data(network.settings, data, name), data) for network in networks]
    other = next((number for number, split in enumerate(splits) if split != splits[0]), None)
    if other is not None:
        raise UsageError(
            f"{folders[0]} was evaluated on {splits[0]} and {folders[other]} on {splits[other]}; name the split with"
            " --split"
        )
    return splits[0]


def _evaluate(
    networks: Sequence[Trained], weights: Float[np.ndarray, " members"], source: Source, file: epath.Path | None
) -> tuple[Tally, list[Tally]]:
    """Sums over the split, of the ensemble and of each member; also writes the predictions, if a file is named."""
    total, *members = (Tally(len(networks[0].classes)) for _ in range(1 + len(networks)))
    show = progress_line("evaluated", len(source))
    with contextlib.ExitStack() as stack:
        write: Callable[[Block], object] | None = None
        if file is not None:
            write = stack.enter_context(tables.prediction_rows(file, networks[0].classes, source))
        views = int(VIEWS.value)
        for block, parts in ensemble.predictions(networks, weights, source, views=views, progress=show):
            total.add(block.labels, block.log_probs)
            for tally, part in zip(members, parts, strict=True):
                tally.add(part.labels, part.log_probs)
            if write is not None:
                write(block)
    return total, members


def _write_confusion(total: Tally, class_names: Sequence[str], files: Sequence[epath.Path]) -> None:
    """Writes the confusion matrix as CSV, or draws it.

    Raises:
      UsageError: a file cannot be written.
    """
    for file in files:
        if (suffix := file.suffix.lower()) == ".csv":
            content = tables.confusion_rows(total.confusion(), class_names)
        else:
            figure = confusion_picture.draw(total.confusion(), class_names, total.count)
            content = canvas.as_bytes(figure, suffix)
        cli_network.write_output(file, content)


if __name__ == "__main__":
    cli.run(main)
