"""The fields of a config that may be None because they follow from the data set: splits, counts, crop and epochs."""

import dataclasses
import math
from collections.abc import Iterable, Mapping

from alexnet_jax.data.dataset import TRAIN_SPLITS, Dataset, count_examples, count_shared, open_dataset, splits_in
from alexnet_jax.data.errors import ForeignDatasetError, UnknownDatasetError
from alexnet_jax.data.preparing import automatic
from alexnet_jax.errors import UsageError
from alexnet_jax.experiment.checks import check
from alexnet_jax.experiment.fields import Settings

EVAL_SPLITS = ("validation", "valid", "val", "dev", "test", "testing", "eval")  # the first of these that is there
RECIPE_SHARE = 224 / 256  # side of the crops, as a share of the side of the stored images (paper section 4.1)

# Epochs are this number divided by the root of the number of training images. ELPV's 1,970 get 45 epochs, which were
# enough with dropout there. Fewer images are seen more often, and get fewer updates nevertheless: 270 get 122 epochs.
EPOCHS_BY_ROOT = 2000
FEWEST_EPOCHS = 10
EVALUATIONS = 10  # of a run


@dataclasses.dataclass(frozen=True)
class Facts:
    """The properties of a data set that a config follows.

    Attributes:
      classes: how many.
      examples: of each split.
      image_size: pixels along a side of the stored images.
    """

    classes: int
    examples: Mapping[str, int]
    image_size: int


def facts_of(dataset: Dataset) -> Facts:
    """The facts of a data set that is open."""
    return Facts(len(dataset.class_names), dataset.examples, dataset.image_size)


def known_facts(name: str) -> Facts | None:
    """The facts of a data set that a run prepares by itself; None: the name is another data set's."""
    options = automatic.options_of(name)
    return None if options is None else Facts(2, {"train": 1970, "test": 654}, options.size)


def prepared(name: str, data_dir: str | None) -> Dataset | None:
    """A prepared data set; None: it is not there, or TFDS's copy alone.

    Raises:
      DatasetError: it cannot be opened, or the name is that of several.
    """
    try:
        return open_dataset(name, data_dir)
    except (UnknownDatasetError, ForeignDatasetError):
        return None


def follow(settings: Settings, facts: Facts) -> Settings:
    """The settings with the data set's splits, counts, crop and epochs in place of None.

    The training split is `train`. The evaluation split is the validation split, else the test split. A crop has
    224 / 256 of the side of the stored images. `with_epochs` has the epochs. The number of training images is always
    that of the data set, in place of a number for dry runs without it.

    Raises:
      UsageError: the data set has no such split, other classes than the config says, or images smaller than the crop.
    """
    data = settings.dataset
    if data.classes is not None and data.classes != facts.classes:
        raise UsageError(
            f"config.dataset.classes is {data.classes} and {data.name} has {facts.classes} classes;"
            " with None, the data set gives the number"
        )
    train = data.train_split or _split(facts, "train_split", TRAIN_SPLITS, data.name)
    evaluation = data.eval_split or _split(facts, "eval_split", _other_splits(facts.examples, train), data.name)
    if (data.crop_size or 1) > facts.image_size:
        raise UsageError(
            f"config.dataset.crop_size is {data.crop_size} and the images of {data.name} have {facts.image_size}"
            f" pixels; use a smaller crop, such as {crop_of(facts.image_size)}, or larger images"
        )
    train_images = count_examples(train, facts.examples)
    dataset = dataclasses.replace(
        data,
        train_split=train,
        eval_split=evaluation,
        crop_size=data.crop_size or crop_of(facts.image_size),
        classes=facts.classes,
        train_images=train_images,
    )
    return with_epochs(dataclasses.replace(settings, dataset=dataset), train_images)


def check_held_out(settings: Settings, facts: Facts) -> str | None:
    """A warning that training and evaluation share images; None: they share none.

    Args:
      settings: as `follow` returned them.
      facts: of the data set.

    Raises:
      UsageError: they share images and the schedule is `plateau`, or the data set has no such split.
    """
    train, evaluation, _ = followed(settings)
    shared = count_shared(train, evaluation, facts.examples)
    if not shared:
        return None
    total = count_examples(evaluation, facts.examples)
    overlap = (
        f"{shared:,} of the {total:,} images of config.dataset.eval_split, {evaluation!r}, are in"
        f" config.dataset.train_split, {train!r}"
    )
    advice = f"to hold images out, name parts without a common image, such as {_held_out(splits_in(train)[0])}"
    if settings.schedule == "plateau":
        raise UsageError(f"config.schedule 'plateau' needs a validation set, and {overlap}; {advice}")
    return f"warning: {overlap}, so the error is in part that of training images; {advice}"


