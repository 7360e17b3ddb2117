"""Figures of a trained network: `python -m alexnet_jax.figures --workdir=runs/elpv`.

Draws figures 3 and 4 of the paper, curves, the confusion matrix and the worst mistakes as PNG and SVG files, and puts
them into one page, `index.html`, which can be read offline and replaces no `index.html` of another program. A figure
whose data are missing is left out with a line. The run may still be training: its last checkpoint is shown.

    python -m alexnet_jax.figures --workdir=runs/elpv --output=figures    # pictures and page in another folder
    python -m alexnet_jax.figures --workdir=runs/elpv --towers            # how colour-selective each tower is, too
"""

import dataclasses
import os
import sys
from typing import Any

if not __package__:  # `python alexnet_jax/figures.py` puts this folder on the path; its parent holds the package
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
if __name__ == "__main__":  # before the other imports
    from alexnet_jax import startup

    startup.leave_on_interrupt()

import numpy as np
from absl import flags
from etils import epath

from alexnet_jax import cli, cli_network, paths, strict_json
from alexnet_jax.drawing import canvas
from alexnet_jax.drawing.collection import Collection
from alexnet_jax.errors import UsageError
from alexnet_jax.evaluation import ensemble
from alexnet_jax.experiment import follow
from alexnet_jax.experiment.data import open_data
from alexnet_jax.hints import hints
from alexnet_jax.network.specialisation import specialisation
from alexnet_jax.progress_line import progress_line
from alexnet_jax.report import examination, images, kernels, run
from alexnet_jax.report.examination import Examined, Images
from alexnet_jax.trained import Trained
from alexnet_jax.workdir import data_identity, metrics_log

flags.adopt_module_key_flags(cli_network)  # so that --help lists them
OUTPUT = flags.DEFINE_string("output", None, "Folder of the figures; default: figures, in the workdir.")
DATASET = flags.DEFINE_string("dataset", None, "Prepared data set with the run's classes; default: the run's.")
SPLIT = flags.DEFINE_string(
    "split",
    None,
    "Split of the test images, in TFDS's notation; default: that of the run, or another --dataset's usual one.",
)
TRAIN_IMAGES = flags.DEFINE_integer(
    "train_images", 20_000, "Training images among which neighbours are searched, at most.", lower_bound=1
)
SEED = flags.DEFINE_integer("seed", 0, "Seed of the choice of test images and of the permutation test.", lower_bound=0)
TOWERS = flags.DEFINE_bool("towers", False, "Print how colour-selective the kernels of each tower are, and a p-value.")
JSON = flags.DEFINE_bool("json", False, "Print one JSON object and nothing else.")


@hints()
def main() -> None:
    """Writes the figures and the page."""
    folder = cli_network.folder()
    output = epath.Path(paths.absolute(OUTPUT.value)) if OUTPUT.value else folder / "figures"
    canvas.need_matplotlib()
    network = cli_network.open_network()
    made = Collection(output, say=cli_network.say)
    weights = np.asarray(network.params[network.layers[0]]["kernel"])
    towers = specialisation(weights, SEED.value)
    made.add(kernels.exhibit(weights, towers, kernels.is_grey(network.preprocessing.mean_image)))
    _add_curves(made, network, folder)
    examined = _add_data(made, network, folder)
    made.write_page(f"AlexNet: {folder.name}", run.facts(network, folder, examined))
    if JSON.value:
        summary: dict[str, Any] = {"step": network.step, "files": [str(file) for file in made.files]}
        errors: dict[str, Any] = {}
        if examined is not None:
            errors = examined.tally.means() | {"count": int(examined.tally.count.sum()), "images": examined.name}
        summary |= {"left_out": made.left_out, "errors": errors, "towers": towers.facts()}
        cli.print_results(f"{strict_json.dumps(summary)}\n")
        return
    lines = kernels.tower_lines(towers) if TOWERS.value else []
    *pictures, page = made.files
    lines += [
        f"pictures: {', '.join(dict.fromkeys(file.stem for file in pictures))} (.png and .svg)",
        f"page: {page}",
    ]
    cli.print_results("".join(f"{line}\n" for line in lines))


