"""Training of net 145 on ELPV in C and in the plain form: the same error within its spread."""

import json
from pathlib import Path

import pytest

from alexnet_jax.network.native import build

EPOCHS, SEEDS = 3, (0, 1)
# The forms round differently. After some hundred updates a maximum falls otherwise, and the runs part: by 0.0007 of a
# loss of 0.51 when this was measured. Two seeds of a form differed by 0.005.
TOLERANCE = 0.005
NET145 = ("--config.network.recipe=original", "--config.jitter.symmetries=2", "--config.photometry.each_image=false")


@pytest.mark.soak
def test_training_in_c_and_in_the_plain_form_ends_alike(tmp_path: Path, data_dir: str, command):
    if build.load().platform is None:
        pytest.skip(build.load().line)
    losses: dict[str, list[float]] = {"auto": [], "off": []}
    for native, found in losses.items():
        for seed in SEEDS:
            workdir = tmp_path / f"{native}{seed}"
            flags = *NET145, f"--config.num_epochs={EPOCHS}", f"--config.seed={seed}", f"--native={native}"
            run = command(
                "main", "--config=configs/default.py", *flags, f"--workdir={workdir}", f"--data_dir={data_dir}"
            )
            status, out, err = run.finish(900)
            assert (status, err) == (0, "")
            assert out.count(build.LINES["cpu"]) == 1 and (f"{build.LINES['cpu']}off" in out) == (native == "off")
            found.append(json.loads((workdir / "result.json").read_text())["loss_10_views"])
    print(f"\nloss of {EPOCHS} epochs, seeds {SEEDS}: in C {losses['auto']}, in the plain form {losses['off']}")
    for in_c, plain in zip(losses["auto"], losses["off"], strict=True):
        assert abs(in_c - plain) < TOLERANCE