def with_epochs(settings: Settings, train_images: int) -> Settings:
    """The settings with numbers of epochs in place of None.

    The epochs of a run fall with the root of the number of training images. The run is evaluated ten times, and saved
    with each evaluation.

    Raises:
      UsageError: the numbers do not fit others, such as the epochs of the warm-up.
    """
    fewest = max(FEWEST_EPOCHS, round(EPOCHS_BY_ROOT / math.sqrt(max(1, train_images))))
    num_epochs = float(fewest) if settings.num_epochs is None else settings.num_epochs
    every = num_epochs / EVALUATIONS if settings.evaluate_every is None else settings.evaluate_every
    filled = dataclasses.replace(
        settings,
        num_epochs=num_epochs,
        evaluate_every=every,
        save_every=every if settings.save_every is None else settings.save_every,
    )
    if filled != settings:
        check(filled)
    return filled


def followed(settings: Settings) -> tuple[str, str, int]:
    """Training split, evaluation split and crop of settings that `follow` returned."""
    data = settings.dataset
    assert data.train_split is not None and data.eval_split is not None and data.crop_size is not None
    return data.train_split, data.eval_split, data.crop_size


def is_data_of(settings: Settings, dataset: Dataset, name: str) -> bool:
    """Whether a data set, opened by that name, is the one of the settings."""
    return settings.dataset.name in (name, dataset.name)


def on_data(settings: Settings, dataset: Dataset, name: str) -> Settings:
    """The settings on a data set, opened by that name. If it is another one, its usual splits replace theirs."""
    chosen = dataclasses.replace(settings.dataset, name=name)
    if not is_data_of(settings, dataset, name):
        chosen = dataclasses.replace(chosen, train_split=None, eval_split=None)
    return dataclasses.replace(settings, dataset=chosen)


def training_split(settings: Settings, dataset: Dataset) -> str | None:
    """The split on which a run with these settings is trained; None: the data set has none."""
    return settings.dataset.train_split or _first(dataset.examples, TRAIN_SPLITS)


def evaluation_split(settings: Settings, dataset: Dataset) -> str:
    """The split on which a run with these settings is evaluated. The data set need have no training split.

    Raises:
      UsageError: the settings name no split, and the data set has its training split alone.
    """
    data, train = settings.dataset, training_split(settings, dataset) or ""
    split = data.eval_split or _first(dataset.examples, _other_splits(dataset.examples, train))
    if split is None:
        raise UsageError(
            f"{data.name} has no split but the training split; name the images to evaluate on", option=f"split={train}"
        )
    return split


def crop_of(image_size: int) -> int:
    """Side of the crops for stored images of that side, in the proportion of the paper."""
    return round(image_size * RECIPE_SHARE)


def _split(facts: Facts, field: str, names: tuple[str, ...], dataset: str) -> str:
    """The first of the names that the data set has."""
    if (split := _first(facts.examples, names)) is not None:
        return split
    raise UsageError(
        f"config.dataset.{field} is None, and {dataset} has the splits {', '.join(facts.examples)}; name one, or parts"
        f" of one for training and evaluation, such as {_held_out(next(iter(facts.examples)))}"
    )


def _first(examples: Mapping[str, int], names: Iterable[str]) -> str | None:
    """The first of the splits that has examples; None: none has."""
    return next((name for name in names if examples.get(name)), None)


def _other_splits(examples: Mapping[str, int], train: str) -> tuple[str, ...]:
    """The splits to evaluate on, the usual ones first, without those that the training takes from."""
    others = [name for name in examples if name not in splits_in(train)]
    return tuple(name for name in EVAL_SPLITS if name in others) or tuple(others)


def _held_out(split: str) -> str:
    """The fields that hold out a tenth of a split."""
    return f"config.dataset.train_split='{split}[10%:]' and config.dataset.eval_split='{split}[:10%]'"
