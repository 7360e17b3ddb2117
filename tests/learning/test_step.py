import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from alexnet_jax.data.batch import Batch
from alexnet_jax.learning import step
from tests import small

RNG = np.random.default_rng(0)
KERNEL = jnp.asarray(RNG.normal(size=(2 * 2 * 3, 4)) / 200, jnp.float32)
LABELS = np.array([3, 0, 1], np.int32)
VIEWS = RNG.integers(0, 256, (3, 10, 2, 2, 3), np.uint8)


def forward(params, batch_stats, images, key=None):
    assert key is None, "evaluation draws nothing"
    return images.reshape(images.shape[0], -1) @ params, batch_stats


def inputs(images):
    return images.astype(jnp.float32) - 100


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def test_views_are_averaged_as_probabilities():
    logits = (VIEWS.reshape(3, 10, -1).astype(np.float64) - 100) @ np.asarray(KERNEL, np.float64)
    expected = softmax(logits).mean(axis=1)
    assert np.abs(expected - softmax(logits.mean(axis=1))).max() > 0.01, "the average of logits would do too"
    found = step.predict_log_probs(KERNEL, {}, jnp.asarray(VIEWS), forward=forward, inputs=inputs)
    np.testing.assert_allclose(np.exp(found), expected, rtol=1e-5)


def test_a_probability_that_underflows_has_a_finite_loss():
    images = np.full((1, 2, 2, 2, 3), 255, np.uint8)
    kernel = jnp.zeros_like(KERNEL).at[:, 0].set(1.0)
    found = step.predict_log_probs(kernel, {}, jnp.asarray(images), forward=forward, inputs=inputs)
    np.testing.assert_allclose(found[0], [0, -1860, -1860, -1860], atol=1e-3)


def test_an_evaluation_step_measures_the_average_and_leaves_padding_out():
    mask = np.array([True, True, False])
    batch = Batch(jnp.asarray(VIEWS), jnp.asarray(LABELS), jnp.asarray(mask))
    metrics = step.eval_step(KERNEL, {}, batch, forward=forward, inputs=inputs)
    logits = (VIEWS.reshape(3, 10, -1).astype(np.float64) - 100) @ np.asarray(KERNEL, np.float64)
    probs = softmax(logits).mean(axis=1)
    assert float(metrics.count) == 2
    np.testing.assert_allclose(metrics.loss, -np.log(probs[[0, 1], LABELS[:2]]).sum(), rtol=1e-5)
    assert float(metrics.top1) == (probs.argmax(axis=1) != LABELS)[:2].sum()


def test_a_stream_is_a_function_of_its_name():
    key = jax.random.key(0)
    streams = {name: tuple(np.asarray(jax.random.key_data(step.stream(key, name)))) for name in ("init", "noise")}
    assert streams["init"] != streams["noise"]
    assert streams["init"] == tuple(np.asarray(jax.random.key_data(step.stream(key, "init"))))


def test_noise_and_dropout_are_functions_of_the_key_and_the_step_and_of_nothing_else():
    """Each update has its own, and a repeated update has the same."""
    drawn: list[tuple[int, ...]] = []
    numbers: list[int] = []  # of the updates, as the noise's schedule sees them

    def bits(key) -> tuple[int, ...]:
        return tuple(np.asarray(jax.random.key_data(key)).tolist())

    def noisy(images, key, number):
        drawn.append(bits(key))
        numbers.append(int(number))
        return inputs(images)

    def dropping(params, batch_stats, images, key):
        drawn.append(bits(key))
        return forward(params, batch_stats, images)

    rates = small.piecewise([(0, 0.1)])
    optimizer = small.krizhevsky_sgd({"layer": {"kernel": rates}}, momentum=0.9, weight_decay=0.0)
    params = {"layer": {"kernel": KERNEL}}
    batch = Batch(jnp.asarray(VIEWS[:, 0]), jnp.asarray(LABELS), jnp.ones(3, bool))

    def keys_of(seed: int, number: int) -> list[tuple[int, ...]]:
        drawn.clear()
        state = dataclasses.replace(step.init_state(params, {}, optimizer), step=jnp.int32(number))
        step.train_step(
            state,
            batch,
            jax.random.key(seed),
            forward=lambda params, *rest: dropping(params["layer"]["kernel"], *rest),
            optimizer=optimizer,
            photometry=noisy,
        )
        return list(drawn)

    found = {(seed, number): keys_of(seed, number) for seed in (0, 1) for number in (0, 1, 2)}
    assert numbers == [0, 1, 2, 0, 1, 2]
    assert keys_of(1, 2) == found[1, 2]
    everything = [key for keys in found.values() for key in keys]
    assert len(set(everything)) == len(everything) == 12

    def folded(seed: int, *numbers: int) -> tuple[int, ...]:
        return bits(functools.reduce(jax.random.fold_in, numbers, jax.random.key(seed)))

    # Those of earlier versions: dropout is stream 1, noise stream 2, and initial values are stream 0.
    assert found[1, 2] == [folded(1, 2, 2), folded(1, 1, 2)]
    assert bits(step.stream(jax.random.key(1), "init")) == folded(1, 0)
