"""Several networks as one: their probabilities are averaged, as in the paper's '5 CNNs' and '7 CNNs*' (table 2)."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from jaxtyping import Float

from alexnet_jax.data.dataset import Dataset
from alexnet_jax.data.pipeline import Source
from alexnet_jax.errors import UsageError
from alexnet_jax.evaluation import predictions as single
from alexnet_jax.evaluation.predictions import Block
from alexnet_jax.experiment.reading import some_workers
from alexnet_jax.trained import Trained
from alexnet_jax.workdir.data_identity import first_other_class


def read_weights(text: str | None, members: int) -> Float[np.ndarray, " members"]:
    """The weights of an ensemble's members, which add up to 1.

    Args:
      text: numbers, such as `0.6,0.4`; None: all weights are equal.
      members: how many there are.

    Raises:
      UsageError: there are more or fewer weights than members, or a weight is no positive number.
    """
    if text is None:
        return np.full(members, 1 / members)
    try:
        weights = np.array([float(number) for number in text.split(",")])
    except ValueError as error:
        raise UsageError(f"the weights {text} hold something else than numbers; write for example 0.6,0.4") from error
    if len(weights) != members:
        raise UsageError(
            f"there are {members} network{'s' * (members > 1)} and {len(weights)} weight{'s' * (len(weights) > 1)}"
            f" ({text}); give a weight for each"
        )
    if not (np.isfinite(weights).all() and (weights > 0).all()):
        raise UsageError(f"the weights {text} hold a number that is not positive and finite; leave out such a member")
    weights = weights / weights.max()  # whose sum cannot overflow
    weights = weights / weights.sum()
    if not (weights > 0).all():
        raise UsageError(f"the weights {text} hold a number too small beside another; leave out such a member")
    return weights


def check_members(networks: Sequence[Trained]) -> None:
    """Checks that one data set can serve all networks: classes and stored images are the same. The rest may differ.

    Raises:
      UsageError: a network has no classifier, or classes differ in number, name or order, or sizes of stored images.
    """
    first = networks[0]
    for network in networks:
        network.need_classifier()
        if (difference := _difference(first, network)) is not None:
            raise UsageError(
                f"{network.name} has other classes than {first.name}: {difference}; the members of an ensemble need the"
                " same classes in the same order"
            )
        ours, theirs = first.preprocessing.image_size, network.preprocessing.image_size
        if ours != theirs:
            raise UsageError(
                f"{first.name} was trained on stored images of {ours} pixels and {network.name} on {theirs}, which no"
                " data set has both; write the predictions of each alone, and average the probabilities in the files"
            )


def _difference(one: Trained, other: Trained) -> str | None:
    """The first difference between the classes of two networks, in words; None: they are equal."""
    if len(one.classes) != len(other.classes):
        return f"{len(other.classes)} and {len(one.classes)}"
    label = first_other_class(one.classes, other.classes)
    return None if label is None else f"class {label} is {other.classes[label]!r} and {one.classes[label]!r}"


def check_data(network: Trained, data: Dataset, name: str) -> None:
    """Checks that a network can be evaluated on a data set.

    Args:
      network: the network.
      data: the data set.
      name: of the data set.

    Raises:
      UsageError: the classes or the sizes of images differ.
    """
    ours, theirs = network.classes, data.class_names
    if len(ours) != len(theirs):
        raise UsageError(
            f"{name} has {len(theirs)} classes and the run's data set {len(ours)}; name a data set with the"
            " same classes"
        )
    if (label := first_other_class(ours, theirs)) is not None:
        raise UsageError(
            f"{name} has other classes than the run's data set: class {label} is {theirs[label]!r} and was"
            f" {ours[label]!r}; name a data set with the same classes"
        )
    if network.preprocessing.image_size != data.image_size:
        raise UsageError(
            f"{name} has images of {data.image_size} pixels and the run's data set of"
            f" {network.preprocessing.image_size}; prepare it with {network.preprocessing.image_size} pixels",
            option=f"size={network.preprocessing.image_size}",
        )


def combine(
    log_probs: Sequence[Float[np.ndarray, "b classes"]], weights: Float[np.ndarray, " members"]
) -> Float[np.ndarray, "b classes"]:
    """Log of the weighted mean of the members' probabilities.

    The mean is taken of logarithms: a probability too small for float32 keeps a finite logarithm.
    """
    if len(log_probs) == 1:
        return log_probs[0]
    terms = [np.log(weight) + member.astype(np.float64) for weight, member in zip(weights, log_probs, strict=True)]
    with np.errstate(invalid="ignore"):  # NaN stays NaN, and is counted later
        return np.logaddexp.reduce(terms).astype(np.float32)


def predictions(
    networks: Sequence[Trained],
    weights: Float[np.ndarray, " members"],
    source: Source,
    *,
    views: int = 1,
    progress: Callable[[int], None] = lambda done: None,
) -> Iterator[tuple[Block, list[Block]]]:
    """Predictions of the ensemble and of each member, for every example of a split, in order, in constant memory.

    Args:
      networks: the members, which `check_members` accepts.
      weights: of the members; they add up to 1.
      source: a split of a data set that `check_data` accepts.
      views: of an example, one of `geometry.VIEWS`.
      progress: called after each block with the number of examples done.

    Raises:
      UsageError: the storage fails.
    """
    size = single.batch_size_of(networks, views)
    done = 0
    with some_workers(networks[0].settings.dataset.workers) as workers:
        members = [
            single.predictions(network, source, views=views, batch_size=size, workers=workers) for network in networks
        ]
        for blocks in zip(*members, strict=True):
            mean = combine([block.log_probs for block in blocks], weights)
            yield blocks[0]._replace(log_probs=mean), list(blocks)
            done += len(mean)
            progress(done)
