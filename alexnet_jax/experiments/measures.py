"""What a row can hold beside errors, read from the run's workdir."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from etils import epath
from jaxtyping import Int

from alexnet_jax.data import geometry
from alexnet_jax.data.filling import name_of, pixels_of
from alexnet_jax.data.preparing.sources import elpv
from alexnet_jax.evaluation.predictions import batch_size_of, predictions
from alexnet_jax.evaluation.tally import predicted_classes
from alexnet_jax.experiment.build import key_of_seed
from alexnet_jax.experiment.data import open_data
from alexnet_jax.experiment.follow import followed
from alexnet_jax.experiments.ensemble import evaluation_source, measure_ensemble
from alexnet_jax.learning.step import stream
from alexnet_jax.loading import load
from alexnet_jax.network.forward import init_variables
from alexnet_jax.network.specialisation import specialisation
from alexnet_jax.retrieval import code_trial
from alexnet_jax.retrieval.columns import Scratch
from alexnet_jax.retrieval.feature_data import open_pictures
from alexnet_jax.retrieval.feature_table import compute
from alexnet_jax.workdir import metrics_log

IMAGES = 64  # of which `signal` is taken
BITS, CODED_LAYER, DATABASE_AND_QUERIES = 64, "fc7", ("train[:20%]", "test[:10%]")  # of `codes`


def curve(workdir: Path, data_dir: str | None) -> list[list[float]]:
    """Epoch, top-1 error and loss of each evaluation during training."""
    return _columns(workdir, ("epoch", "eval/top1", "eval/loss"))


def losses(workdir: Path, data_dir: str | None) -> list[list[float]]:
    """Update, and the mean training loss of the updates since the row before."""
    return _columns(workdir, ("step", "train/loss"))


def towers(workdir: Path, data_dir: str | None) -> dict[str, Any]:
    """How colour-selective conv1's kernels are, tower by tower, as `figures --towers` has it."""
    network = load(str(workdir))
    kernels = np.asarray(jax.device_get(network.params["conv1"]["kernel"]))
    facts = specialisation(kernels, seed=0).facts()
    return {"colour_share": [rounded(share) for share in facts["colour_share"]], "p_value": facts["p_value"]}


def signal(workdir: Path, data_dir: str | None) -> dict[str, float]:
    """Standard deviation of each layer's output at the initial values, on training images."""
    network = load(str(workdir))
    settings, size = network.settings, network.preprocessing.crop_size
    source = open_data(settings.dataset.name, data_dir, say=print).split(followed(settings)[0])
    crops = np.stack([geometry.center_crop(pixels_of(source[i]), size) for i in range(IMAGES)])
    params, batch_stats = init_variables(network.tower, stream(key_of_seed(settings.seed), "init"), size)
    variables = {"params": params, "batch_stats": batch_stats}
    _, kept = network.tower.apply(
        variables, network.preprocessing.inputs(jax.numpy.asarray(crops)), train=False, mutable=["signals"]
    )
    return {
        layer.name: rounded(float(np.std(np.stack(kept["signals"][f"{layer.name}_out"][0]))))
        for layer in network.tower.layers
    }


def codes(workdir: Path, data_dir: str | None) -> dict[str, list[float]]:
    """Ways to search: the share of the exact neighbours found at two depths, and that of the query's class.

    The database is made of training images, the queries of test images; `features --codes` measures the same.
    """
    network = load(str(workdir))
    name = network.settings.dataset.name
    with Scratch(None) as scratch:
        database, queries = (
            compute(
                network,
                open_pictures(name, split, data_dir, known=network.classes, say=print),
                CODED_LAYER,
                with_pixels=True,
                scratch=scratch,
                say=print,
                progress=lambda done: None,
            )
            for split in DATABASE_AND_QUERIES
        )
        options = code_trial.Options(bits=BITS, k=10, seed=network.settings.seed, updates=2000)
        trial = code_trial.run(
            database, queries, options, layer=CODED_LAYER, scratch=scratch, progress=lambda name: lambda done: None
        )
    return {
        result.name: [rounded(float(share)) for share in (*result.recalls, result.same_class or 0)]
        for result in trial.results
    }


def nine_views(workdir: Path, data_dir: str | None) -> float:
    """The top-1 error with nine views, as the code had them when the 13 % net was published."""
    return rounded(measure_ensemble([workdir], data_dir, [9])["top1_9_views"])


def weighted(workdir: Path, data_dir: str | None) -> float:
    """The top-1 error with ten views of a run on ELPV, counted as in `published_error`."""
    network = load(str(workdir))
    source = evaluation_source(network, data_dir)
    blocks = predictions(network, source, views=10, batch_size=batch_size_of([network], 10))
    answers = np.concatenate([predicted_classes(block.log_probs) for block in blocks])
    return rounded(published_error([str(name_of(source[number])) for number in range(len(source))], answers))


def published_error(cells: Iterable[str], answers: Int[np.ndarray, "..."]) -> float:
    """The error on cells of ELPV as Deitsch et al. 2019 count it (table 1).

    A cell that may be defective counts as defective, and its weight is the probability of a defect.

    Args:
      cells: names of their files.
      answers: for each cell, or for all: 0, functional, or 1, defective.
    """
    probabilities = {name: probability for name, probability, _ in elpv.read_labels()}
    defect = np.array([probabilities[name] for name in cells])
    return float(np.average(answers != (defect > 0), weights=np.where(defect > 0, defect, 1)))


def _columns(workdir: Path, names: tuple[str, ...]) -> list[list[float]]:
    rows = metrics_log.read_rows(epath.Path(workdir))
    return [[rounded(row[name]) for name in names] for row in rows if all(row.get(name) is not None for name in names)]


def rounded(value: Any) -> Any:
    """A fraction with five digits behind the point; anything else as it is."""
    return round(value, 5) if isinstance(value, float) else value


MEASURES: Mapping[str, Callable[[Path, str | None], Any]] = {
    "codes": codes,
    "curve": curve,
    "losses": losses,
    "nine_views": nine_views,
    "signal": signal,
    "towers": towers,
    "weighted": weighted,
}
