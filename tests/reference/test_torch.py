"""Gradients and updates against PyTorch, in float64: `pip install -r tests/torch-requirements.txt`."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from alexnet_jax.learning.optimizer import krizhevsky_sgd, piecewise
from alexnet_jax.network import forward as forwards
from alexnet_jax.network import sharding
from alexnet_jax.network.tower import make_tower
from tests.reference import network, weights

torch = pytest.importorskip("torch", reason="pip install -r tests/torch-requirements.txt")
NAMES = ["original", "one_tower", "bvlc", "caffenet"]
CLASSES = 6
WIDTH = 0.125
RATE = 2.0**-13  # exact in float32, as is an eighth of it; pixels are large here, and so are gradients


def setting(name, batch):
    """Forward of the program, its parameters in float64, images and labels."""
    rng, size = np.random.default_rng(1), network.SIZES[name]
    tower = make_tower(name, num_classes=CLASSES, width=WIDTH)
    mesh = sharding.make_mesh(data=1, tower=1, devices=jax.devices()[:1])
    shapes = jax.eval_shape(lambda key: forwards.init_params(tower, key, size), jax.random.key(0))

    def draw(path, leaf):
        fan_in = np.prod(leaf.shape[1:-1])
        scale = np.sqrt(2 / fan_in) if path[-1].key == "kernel" else 0.3
        return rng.normal(0, scale, leaf.shape)

    params = jax.tree_util.tree_map_with_path(draw, shapes)
    forward = forwards.make_forward(tower, mesh)
    return (
        lambda params, images: forward(params, {}, images)[0],
        params,
        rng.normal(0, 60, (batch, size, size, 3)),
        rng.integers(0, CLASSES, batch),
    )


def loss(params, images, labels, forward):
    log_probs = jax.nn.log_softmax(forward(params, images))
    return -jnp.take_along_axis(log_probs, labels[:, None], axis=1).mean()


def torch_loss(name, parameters, images, labels):
    from tests.reference import torch_network

    logits = torch_network.forward(name, parameters, torch.tensor(images.transpose(0, 3, 1, 2)))
    return torch.nn.functional.cross_entropy(logits, torch.tensor(labels))


def torch_parameters(params):
    from tests.reference import torch_network

    grouped = len(params["conv1"]["bias"]) == 2
    return torch_network.parameters_of(weights.of_2012(params, side=6), grouped=grouped)


def largest_difference(params, parameters, of):
    """Of every leaf, relative to its largest value."""
    ours = weights.of_2012(params, side=6)
    differences = []
    for (name, leaf), tensor in parameters.items():
        expected = of(tensor).detach().numpy()
        found = np.concatenate([tower[leaf == "bias"] for tower in ours[name]])
        differences.append(np.abs(found - expected).max() / np.abs(expected).max())
    return max(differences)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_pytorch_s(name):
    forward, params, images, labels = setting(name, batch=2)
    with jax.enable_x64(True):
        value, gradients = jax.jit(jax.value_and_grad(functools.partial(loss, forward=forward)))(params, images, labels)
        value, gradients = float(value), jax.device_get(gradients)
    parameters = torch_parameters(params)

    expected = torch_loss(name, parameters, images, labels)
    expected.backward()

    assert value == pytest.approx(float(expected.detach()), rel=1e-12)
    assert largest_difference(gradients, parameters, lambda tensor: tensor.grad) < 1e-9


def test_twenty_updates_and_a_rate_drop_are_pytorch_s():
    """Of one network: the update knows leaves alone, and the test above has the gradients of the others."""
    from tests.reference import torch_network

    name = "original"
    forward, params, images, labels = setting(name, batch=1)
    parameters = torch_parameters(params)
    sgd = torch_network.Sgd(parameters)
    with jax.enable_x64(True):
        params, inputs = jax.tree.map(jnp.asarray, (params, images))
        kernel, bias = (piecewise([(0, factor * RATE), (10, factor * RATE / 8)]) for factor in (1, 2))
        rates = jax.tree_util.tree_map_with_path(lambda path, _: bias if path[-1].key == "bias" else kernel, params)
        update = krizhevsky_sgd(rates, momentum=0.9, weight_decay=5e-4)

        @jax.jit
        def step(params, state, number):
            gradients = jax.grad(functools.partial(loss, forward=forward))(params, inputs, labels)
            updates, state = update.update(gradients, state, params, step=number)
            return optax.apply_updates(params, updates), state

        before, state = jax.device_get(params), update.init(params)
        for number in range(20):
            params, state = step(params, state, jnp.int32(number))
        params = jax.device_get(params)

    for number in range(20):
        torch_loss(name, parameters, images, labels).backward()
        sgd.step(RATE if number < 10 else RATE / 8)

    moved = jax.tree.map(np.subtract, params, before)
    assert min(np.abs(leaf).max() for leaf in jax.tree.leaves(moved)) > 0
    start = torch_parameters(before)
    assert largest_difference(moved, {key: (start[key], parameters[key]) for key in start}, of=movement) < 1e-6


def movement(pair):
    before, after = pair
    return after - before
