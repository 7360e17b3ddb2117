"""One update and one evaluation of a batch, as pure functions of state, batch and key, and compiled for a mesh."""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int32, PRNGKeyArray, PyTree, UInt8

from alexnet_jax.data.batch import Batch
from alexnet_jax.learning.metrics import Metrics, measure
from alexnet_jax.learning.plateau import Plateau
from alexnet_jax.network import sharding
from alexnet_jax.network.forward import BatchStats, Forward, Params, compile_options, init_variables, make_forward
from alexnet_jax.network.tower import Tower

# Streams of randomness: key(seed) -> fold_in(stream) -> fold_in(step). Never carried in the state.
STREAMS = {"init": 0, "dropout": 1, "noise": 2}

Inputs = Callable[[UInt8[Array, "B h w 3"]], Float[Array, "B h w 3"]]
Photometry = Callable[[UInt8[Array, "B h w 3"], PRNGKeyArray | None, Int32[Array, ""] | None], Float[Array, "B h w 3"]]


def stream(seed_key: PRNGKeyArray, name: str) -> PRNGKeyArray:
    """The key of a named stream."""
    return jax.random.fold_in(seed_key, STREAMS[name])


@flax.struct.dataclass
class TrainState:
    """The state of a run, as a checkpoint holds it. The fields hold arrays, or what stands for arrays.

    Attributes:
      step: int32 scalar, the updates done: the only cursor.
      params: of the towers, `Params`.
      batch_stats: running averages of batch norms, `BatchStats`; empty without batch norm.
      opt_state: of the optimizer.
      plateau: the memory of a plateau schedule; None for schedules by step alone.
    """

    step: PyTree
    params: PyTree
    batch_stats: PyTree
    opt_state: PyTree
    plateau: PyTree = None


def init_state(
    params: Params,
    batch_stats: BatchStats,
    optimizer: optax.GradientTransformationExtraArgs,
    plateau: Plateau | None = None,
) -> TrainState:
    """The state before the first update."""
    return TrainState(jnp.zeros((), jnp.int32), params, batch_stats, optimizer.init(params), plateau)


def loss_fn(
    params: Params,
    batch_stats: BatchStats,
    images: Float[Array, "B h w 3"],
    batch: Batch,
    key: PRNGKeyArray,
    forward: Forward,
    label_smoothing: float = 0.0,
) -> tuple[Float[Array, ""], tuple[Metrics, BatchStats]]:
    """Mean cross-entropy of the batch in nats (A/src/layer_kernels.cu:456-465), its metrics, and batch statistics.

    With `label_smoothing` that share of the target is spread evenly over all classes (Szegedy et al. 2015); the metrics
    stay those of the true labels.
    """
    logits, batch_stats = forward(params, batch_stats, images, key)
    log_probs = jax.nn.log_softmax(logits)
    metrics = measure(log_probs, batch.label, batch.mask)
    loss = metrics.loss / metrics.count
    if label_smoothing:
        everywhere = jnp.sum(jnp.where(batch.mask, -log_probs.mean(axis=-1), 0)) / metrics.count
        loss = (1 - label_smoothing) * loss + label_smoothing * everywhere
    return loss, (metrics, batch_stats)


def train_step(
    state: TrainState,
    batch: Batch,
    key: PRNGKeyArray,
    *,
    forward: Forward,
    optimizer: optax.GradientTransformationExtraArgs,
    photometry: Photometry,
    label_smoothing: float = 0.0,
) -> tuple[TrainState, Metrics]:
    """One update. `key` is the run's; all draws of the step are functions of the key and of `state.step`."""
    noise_key, dropout_key = (jax.random.fold_in(stream(key, name), state.step) for name in ("noise", "dropout"))
    images = photometry(batch.image, noise_key, state.step)
    gradients, (metrics, batch_stats) = jax.grad(loss_fn, has_aux=True)(
        state.params, state.batch_stats, images, batch, dropout_key, forward, label_smoothing
    )
    factor = 1.0 if state.plateau is None else state.plateau.factor
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params, step=state.step, factor=factor)
    params = optax.apply_updates(state.params, updates)
    return TrainState(state.step + 1, params, batch_stats, opt_state, state.plateau), metrics


