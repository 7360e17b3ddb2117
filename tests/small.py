"""Small networks whose steps need no data set."""

import jax
import jax.numpy as jnp
import numpy as np

from alexnet_jax.data.batch import Batch
from alexnet_jax.learning.optimizer import krizhevsky_sgd, piecewise
from alexnet_jax.learning.step import Steps, build_steps
from alexnet_jax.network.tower import Tower


def photometry(images, key, step):
    return images.astype(jnp.float32) / 64 - 2


def optimizer(tower: Tower, table=((0, 0.01),), **options):
    rates = {name: dict.fromkeys(leaves, piecewise(list(table))) for name, leaves in tower.leaf_names().items()}
    return krizhevsky_sgd(rates, **dict(momentum=0.9, weight_decay=5e-4) | options)


def steps(tower: Tower, mesh, *, image_size: int = 67, table=((0, 0.01),), photometry=photometry, cut=None) -> Steps:
    return build_steps(
        tower=tower, optimizer=optimizer(tower, table), photometry=photometry, mesh=mesh, image_size=image_size, cut=cut
    )


def batch(size: int = 8, *, image_size: int = 67, classes: int = 5) -> Batch:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (size, image_size, image_size, 3), np.uint8)
    return Batch(images, rng.integers(0, classes, size, np.int32), np.ones(size, bool))


def shapes(tower: Tower, image_size: int):
    """Shapes of the parameters and of the batch statistics."""
    from alexnet_jax.network.forward import init_variables

    return jax.eval_shape(lambda key: init_variables(tower, key, image_size), jax.random.key(0))
