"""The fields of a config, with their types. `configs/default.py` explains every field, with its unit and source."""

import dataclasses
from typing import Literal

Table = tuple[tuple[float, float], ...]


@dataclasses.dataclass(frozen=True)
class Dataset:
    """`config.dataset`. None: the value follows from the data set (`follow.follow`)."""

    name: str
    train_split: str | None
    eval_split: str | None
    crop_size: int | None
    crop_group: int
    classes: int | None
    train_images: int | None
    on_device: bool | None = None  # absent in workdirs of earlier versions
    workers: int | None = None  # likewise


@dataclasses.dataclass(frozen=True)
class Jitter:
    """`config.jitter`."""

    rotation: float
    scale: float
    symmetries: int = 2  # absent in workdirs of earlier versions


@dataclasses.dataclass(frozen=True)
class Network:
    """`config.network`."""

    recipe: str
    width: float
    he_init: bool
    bfloat16: bool


@dataclasses.dataclass(frozen=True)
class Photometry:
    """`config.photometry`."""

    noise: Table
    standardize: bool
    each_image: bool = False  # absent in workdirs of earlier versions


@dataclasses.dataclass(frozen=True)
class Rates:
    """`config.rates.LAYER`."""

    kernel: Table
    bias: Table


@dataclasses.dataclass(frozen=True)
class Plateau:
    """`config.plateau`."""

    patience: int
    drops: int


@dataclasses.dataclass(frozen=True)
class Mesh:
    """`config.mesh`."""

    data: int | None
    tower: int | None


@dataclasses.dataclass(frozen=True)
class Settings:
    """`config`. The epochs follow from the data set where they are None, as fields of `config.dataset` do."""

    name: str
    seed: int
    dataset: Dataset
    jitter: Jitter
    network: Network
    photometry: Photometry
    batch_size: int
    num_epochs: float | None
    schedule: Literal["epochs", "run", "steps", "cosine", "plateau"]
    plateau: Plateau
    warmup_epochs: float
    rates: dict[str, Rates]
    momentum: float
    nesterov: bool
    weight_decay: float
    weight_decays: dict[str, float]
    clip_norm: float | None
    lars_trust: float | None
    label_smoothing: float
    init_from: str | None
    fresh: tuple[str, ...]
    evaluate_every: float | None
    save_every: float | None
    on_failed_save: Literal["continue", "stop"]
    mesh: Mesh

    def on_data_set(self, name: str) -> "Settings":
        """The same experiment on the data set of that name."""
        return dataclasses.replace(self, dataset=dataclasses.replace(self.dataset, name=name))

    def on_any_mesh(self) -> "Settings":
        """The same experiment, with mesh and workers left to what devices and cores there are."""
        dataset = dataclasses.replace(self.dataset, workers=None)
        return dataclasses.replace(self, dataset=dataset, mesh=Mesh(data=None, tower=None))