def train_steps(
    state: TrainState,
    resident: PyTree,
    crops: PyTree,
    count: Int32[Array, ""],
    key: PRNGKeyArray,
    *,
    update: Callable[[TrainState, Batch, PRNGKeyArray], tuple[TrainState, Metrics]],
    cut: Callable[[PyTree, PyTree], Batch],
) -> tuple[TrainState, Metrics]:
    """Several updates in one program, on batches that are cut from a split on the devices.

    The number of updates is an argument and no constant of the program, so that all updates of a run are made by the
    same instructions, wherever it was interrupted: the same bits.

    Args:
      state: before the updates.
      resident: the split.
      crops: of at least `count` batches, along the first axis.
      count: number of updates.
      key: of the run.
      update: `train_step`.
      cut: `(resident, crops of a batch) -> batch`.

    Returns:
      The state, and the metrics of each update along the first axis; 0 beyond `count`.
    """

    def batch(number: Array) -> Batch:
        return cut(resident, jax.tree.map(lambda leaf: lax.dynamic_index_in_dim(leaf, number, keepdims=False), crops))

    def body(number: Array, carry: tuple[TrainState, Metrics]) -> tuple[TrainState, Metrics]:
        state, metrics = carry
        state, one = update(state, batch(number), key)
        return state, jax.tree.map(lambda all_of, value: all_of.at[number].set(value), metrics, one)

    _, one = jax.eval_shape(lambda state: update(state, batch(jnp.int32(0)), key), state)
    room = jax.tree.leaves(crops)[0].shape[0]
    return lax.fori_loop(0, count, body, (state, jax.tree.map(lambda leaf: jnp.zeros((room,), leaf.dtype), one)))


def predict_log_probs(
    params: Params,
    batch_stats: BatchStats,
    images: UInt8[Array, "B *views h w 3"],
    *,
    forward: Forward,
    inputs: Inputs,
) -> Float[Array, "B classes"]:
    """Log of the softmax averaged over an image's views (paper section 4.1; A/src/layer.cu:1809-1831).

    The average is taken of log-probabilities: a probability too small for float32 keeps a finite logarithm.
    """
    views = images.reshape(-1, *images.shape[-3:])
    logits, _ = forward(params, batch_stats, inputs(views), None)
    log_probs = jax.nn.log_softmax(logits).reshape(images.shape[0], -1, logits.shape[-1])
    return jax.nn.logsumexp(log_probs, axis=1) - math.log(log_probs.shape[1])


def eval_step(params: Params, batch_stats: BatchStats, batch: Batch, *, forward: Forward, inputs: Inputs) -> Metrics:
    """The batch's metrics; error and loss are those of the averaged probabilities."""
    log_probs = predict_log_probs(params, batch_stats, batch.image, forward=forward, inputs=inputs)
    return measure(log_probs, batch.label, batch.mask)


class Steps(NamedTuple):
    """A network's training and evaluation, compiled for a mesh at their first call.

    Attributes:
      mesh: of the devices.
      target: shapes and shardings of the state, without values.
      init: `key -> state`, a fresh state on the mesh. `key` is the run's.
      train_step: `(state, batch, key) -> (state, Metrics)`; the given state is donated.
      eval_step: `(params, batch_stats, batch) -> Metrics`.
      train_steps: `(state, resident, crops, count, key) -> (state, Metrics of each update)`, with a `cut`; else None.
        The given state is donated.
      observe: `(state, top-1 error) -> state`, where the schedule wants evaluations; else None.
      kernel_norms: `params -> {layer: Euclidean length of the kernel}`, over both towers.
    """

    mesh: Mesh
    target: TrainState
    init: Callable[[PRNGKeyArray], TrainState]
    train_step: Callable[[TrainState, Batch, PRNGKeyArray], tuple[TrainState, Metrics]]
    eval_step: Callable[[Params, BatchStats, Batch], Metrics]
    train_steps: Callable[[TrainState, PyTree, PyTree, Array, PRNGKeyArray], tuple[TrainState, Metrics]] | None
    observe: Callable[[TrainState, float], TrainState] | None
    kernel_norms: Callable[[Params], dict[str, Array]]


