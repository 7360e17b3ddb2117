"""Prints `docs/variants.md` from the configs: `python -m docs.variants > docs/variants.md`."""

import importlib
from collections.abc import Mapping
from typing import Any

CONFIGS = (
    "imagenet2012",
    "imagenet2010",
    "fall2009",
    "fall2011",
    "finetune",
    "cifar10",
    "fashion_mnist",
    "large_batch",
)
HEAD = """# Variants

Every variant of every config, with its expected error, the fields that it changes, and its command.

* Errors are top-1 / top-5 in percent, on the config's evaluation split. A difference such as 1.7 / 1.2 is in points.
* "No record" means that the log of 2012 has no figure.
* `--dry_run` after a command prints the layers, memory and schedule of the run. It needs no data. For `finetune` it
  needs the workdir of the run before.
* Each config's docstring has the command that prepares its data.
* Sources, here and in the code: `A` is the author's code and log of 2012
  (github.com/computerhistory/AlexNet-Source-Code, 2f8b81f), `V1` an earlier state of the code
  (github.com/dnouri/cuda-convnet, dd8fd31), `C2` his code of 2014 (github.com/akrizhevsky/cuda-convnet2, 3238bf0) with
  its wiki `C2w`, and `K` Caffe (github.com/BVLC/caffe, 9b89154).

`python -m docs.variants > docs/variants.md` makes this page from the configs. A test compares the two.
"""


def page() -> str:
    """The page as text."""
    return HEAD + "".join(_section(name) for name in CONFIGS)


def _section(name: str) -> str:
    module = importlib.import_module(f"alexnet_jax.configs.{name}")
    rows = [
        f"| `{variant}` | {what.expect} | {_changes(what.changes)} |"
        f" `python -m alexnet_jax.main --config=configs/{name}.py:{variant}` |\n"
        for variant, what in module.VARIANTS.items()
    ]
    title = str(module.__doc__).splitlines()[0]
    return f"\n## {name}\n\n{title}\n\n| variant | expect | changes | command |\n| --- | --- | --- | --- |\n" + "".join(
        rows
    )


def _changes(changes: Mapping[str, Any]) -> str:
    return "<br>".join(f"`{key} = {_value(value)}`" for key, value in changes.items()) or "nothing"


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_value(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, tuple):
        return "(" + ", ".join(map(_value, value)) + ("," if len(value) == 1 else "") + ")"
    return f"{value:.6g}" if isinstance(value, float) else repr(value)


if __name__ == "__main__":
    print(page(), end="")
