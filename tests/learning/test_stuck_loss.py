import math

import pytest

from alexnet_jax.learning.stuck_loss import StuckLoss, entropy


def stuck_loss(classes: int, num_steps: int) -> StuckLoss:
    return StuckLoss(classes=classes, num_steps=num_steps, labels=lambda: range(classes))


def test_a_loss_that_stays_that_of_guessing_is_described_once():
    check = stuck_loss(classes=1000, num_steps=10_000)
    described = {step: text for step in range(1, 3000) if (text := check.add(step, 6.91))}
    guessing = "is still that of guessing among 1,000 classes, 6.9078"
    assert described == {1000: f"after 1,000 updates the loss, 6.9100, {guessing}"}


def test_a_loss_that_falls_is_not_stuck():
    check = stuck_loss(classes=1000, num_steps=10_000)
    assert not any(check.add(step, 6.91 - 0.0002 * step) for step in range(1, 3000))


@pytest.mark.parametrize(("num_steps", "after"), [(20, 100), (2000, 200), (900_000, 2000)])
def test_the_check_comes_after_a_tenth_of_the_run_within_limits(num_steps: int, after: int):
    assert stuck_loss(classes=10, num_steps=num_steps).after == after


def test_a_loss_that_begins_to_fall_in_the_second_window_is_not_stuck():
    check = stuck_loss(classes=3, num_steps=380)
    assert not any(check.add(step, 1.09 if step <= 50 else 1.06) for step in range(1, 380))


@pytest.mark.parametrize(("loss", "stuck"), [(0.619, True), (0.6, False)])
def test_a_network_that_has_learned_the_frequencies_alone_is_stuck(loss: float, stuck: bool):
    calls = []

    def labels() -> list[int]:
        calls.append(1)
        return [0] * 69 + [1] * 31

    check = StuckLoss(classes=2, num_steps=2000, labels=labels)
    described = {step: text for step in range(1, 1000) if (text := check.add(step, loss))}
    expected = (
        "the loss, 0.6190, is still that of a network that has learned the frequencies of the classes alone, 0.6191"
    )
    assert described == ({200: f"after 200 updates {expected}"} if stuck else {}) and len(calls) == 1


def test_the_entropy_of_labels():
    assert entropy([3, 3, 5, 5]) == pytest.approx(math.log(2)) and entropy([1, 1]) == 0


@pytest.mark.parametrize("classes", [2, 1000])
def test_labels_that_cannot_be_read_or_are_of_many_classes_change_nothing(classes: int):
    check = StuckLoss(classes=classes, num_steps=2000, labels=lambda: [])
    assert not any(check.add(step, 0.62) for step in range(1, 1000))