def _add_curves(made: Collection, network: Trained, folder: epath.Path) -> None:
    """Adds the curves of the run, if there are any."""
    try:
        rows = metrics_log.read_rows(folder)
    except UsageError as error:
        made.leave_out("curves", str(error))
        return
    exhibit = run.curves_exhibit(rows, network.settings.schedule)
    if exhibit is None:
        made.leave_out("curves", f"the workdir has no metrics in {metrics_log.ROWS_FILE}, as with imported weights")
    else:
        made.add(exhibit)


def _add_data(made: Collection, network: Trained, folder: epath.Path) -> Examined | None:
    """Adds what the network does with images of its data set; None: there is no classifier, or no data set.

    Raises:
      UsageError: images that a flag names are not there.
    """
    try:
        network.need_classifier()
        test, train = _images(network, folder)
        progress = progress_line("examined", len(test.source))
        examined = examination.examine(network, test, seed=SEED.value, progress=progress)
    except UsageError as error:
        if DATASET.value is not None or SPLIT.value is not None:
            raise
        made.leave_out("predictions, neighbours, confusions and mistakes", str(error))
        return None
    undefined = f"{examined.tally.undefined:,} images of {test.name} have probabilities that are not finite"
    if examined.tally.undefined:
        cli_network.say(f"warning: {undefined}: the numbers of the network overflow; they count as errors")
    if examined.chosen:
        made.add(images.predictions_exhibit(examined))
    else:
        made.leave_out("predictions", undefined)
    _add_neighbours(made, network, test, train)
    if exhibit := images.confusion_exhibit(examined, network.classes):
        made.add(exhibit)
    else:
        made.leave_out("confusions", f"{len(network.classes):,} classes are too many for a picture")
    if exhibit := images.mistakes_exhibit(examined):
        made.add(exhibit)
    else:
        made.leave_out("mistakes", undefined if examined.wrong else f"the network makes none on {test.name}")
    return examined


def _add_neighbours(made: Collection, network: Trained, test: Images, train: Images | None) -> None:
    """Adds the training images nearest to some test images, if they can be found."""
    if train is None:
        made.leave_out("neighbours", "the data set has no training split")
        return
    searched = train.evenly(TRAIN_IMAGES.value)
    progress = progress_line("searched", len(searched.source))
    try:
        neighbours = examination.find(network, test, searched, seed=SEED.value, progress=progress)
    except UsageError as error:
        made.leave_out("neighbours", str(error))
        return
    made.add(images.neighbours_exhibit(neighbours, test.name, train.name, len(train.source)))


def _images(network: Trained, folder: epath.Path) -> tuple[Images, Images | None]:
    """The test images and the training images, if the data set has a training split.

    Raises:
      UsageError: the data set is missing, damaged, or another one than the network was trained on.
    """
    name = DATASET.value or network.settings.dataset.name
    data = open_data(name, cli_network.DATA_DIR.value, say=cli_network.say, named="--dataset")
    if follow.is_data_of(network.settings, data, name):
        data_identity.check(folder, data.identity())
    ensemble.check_data(network, data, name)
    settings = follow.on_data(network.settings, data, name)
    if SPLIT.value is not None:
        settings = dataclasses.replace(settings, dataset=dataclasses.replace(settings.dataset, eval_split=SPLIT.value))
    test, train = follow.evaluation_split(settings, data), follow.training_split(settings, data)

    def images(split: str) -> Images:
        return Images(f"{name} {split}", data.split(split), data.class_names, network.preprocessing.crop_size)

    return images(test), images(train) if train else None


if __name__ == "__main__":
    cli.run(main)
