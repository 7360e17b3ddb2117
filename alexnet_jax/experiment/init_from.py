"""Starting from another run's parameters, with some layers anew: how the paper's "1 CNN*" was made."""

import contextlib
import dataclasses
from collections.abc import Collection, Iterator, Sequence

import jax
from etils import epath
from jaxtyping import PyTree

from alexnet_jax import paths
from alexnet_jax.data import preprocessing as preprocessings
from alexnet_jax.data.preprocessing import Preprocessing
from alexnet_jax.errors import UsageError
from alexnet_jax.experiment.build import Experiment, preprocessing_of
from alexnet_jax.experiment.fields import Settings
from alexnet_jax.learning.step import TrainState
from alexnet_jax.network import recipes
from alexnet_jax.network.tower import Tower
from alexnet_jax.paths import is_missing
from alexnet_jax.runtime import processes
from alexnet_jax.workdir import data_identity
from alexnet_jax.workdir import record as workdirs
from alexnet_jax.workdir.checkpoint import Checkpoints, restore_newest
from alexnet_jax.workdir.errors import UnreadableFileError
from alexnet_jax.workdir.record import read_json

SAME_SCALE = 2.0  # between the scales of pixels of two data sets, both divided by their deviations


def init_from(experiment: Experiment) -> TrainState:
    """A fresh state whose layers, but for those of `config.fresh`, come from the last checkpoint of `config.init_from`.

    Velocities, rates and the step number begin anew. Layers that the other network alone has are left behind. A line
    names a damaged checkpoint, in whose place the one before is taken, a classifier of other classes, and a network of
    other operations or of pixels on another scale.

    Raises:
      UsageError: there is no such run, `fresh` names no layer, or a layer that should be copied does not fit.
    """
    settings, target = experiment.settings, experiment.steps.target
    with _open(settings, target.params) as checkpoints:
        fields = {name: _kept(getattr(target, name), settings.fresh) for name in ("params", "batch_stats")}
        copied = restore_newest(checkpoints, fields)
    if copied is None:
        raise UsageError("no checkpoint of config.init_from can be read; name the workdir of another run")
    workdir, classes = _workdir(settings), experiment.data.class_names
    last = recipes.layers_of(settings.network.recipe)[-1].name
    if last in fields["params"] and (difference := _other_classes(workdir, classes)):
        processes.log(
            f"warning: {last} comes from a run with other classes ({difference}); {last!r} in config.fresh starts it"
            " anew"
        )
    for warning in (
        _other_recipe(workdir, settings.network.recipe, fields["params"]),
        _other_pixels(workdir, preprocessing_of(settings, experiment.data), fields["params"]),
    ):
        if warning:
            processes.log(f"warning: {warning}")
    state = experiment.steps.init(experiment.key)
    return dataclasses.replace(
        state, params=state.params | copied["params"], batch_stats=state.batch_stats | copied["batch_stats"]
    )


def check(settings: Settings, params: PyTree[jax.ShapeDtypeStruct]) -> None:
    """Checks, without an array, that a run can start from `config.init_from`.

    Args:
      settings: of the run.
      params: shapes of the run's parameters.

    Raises:
      UsageError: as in `init_from`, but for damaged arrays.
    """
    with _open(settings, params) as checkpoints:
        checkpoints.check_fits(checkpoints.steps()[-1], _kept(params, settings.fresh))


@contextlib.contextmanager
def _open(settings: Settings, layers: Collection[str]) -> Iterator[Checkpoints]:
    """The checkpoints of `config.init_from`; there is one at least.

    Raises:
      UsageError: there are no checkpoints, they cannot be read, or `config.fresh` names an unknown layer.
    """
    names = [name for name in layers if not name.endswith("_norm")]  # a norm goes with its layer
    unknown = sorted(set(settings.fresh) - set(names))
    if unknown:
        raise UsageError(f"config.fresh names {unknown[0]!r}, which is no layer; the layers are {', '.join(names)}")
    paths.check_address(str(settings.init_from))
    folder = _workdir(settings) / workdirs.CHECKPOINTS
    try:
        if is_missing(folder):
            raise UsageError(
                f"config.init_from is {settings.init_from!r}, and there are no checkpoints; name the workdir of a run"
            )
    except OSError as error:
        raise UnreadableFileError(folder, error) from error
    with contextlib.closing(Checkpoints(folder, read_only=True)) as checkpoints:
        if not checkpoints.steps():
            raise UsageError(f"config.init_from is {settings.init_from!r}, and that run has saved nothing yet")
        yield checkpoints