def build_steps(
    *,
    tower: Tower,
    optimizer: optax.GradientTransformationExtraArgs,
    photometry: Photometry,
    mesh: Mesh,
    image_size: int,
    label_smoothing: float = 0.0,
    memory: Plateau | None = None,
    observe: Callable[..., Plateau] | None = None,
    cut: Callable[[PyTree, PyTree], Batch] | None = None,
) -> Steps:
    """The compiled steps of a network on a mesh. No data set is needed.

    Args:
      tower: of the network.
      optimizer: as `krizhevsky_sgd`.
      photometry: pixels to the network's input; in evaluation key and step are None.
      mesh: of the devices.
      image_size: pixels along a side of the crops.
      label_smoothing: as in `loss_fn`.
      memory: of a schedule that watches evaluations, before the first one; None: the schedule needs none.
      observe: `(memory, error, step) -> memory`, with a memory.
      cut: `(resident, crops of a batch) -> batch`, for data that are kept on the devices.

    Raises:
      UsageError: the crops are too small, or the mesh does not fit the towers.
    """
    forward = make_forward(tower, mesh)
    options = compile_options(mesh)

    def init(key: PRNGKeyArray) -> TrainState:
        params, batch_stats = init_variables(tower, stream(key, "init"), image_size)
        return init_state(params, batch_stats, optimizer, memory)

    abstract = jax.eval_shape(init, jax.eval_shape(lambda: jax.random.key(0)))
    shardings = sharding.state_shardings(abstract, mesh)
    target = sharding.placed(abstract, mesh)
    replicated = sharding.replicated(mesh)
    update = functools.partial(
        train_step, forward=forward, optimizer=optimizer, photometry=photometry, label_smoothing=label_smoothing
    )
    evaluate = functools.partial(eval_step, forward=forward, inputs=lambda images: photometry(images, None, None))
    remember = observe and jax.jit(observe, out_shardings=replicated)

    def placed(resident: PyTree, crops: PyTree) -> Batch:
        assert cut is not None
        return lax.with_sharding_constraint(cut(resident, crops), sharding.batch_sharding(mesh))

    several = functools.partial(train_steps, update=update, cut=placed)

    def observed(state: TrainState, top1: float) -> TrainState:
        assert remember is not None
        error = sharding.put_scalar(np.float32(top1), mesh)
        return state.replace(plateau=remember(state.plateau, error, state.step))  # type: ignore[attr-defined]

    return Steps(
        mesh=mesh,
        target=target,
        init=jax.jit(init, out_shardings=shardings),
        train_step=jax.jit(update, donate_argnums=0, out_shardings=(shardings, replicated), compiler_options=options),
        train_steps=cut
        and jax.jit(several, donate_argnums=0, out_shardings=(shardings, replicated), compiler_options=options),
        eval_step=jax.jit(evaluate, out_shardings=replicated, compiler_options=options),
        observe=None if observe is None else observed,
        kernel_norms=jax.jit(kernel_norms, out_shardings=replicated),
    )


def kernel_norms(params: Params) -> dict[str, Float[Array, ""]]:
    """Euclidean length of every layer's kernel, over both towers."""
    return {layer: jnp.linalg.norm(leaves["kernel"].ravel()) for layer, leaves in params.items() if "kernel" in leaves}
