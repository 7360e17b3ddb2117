"""Networks from and for other programs.

    python -m alexnet_jax.convert import bvlc_alexnet.caffemodel --workdir=runs/bvlc
    python -m alexnet_jax.convert import bvlc_alexnet.caffemodel --workdir=runs/bvlc --mean=imagenet_mean.binaryproto
    python -m alexnet_jax.convert import alexnet-owt-7be5be79.pth --workdir=runs/torchvision
    python -m alexnet_jax.convert export --workdir=runs/elpv --to=cells.onnx
    python -m alexnet_jax.convert export --workdir=runs/bvlc --to=alexnet.caffemodel
    python -m alexnet_jax.convert export --workdir=runs/torchvision --to=alexnet.safetensors --kind=torchvision

`import` reads Caffe's AlexNet and CaffeNet (.caffemodel), torchvision's alexnet (.safetensors, .pth or .ckpt, also in
the dictionaries of a training script or of Lightning), its convolutions alone (also a pickle of NumPy arrays), and what
`export` wrote as .safetensors. It makes a workdir that `predict`, `evaluate`, `figures`, `features` and
--config.init_from take as that of a training run. It needs neither Caffe nor PyTorch, and runs no code of a file.

`export` writes, by the ending of --to, .stablehlo (a program of JAX for CPUs, CUDA and TPUs), .onnx, .safetensors (the
whole network, for `alexnet_jax.load` and `import`; with --kind=torchvision in torchvision's layout) or .caffemodel.
StableHLO and ONNX take the pixels of crops as bytes and give probabilities. FILE.README.md beside the file says how it
is used, how pictures become its input, what its classes are, and the licence of the images behind the network.
"""

import os
import shlex
import sys

if not __package__:  # `python alexnet_jax/convert.py` puts this folder on the path; its parent holds the package
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
if __name__ == "__main__":  # before the other imports
    from alexnet_jax import startup

    startup.leave_on_interrupt()

from absl import flags
from etils import epath

from alexnet_jax import cli, cli_network, loading, paths
from alexnet_jax.errors import UsageError
from alexnet_jax.formats import export, export_page, imported, workdir
from alexnet_jax.formats.safetensors import Network
from alexnet_jax.hints import hints
from alexnet_jax.model_card import card
from alexnet_jax.network.sharding import count_params
from alexnet_jax.workdir import data_identity

for flag in (cli_network.WORKDIR, cli_network.CHECKPOINT, cli_network.DATA_DIR):
    flags.declare_key_flag(flag.name)  # so that --help lists it; --native is of no use here
KIND = flags.DEFINE_enum(
    "kind",
    "auto",
    tuple(dict.fromkeys((*imported.KINDS, *export.KINDS))),
    f"import: kind of the network, {', '.join(imported.KINDS)}, where auto is that of the file. export: kind of the"
    f" file, {', '.join(export.KINDS)}; auto: by the ending.",
)
TO = flags.DEFINE_string("to", None, f"export: file to write, {', '.join(export.SUFFIXES)}.")
MEAN = flags.DEFINE_string(
    "mean", None, "import: Caffe's mean image, .binaryproto; default: ImageNet's usual mean colour."
)
CLASSES = flags.DEFINE_string(
    "classes", None, "import: file with the name of a class a line; default: ImageNet's ids, where there are 1000."
)

COMMANDS = "import FILE, export"


@hints()
def main(command: str | None = None, file: str | None = None) -> None:
    """Runs the command that the first word names."""
    if cli_network.NATIVE.present:
        raise UsageError("--native is of no use here: nothing is computed; leave it out")
    cli.use_no_device()
    if command == "import":
        return run_import(file)
    if command == "export":
        return run_export(file)
    raise UsageError(f"{'what to do' if command is None else repr(command)}? Known: {COMMANDS}")


def run_import(file: str | None) -> None:
    """Imports a file into a workdir, and prints a description of the network."""
    if file is None:
        raise UsageError("import which file? Name a .caffemodel, .pth or .safetensors after the word import")
    if TO.value or KIND.value not in imported.KINDS:
        flag = "--to" if TO.value else f"--kind={KIND.value}"
        raise UsageError(f"{flag} is for export; import takes --workdir and --kind={', '.join(imported.KINDS)}")
    for other in (cli_network.CHECKPOINT, cli_network.DATA_DIR):
        if other.present:
            raise UsageError(f"--{other.name} is for export; a file holds one network, and needs no data set")
    folder = cli_network.folder()
    network = imported.read(
        paths.absolute(file),
        kind=KIND.value,
        mean=MEAN.value and paths.absolute(MEAN.value),
        classes=CLASSES.value and paths.absolute(CLASSES.value),
    )
    workdir.write(folder, network, epath.Path(file).name, say=cli_network.say)
    for note in network.notes:
        cli_network.say(f"note: {note}")
    cli.print_results(f"{describe(network, str(folder))}\n")


def describe(network: Network, folder: str) -> str:
    """The imported network in a line, and a command that uses it."""
    settings, classes = network.settings, network.preprocessing.class_names
    width = "" if settings.network.width == 1 else f" with width {settings.network.width:g}"
    names = f"{len(classes):,} classes, {classes[0]} to {classes[-1]}" if classes else "no classifier"
    command = "predict" if classes else "features"
    rest = "IMAGE" if classes else "PICTURES --layer=conv5 --output=features.npz"
    return (
        f"{folder}: the recipe {settings.network.recipe}{width}, {count_params(network.params):,} parameters, {names},"
        f" crops of {network.preprocessing.crop_size} pixels\n"
        f"python -m alexnet_jax.{command} --workdir={shlex.quote(folder)} {rest}"
    )


def run_export(word: str | None) -> None:
    """Exports the network of a workdir to a file, and prints a description of the file."""
    if word is not None:
        raise UsageError(f"export {word}? Name the file by --to={word}, and the network by --workdir")
    if not TO.value:
        raise UsageError(f"--to is missing; name the file to write, {', '.join(export.SUFFIXES)}")
    if MEAN.value or CLASSES.value:
        raise UsageError("--mean and --classes are for import; a workdir has its own")
    file = cli_network.output_file("--to", TO.value, export.SUFFIXES)
    kind = export.kind_of(file, KIND.value)
    folder = cli_network.folder()
    network = loading.open_workdir(folder, cli_network.CHECKPOINT.value, data_dir=cli_network.DATA_DIR.value)
    licence = card.licence_in(folder) or data_identity.licence_in(folder)  # a run that is not through has no card
    written, *beside = export.export(network, file, kind, licence=licence)
    cli.print_results(
        f"{written}: {kind}, {written.stat().length / 1e6:,.1f} MB, {export_page.title(network)}\n"
        f"beside it: {', '.join(path.name for path in beside)}\n"
    )


if __name__ == "__main__":
    cli.run(main, words=2)
