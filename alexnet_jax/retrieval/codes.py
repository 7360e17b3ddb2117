"""Short binary codes of vectors, from a small autoencoder or from random hyperplanes.

The paper's section 6.1 proposes autoencoders for that, after Krizhevsky and Hinton 2011, "Using very deep autoencoders
for content-based image retrieval". Theirs were deep and trained layer by layer before; this one has a hidden layer on
either side of the code and rectified units, and needs no such start. In training, the code has the signs of its units,
and the gradient passes as if the units were `tanh` (the straight-through estimator: Bengio, Leonard and Courville 2013,
"Estimating or propagating gradients through stochastic neurons"). So training and use see the same codes.

Random hyperplanes (Charikar 2002, "Similarity estimation techniques from rounding algorithms") know nothing of the
data but their mean: the floor that a learned code must rise above.
"""

import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Num, UInt8

Encode: TypeAlias = Callable[[Num[np.ndarray, "n d"]], UInt8[np.ndarray, "n bytes"]]  # to codes, eight bits a byte

HIDDEN = 512  # units between the vectors and the code, and between the code and the vectors
BATCH = 256  # vectors of an update
RATE = 2e-3  # the largest, after the first tenth of the updates; it then falls to 0 with a cosine


class Vectors(NamedTuple):
    """Vectors to learn codes from.

    Attributes:
      number: how many there are.
      take: the vectors of some indices, `[n, d]`.
      blocks: goes through all of them.
    """

    number: int
    take: Callable[[np.ndarray], np.ndarray]
    blocks: Callable[[], Iterator[np.ndarray]]


class Moments(NamedTuple):
    """The place and the size of a cloud of vectors.

    Attributes:
      mean: of each number.
      deviation: root mean square of all numbers around their means. One scale for all keeps Euclidean distances.
    """

    mean: Float[np.ndarray, " d"]
    deviation: float

    def standardize(self, vectors: Num[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
        """The vectors in units of the deviation, around 0."""
        return ((vectors - self.mean) / self.deviation).astype(np.float32)


def moments(vectors: Vectors) -> Moments:
    """Mean and deviation of the vectors. Equal vectors have the deviation 1, which changes nothing."""
    total = sum(block.sum(axis=0, dtype=np.float64) for block in vectors.blocks())
    mean = total / vectors.number
    squares = sum(float(np.square(block - mean).sum()) for block in vectors.blocks())
    return Moments(mean, float(np.sqrt(squares / (vectors.number * len(mean)))) or 1.0)


class Autoencoder(nn.Module):
    """Vectors to a code of signs, and back.

    Attributes:
      features: of a vector.
      bits: of a code.
      hidden: units of the two hidden layers.
    """

    features: int
    bits: int
    hidden: int = HIDDEN

    def setup(self) -> None:
        """Names the layers."""
        self.inner, self.code = nn.Dense(self.hidden), nn.Dense(self.bits)
        # Units of the code far from 0 have no gradient. A norm keeps them near, and about half of the bits set.
        self.norm = nn.LayerNorm(use_bias=False, use_scale=False)
        self.outer, self.vectors = nn.Dense(self.hidden), nn.Dense(self.features)

    def encode(self, vectors: Float[Array, "n d"]) -> Float[Array, "n bits"]:
        """The units of the code; their signs are its bits."""
        return self.norm(self.code(nn.relu(self.inner(vectors))))

    def __call__(self, vectors: Float[Array, "n d"]) -> Float[Array, "n d"]:
        """The vectors, made again from their codes."""
        units = jnp.tanh(self.encode(vectors))
        signs = jnp.where(units > 0, jnp.ones_like(units), -jnp.ones_like(units))
        code = units + jax.lax.stop_gradient(signs - units)
        return self.vectors(nn.relu(self.outer(code)))


def train_autoencoder(
    vectors: Vectors,
    bits: int,
    *,
    seed: int,
    updates: int,
    progress: Callable[[int], None] = lambda done: None,
) -> Encode:
    """Trains an autoencoder on the vectors by Adam, to the least squares of the difference.

    Args:
      vectors: to learn from.
      bits: of a code, a multiple of 8.
      seed: of initial values and of the vectors of each update.
      updates: how many, of `BATCH` vectors each.
      progress: called with the number of updates done.

    Returns:
      The function from vectors to their codes.
    """
    around = moments(vectors)
    model = Autoencoder(len(around.mean), bits)
    params = model.init(jax.random.key(seed), jnp.zeros((1, model.features)))
    rate = optax.warmup_cosine_decay_schedule(0.0, RATE, max(1, updates // 10), max(2, updates))
    optimizer = optax.adam(rate)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def update(params, opt_state, batch):
        gradient = jax.grad(lambda params: jnp.mean(jnp.square(model.apply(params, batch) - batch)))(params)
        with jax.numpy_dtype_promotion("standard"):  # Adam raises a number to the power of an integer count
            change, opt_state = optimizer.update(gradient, opt_state)
        return optax.apply_updates(params, change), opt_state

    opt_state = optimizer.init(params)
    for number in range(updates):
        chosen = np.random.default_rng((seed, number)).integers(0, vectors.number, BATCH)
        batch = jnp.asarray(around.standardize(vectors.take(chosen)))
        params, opt_state = update(params, opt_state, batch)
        progress(number + 1)
    encode = jax.jit(lambda params, x: jnp.asarray(model.apply(params, x, method="encode")) > 0)
    return lambda x: _pack(encode(params, jnp.asarray(around.standardize(x))))


def random_hyperplanes(around: Moments, bits: int, *, seed: int) -> Encode:
    """Codes that say on which side of random hyperplanes through the mean a vector lies.

    Args:
      around: the vectors' moments.
      bits: of a code, a multiple of 8.
      seed: of the hyperplanes.
    """
    normals = np.random.default_rng(seed).standard_normal((len(around.mean), bits)).astype(np.float32)
    project = jax.jit(lambda x, normals: jnp.matmul(x, normals, precision=jax.lax.Precision.HIGHEST) > 0)
    return lambda x: _pack(project(jnp.asarray(around.standardize(x)), jnp.asarray(normals)))


def _pack(signs: Bool[Array, "n bits"]) -> UInt8[np.ndarray, "n bytes"]:
    return np.packbits(np.asarray(signs), axis=1)
