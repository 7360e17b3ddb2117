"""Environment variables of JAX and XLA: none changes a number, and those that break the program are named."""

import jax
import numpy as np
import pytest

from alexnet_jax.runtime import variables
from alexnet_jax.runtime.errors import VariableError


@pytest.fixture
def option():
    """Sets an option of JAX as its variable does, for one test."""
    before: dict[str, object] = {}

    def set_option(name: str, value: object) -> None:
        before.setdefault(name, getattr(jax.config, name))
        jax.config.update(name, value)

    yield set_option
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("jax_enable_x64", True),
        ("jax_threefry_partitionable", False),
        ("jax_default_prng_impl", "rbg"),
        ("jax_random_seed_offset", 3),
    ],
)
def test_no_variable_changes_the_numbers_of_a_run(option, name: str, value: object):
    expected = jax.random.uniform(jax.random.key(0), (3,))
    option(name, value)
    variables.check()
    found = jax.random.uniform(jax.random.key(0), (3,))
    assert found.dtype == expected.dtype and (found == expected).all()


@pytest.mark.parametrize("name", ["jax_transfer_guard", "jax_transfer_guard_host_to_device"])
def test_a_guard_of_the_environment_stops_no_transfer(option, name: str):
    option("jax_transfer_guard", "disallow")
    option(name, "disallow")
    variables.check()
    assert jax.numpy.add(np.ones(3), 1).sum() == 6


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("jax_disable_jit", True, "JAX_DISABLE_JIT is '1': the steps are compiled"),
        ("jax_check_tracer_leaks", True, "JAX_CHECK_TRACER_LEAKS is '1': libraries"),
        ("jax_no_tracing", True, "JAX_NO_TRACING is '1': nothing can be compiled"),
        ("jax_no_execution", True, "JAX_NO_EXECUTION is '1': nothing can be computed"),
        ("jax_array_garbage_collection_guard", "fatal", "JAX_ARRAY_GARBAGE_COLLECTION_GUARD is '1': libraries"),
        ("jax_default_device", "gpu", "JAX_DEFAULT_DEVICE is '1': JAX_PLATFORMS selects the devices; correct or unset"),
    ],
)
def test_an_option_under_which_nothing_works_is_refused(option, monkeypatch, name: str, value: object, text: str):
    monkeypatch.setenv(name.upper(), "1")
    option(name, value)
    with pytest.raises(VariableError, match=f"^{text}"):
        variables.check()


@pytest.mark.parametrize(
    "module", ["main", "evaluate", "prepare", "benchmark", "predict", "figures", "features", "convert"]
)
def test_a_wrong_value_that_jax_refuses_at_its_import_is_one_line(command, module: str):
    """Each command imports JAX first where the error is caught."""
    status, out, err = command(module, JAX_LOGGING_LEVEL="loud").finish()
    assert (status, out) == (2, "")
    assert (
        err.startswith("error: an environment variable of JAX has a wrong value: Invalid value")
        and err.count("\n") == 1
    )


def test_a_folder_for_programs_that_cannot_be_made_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("JAX_DUMP_IR_TO", "/proc/nowhere")
    with pytest.raises(
        VariableError, match=r"^JAX_DUMP_IR_TO is '/proc/nowhere': No such file or directory; correct or"
    ):
        variables.check()
    monkeypatch.setenv("JAX_DUMP_IR_TO", str(tmp_path / "made"))
    variables.check()


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        ("--nothing=1", "Unknown flag in XLA_FLAGS: --nothing=1"),
        ("--xla_dump_hlo_as_text --xla_nothing", "--xla_nothing"),
        (
            "--xla_force_host_platform_device_count=x",
            "Couldn't interpret value x for flag xla_force_host_",
        ),
        ("nothing", 'Could not open file "nothing"'),
    ],
)
def test_flags_that_would_end_xla_are_one_line(monkeypatch, flags: str, text: str):
    monkeypatch.setenv("XLA_FLAGS", flags)
    with pytest.raises(VariableError) as refused:
        variables.check()
    line = str(refused.value)
    assert line.startswith(f"XLA_FLAGS is {flags!r}: ") and text in line and line.endswith("; correct or unset it")
    assert "\n" not in line


@pytest.mark.parametrize("flags", ["", "--xla_force_host_platform_device_count=4"])
def test_flags_that_xla_knows_are_left_alone(monkeypatch, flags: str):
    monkeypatch.setenv("XLA_FLAGS", flags)
    variables.check()
