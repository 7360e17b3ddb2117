import pytest

from alexnet_jax.learning.stuck_loss import StuckLoss


def test_a_loss_that_stays_that_of_guessing_is_described_once():
    check = StuckLoss(classes=1000, num_steps=10_000)
    described = {step: text for step in range(1, 3000) if (text := check.add(step, 6.91))}
    guessing = "is still that of guessing among 1,000 classes, 6.9078"
    assert described == {1000: f"after 1,000 updates the loss, 6.9100, {guessing}"}


def test_a_loss_that_falls_is_not_stuck():
    check = StuckLoss(classes=1000, num_steps=10_000)
    assert not any(check.add(step, 6.91 - 0.0002 * step) for step in range(1, 3000))


@pytest.mark.parametrize(("num_steps", "after"), [(20, 100), (2000, 200), (900_000, 2000)])
def test_the_check_comes_after_a_tenth_of_the_run_within_limits(num_steps: int, after: int):
    assert StuckLoss(classes=10, num_steps=num_steps).after == after


def test_a_loss_that_begins_to_fall_in_the_second_window_is_not_stuck():
    check = StuckLoss(classes=3, num_steps=380)
    assert not any(check.add(step, 1.09 if step <= 50 else 1.06) for step in range(1, 380))