def _workdir(settings: Settings) -> epath.Path:
    return epath.Path(paths.absolute(str(settings.init_from)))


def _other_classes(workdir: epath.Path, classes: Sequence[str]) -> str | None:
    """The first difference between the classes of the run in a workdir and these; None: none, or not known."""
    file = workdir / data_identity.DATA_FILE
    there = read_json(file).get("classes") if file.exists() else None
    return data_identity.first_difference({"classes": there}, {"classes": list(classes)}) if there else None


def _other_recipe(workdir: epath.Path, recipe: str, copied: Collection[str]) -> str | None:
    """The first difference between the operations of the network in a workdir and those of a recipe; None: none.

    A fresh layer learns from any input. So where the next layer is fresh, one of the two lists of operations may be
    longer.

    Args:
      workdir: of the run before.
      recipe: here.
      copied: names of the layers that come from that run.
    """
    if not (workdir / workdirs.CONFIG_FILE).exists():
        return None
    network = workdirs.read_config(workdir).get("network")
    theirs = network.get("recipe") if isinstance(network, dict) else None
    if theirs == recipe or not isinstance(theirs, str) or theirs not in recipes.RECIPES:
        return None
    advice = f"config.network.recipe is {recipe!r}, and {theirs!r} fits the weights"
    there, here = recipes.RECIPES[theirs].fields, recipes.RECIPES[recipe].fields
    default = {field.name: field.default for field in dataclasses.fields(Tower)}
    for field in sorted((there.keys() | here.keys()) - {"he_init", "towers"}):
        one, other = (fields.get(field, default[field]) for fields in (there, here))
        if one != other:
            return f"the weights come from a network whose {field} is {one} and not {other}; {advice}"
    before, layers = {layer.name: layer.then for layer in recipes.layers_of(theirs)}, recipes.layers_of(recipe)
    for layer, following in zip(layers, (*layers[1:], None), strict=True):
        if layer.name not in copied or layer.name not in before:
            continue
        one, other = before[layer.name], layer.then
        if following is not None and following.name not in copied:
            common = min(len(one), len(other))
            one, other = one[:common], other[:common]
        if one != other:
            one, other = (", ".join(then) or "nothing" for then in (before[layer.name], layer.then))
            return f"the weights come from a network in which {one} follows {layer.name}, and not {other}; {advice}"
    return None


def _other_pixels(workdir: epath.Path, here: Preprocessing, copied: Collection[str]) -> str | None:
    """The difference between the pixels that the network in a workdir saw and those here; None: none, or not known.

    Args:
      workdir: of the run before.
      here: of the run that starts.
      copied: names of the layers that come from the run before.
    """
    file = workdir / preprocessings.FILE_NAME
    if "conv1" not in copied or not file.exists():
        return None
    there = preprocessings.load(file)
    if there.each_image and here.each_image:
        return None
    ratio = float(there.pixel_scale.mean() / here.pixel_scale.mean())
    if there.each_image == here.each_image and 1 / SAME_SCALE < ratio < SAME_SCALE:
        return None
    standardize = there.each_image or not 1 / SAME_SCALE < float(there.pixel_scale.mean()) < SAME_SCALE
    return (
        f"the weights come from a network that saw pixels {_pixels(there)}, and here they are {_pixels(here)};"
        f" config.photometry.standardize={standardize} and config.photometry.each_image={there.each_image} fit the"
        " weights"
    )


def _pixels(preprocessing: Preprocessing) -> str:
    if preprocessing.each_image:
        return "standardized crop by crop"
    return f"times {float(preprocessing.pixel_scale.mean()):.2g}"


def _kept(layers: PyTree, fresh: Sequence[str]) -> PyTree:
    """The layers that come from the other run."""
    return {name: leaves for name, leaves in layers.items() if name.removesuffix("_norm") not in fresh}
