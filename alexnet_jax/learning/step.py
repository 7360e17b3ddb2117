"""One update and one evaluation of a batch, as pure functions of state, batch and key."""

import functools
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int32, PRNGKeyArray, PyTree, UInt8

from alexnet_jax.data.batch import Batch
from alexnet_jax.learning.metrics import Metrics, measure
from alexnet_jax.network import forward as forwards
from alexnet_jax.network import sharding
from alexnet_jax.network.forward import Forward, Params

# Streams of randomness: key(seed) -> fold_in(stream) -> fold_in(step). Never carried in the state.
STREAMS = {"init": 0, "dropout": 1, "noise": 2}

Photometry = Callable[[UInt8[Array, "B h w 3"], PRNGKeyArray | None, Int32[Array, ""] | None], Float[Array, "B h w 3"]]


def stream(seed_key: PRNGKeyArray, name: str) -> PRNGKeyArray:
    """The key of a named stream."""
    return jax.random.fold_in(seed_key, STREAMS[name])


@flax.struct.dataclass
class TrainState:
    """What is on disk. The fields hold arrays, or what stands for them: shapes or shardings.

    Attributes:
      step: int32 scalar, the updates done: the only cursor.
      params: of the towers, `Params`.
      opt_state: of the optimizer.
    """

    step: PyTree
    params: PyTree
    opt_state: optax.OptState


def init_state(params: Params, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first update."""
    return TrainState(step=jnp.zeros((), jnp.int32), params=params, opt_state=optimizer.init(params))


def loss_fn(
    params: Params,
    images: Float[Array, "B h w 3"],
    batch: Batch,
    key: PRNGKeyArray,
    forward: Forward,
    label_smoothing: float = 0.0,
) -> tuple[Float[Array, ""], Metrics]:
    """Mean cross-entropy of the batch in nats (A/src/layer_kernels.cu:456-465), and the batch's metrics.

    With `label_smoothing` that share of the target is spread evenly over all classes (Szegedy et al. 2015); the metrics
    stay those of the true labels.
    """
    log_probs = jax.nn.log_softmax(forward(params, images, key))
    metrics = measure(log_probs, batch.label, batch.mask)
    loss = metrics.loss / metrics.count
    if label_smoothing:
        everywhere = jnp.sum(jnp.where(batch.mask, -log_probs.mean(axis=-1), 0)) / metrics.count
        loss = (1 - label_smoothing) * loss + label_smoothing * everywhere
    return loss, metrics


def train_step(
    state: TrainState,
    batch: Batch,
    key: PRNGKeyArray,
    *,
    forward: Forward,
    optimizer: optax.GradientTransformation,
    photometry: Photometry,
    label_smoothing: float = 0.0,
) -> tuple[TrainState, Metrics]:
    """One update. `key` is the run's; what the step draws is a function of it and of `state.step`."""
    noise_key, dropout_key = (jax.random.fold_in(stream(key, name), state.step) for name in ("noise", "dropout"))
    images = photometry(batch.image, noise_key, state.step)
    gradients, metrics = jax.grad(loss_fn, has_aux=True)(
        state.params, images, batch, dropout_key, forward, label_smoothing
    )
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    return TrainState(step=state.step + 1, params=params, opt_state=opt_state), metrics


def jit_train_step(mesh: Mesh, shardings: TrainState, **fields: Any) -> Callable[..., tuple[TrainState, Metrics]]:
    """`train_step` with these keyword arguments, `(state, batch, key) -> (state, Metrics)`, to be compiled for a mesh.

    The state that it is given is donated; the one that it gives back lies as `shardings` say.
    """
    return jax.jit(
        functools.partial(train_step, **fields),
        donate_argnums=0,
        out_shardings=(shardings, sharding.replicated(mesh)),
        compiler_options=forwards.compile_options(mesh),
    )


def predict_log_probs(
    params: Params, images: UInt8[Array, "B *views h w 3"], *, forward: Forward, photometry: Photometry
) -> Float[Array, "B classes"]:
    """Log of the softmax averaged over an image's views (paper section 4.1; A/src/layer.cu:1809-1831)."""
    flat = images.reshape(-1, *images.shape[-3:])
    probs = jax.nn.softmax(forward(params, photometry(flat, None, None), None))
    return jnp.log(probs.reshape(images.shape[0], -1, probs.shape[-1]).mean(axis=1))


def eval_step(params: Params, batch: Batch, *, forward: Forward, photometry: Photometry) -> Metrics:
    """The batch's metrics; error and loss are those of the averaged probabilities."""
    return measure(
        predict_log_probs(params, batch.image, forward=forward, photometry=photometry), batch.label, batch.mask
    )


def jit_eval_step(mesh: Mesh, **fields: Any) -> Callable[[Params, Batch], Metrics]:
    """`eval_step` with these keyword arguments, `(params, batch) -> Metrics`, to be compiled for a mesh."""
    return jax.jit(
        functools.partial(eval_step, **fields),
        out_shardings=sharding.replicated(mesh),
        compiler_options=forwards.compile_options(mesh),
    )
