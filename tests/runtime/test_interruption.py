"""What becomes of signals; `tests/test_commands.py` and `tests/test_train.py` have whole runs."""

import signal

import pytest

from alexnet_jax.runtime.interruption import STATUS, Interrupted, Interruption


@pytest.mark.parametrize("number", STATUS)
def test_a_signal_that_the_shell_has_ignored_stays_ignored(number: signal.Signals):
    """As Ctrl-C for a command that a script has started in the background."""
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with Interruption() as interruption:
            signal.raise_signal(number)
            assert interruption.received is None
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("number", STATUS)
def test_a_signal_before_there_is_a_state_ends_the_run_at_once(number: signal.Signals):
    before = signal.getsignal(number)
    with pytest.raises(Interrupted) as ended, Interruption():
        signal.raise_signal(number)
    assert ended.value.code == STATUS[number] and signal.getsignal(number) is before
