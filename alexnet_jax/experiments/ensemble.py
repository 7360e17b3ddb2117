"""The errors of several finished runs as one network: their probabilities are averaged, as in table 2 of the paper."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from alexnet_jax.data.pipeline import Source
from alexnet_jax.evaluation import ensemble
from alexnet_jax.evaluation.tally import Tally
from alexnet_jax.experiment import follow
from alexnet_jax.experiment.data import open_data
from alexnet_jax.loading import load
from alexnet_jax.trained import Trained


def measure_ensemble(
    workdirs: Sequence[Path], data_dir: str | None, all_views: Iterable[int] = (1, 10)
) -> dict[str, float]:
    """Errors in [0, 1] and losses in nats by name, and the number of images, on the runs' evaluation split.

    Args:
      workdirs: of the runs, all with one data set; a single one is no ensemble, but evaluated alike.
      data_dir: of prepared data sets; None: TFDS's own.
      all_views: numbers of views, each of `geometry.VIEWS`.

    Raises:
      UsageError: a workdir has no checkpoint, or the networks have different classes.
    """
    networks = [load(str(workdir), data_dir=data_dir) for workdir in workdirs]
    ensemble.check_members(networks)
    source = evaluation_source(networks[0], data_dir)
    weights = ensemble.read_weights(None, len(networks))
    errors: dict[str, float] = {}
    for views in all_views:
        tally = Tally(len(networks[0].classes))
        for block, _ in ensemble.predictions(networks, weights, source, views=views):
            tally.add(block.labels, block.log_probs)
        errors |= {f"{name}_{views}_views": value for name, value in tally.means().items()}
    return errors | {"count": len(source)}


def evaluation_source(network: Trained, data_dir: str | None) -> Source:
    """The evaluation split of a network's run."""
    data = open_data(network.settings.dataset.name, data_dir, say=print)
    return data.split(follow.evaluation_split(network.settings, data))
