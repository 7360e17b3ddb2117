"""Trains: `python -m alexnet_jax.main --config=configs/default.py`.

Overrides: --config.num_epochs=2. The same command resumes an interrupted run.
"""

import dataclasses
import os
import signal
import sys

if __name__ == "__main__":  # the imports take seconds, in which there is nothing to save: start me again
    signal.signal(signal.SIGTERM, lambda *_: os._exit(os.EX_TEMPFAIL))
if not __package__:  # `python alexnet_jax/main.py` puts this folder on the path; its parent holds the package
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
if __name__ == "__main__":  # before the other imports
    from alexnet_jax import startup

    startup.leave_on_interrupt()

from absl import flags
from etils import epath

from alexnet_jax import cli, command_line, config_flag, paths
from alexnet_jax.experiment import build, follow, summary
from alexnet_jax.experiment.data import small_crops
from alexnet_jax.experiment.settings import read_settings
from alexnet_jax.hints import hints
from alexnet_jax.network.native import build as native
from alexnet_jax.runtime import processes
from alexnet_jax.train import train_and_evaluate
from alexnet_jax.workdir import data_identity
from alexnet_jax.workdir import record as workdirs

CONFIG = config_flag.define("The experiment, such as configs/default.py.")
flags.adopt_module_key_flags(config_flag)  # so that --help lists --config
WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder or gs:// address for checkpoints and metrics; default: runs/ and the config's name."
)
DATA_DIR = flags.DEFINE_string("data_dir", None, cli.DATA_DIR_HELP)
DISTRIBUTED = flags.DEFINE_enum("distributed", "auto", ["auto", "on", "off"], processes.HELP)
NATIVE = flags.DEFINE_enum("native", "auto", ["auto", "off"], native.HELP)
DRY_RUN = flags.DEFINE_bool(
    "dry_run", False, "Print the network, memory and schedule of the config, and train nothing."
)


@hints(has_config=True)
def main() -> None:
    """Trains what the flags say."""
    if DRY_RUN.value:
        cli.use_no_device()
    else:
        processes.start(DISTRIBUTED.value)
    config = command_line.config_of(CONFIG)
    settings = read_settings(config)
    workdir = paths.absolute(WORKDIR.value or os.path.join("runs", settings.name))
    if DRY_RUN.value:
        folder = epath.Path(workdir)
        if workdirs.has_checkpoints(folder):  # the run resumes, and starts from no other one
            settings = dataclasses.replace(settings, init_from=None, fresh=())
            settings = settings.on_data_set(data_identity.form_of(folder, settings.dataset.name))
        data = follow.prepared(settings.dataset.name, DATA_DIR.value)
        text = summary.describe(settings, None if data is None else follow.facts_of(data))
        if data and (line := small_crops(data, settings.dataset.name, settings.dataset.crop_size)):
            text += f"\n{line}"
        cli.print_results(f"{text}\n")
        return
    build.check_given_mesh(settings)  # before a CPU makes so many devices, which may take all memory
    cli.start(cpu_devices=build.cpu_devices(settings), native=NATIVE.value)
    train_and_evaluate(config, workdir, DATA_DIR.value)


if __name__ == "__main__":
    cli.run(main)
