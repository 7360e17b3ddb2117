"""Model cards: `MODEL_CARD.md` in a workdir, for readers, and with the metadata that model hubs read.

A card ends with a digest of its text. A card that the digest fits is replaced when a run ends again. A card that a
user has edited stays, and the new card is written beside, as `MODEL_CARD.new.md`.
"""

import dataclasses
import hashlib
import math
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from etils import epath

from alexnet_jax.data.imagenet_names import readable
from alexnet_jax.errors import UsageError
from alexnet_jax.model_card import hub_metadata
from alexnet_jax.model_card.differences import Difference
from alexnet_jax.paths import is_file
from alexnet_jax.workdir import record
from alexnet_jax.workdir.errors import UnwritableWorkdirError

FILE_NAME = "MODEL_CARD.md"
NEW_FILE_NAME = "MODEL_CARD.new.md"
LISTED_CLASSES = 20  # with more, the card has the first and the last
RECORD = "The log of 2012 lacks the biases' rates of the first 91 epochs; those of a sister run stand in for them."
LICENCE_ROW, NOT_RECORDED = "licence of the images", "not recorded"
MARK = "<!-- Written by alexnet_jax. An edited card is not replaced. Digest of the text above: {} -->\n"
MARKED = re.compile(rb"(.*)<!-- Written by alexnet_jax\..* Digest of the text above: ([0-9a-f]+) -->\s*", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Errors:
    """Error rates in [0, 1], as an evaluation gave them.

    Attributes:
      dataset, split: evaluated on.
      views: one of `geometry.VIEWS`.
      count: images.
      top1, top5: error rates; top5 is None where it is not measured, or the classes are too few.
      loss: in nats; None: not measured.
    """

    dataset: str
    split: str
    views: int
    count: int
    top1: float
    top5: float | None = None
    loss: float | None = None


@dataclasses.dataclass(frozen=True)
class Card:
    """The facts of a model card.

    Attributes:
      title: of the card.
      summary: what the network is, in a paragraph.
      license: of the training images, in words; empty: not recorded.
      class_names: in the order of the labels; empty: the network has no classifier.
      data: facts about the training images, by name.
      training: facts about the training, by name; empty: unknown, as of a network that others trained.
      errors: measured on this network.
      differences: from the training of 2012; None: unknown.
      limits: what the network is not good for, a sentence or two each.
      versions: of the packages, by name.
    """

    title: str
    summary: str
    license: str = ""
    class_names: Sequence[str] = ()
    data: Mapping[str, str] = dataclasses.field(default_factory=dict)
    training: Mapping[str, str] = dataclasses.field(default_factory=dict)
    errors: Sequence[Errors] = ()
    differences: Sequence[Difference] | None = None
    limits: Sequence[str] = ()
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)


def write(folder: epath.Path, card: Card, *, say: Callable[[str], None]) -> None:
    """Writes the card into a workdir, beside a card that a user has edited. Where both are edited, none is written.

    A card that cannot be written is a warning: the network is whole without it.

    Args:
      folder: the workdir.
      card: the facts.
      say: prints a line.
    """
    name = NEW_FILE_NAME if is_edited(folder / FILE_NAME) else FILE_NAME
    if is_file(folder / name) and is_edited(folder / name):
        say(f"{folder / FILE_NAME} and {NEW_FILE_NAME} have been edited and stay; no model card is written")
        return
    try:
        record.write_bytes(folder, name, render(card, folder.name).encode("utf-8", "replace"))
    except UsageError as error:
        say(f"warning: the model card cannot be written: {error}")
        return
    if name == NEW_FILE_NAME:
        say(f"{folder / FILE_NAME} has been edited and stays; the new model card is {NEW_FILE_NAME} beside it")


def remove(folder: epath.Path) -> None:
    """Removes the card of a network that is trained further, unless a user has edited the card.

    Raises:
      UnwritableWorkdirError: it cannot be removed.
    """
    for file in (folder / FILE_NAME, folder / NEW_FILE_NAME):
        try:
            if not is_edited(file):
                file.unlink(missing_ok=True)
        except OSError as error:
            raise UnwritableWorkdirError(folder, error) from error


def is_edited(file: epath.Path) -> bool:
    """Whether there is something that this program did not write, or that has changed since."""
    if not file.exists():
        return False
    if not is_file(file):
        return True
    try:
        match = MARKED.fullmatch(file.read_bytes())
    except OSError:
        return True
    return match is None or _digest(match[1]) != match[2].decode()


def render(card: Card, folder_name: str) -> str:
    """The card as Markdown, with its digest.

    Args:
      card: the facts.
      folder_name: of the workdir, for the commands.
    """
    parts = [
        hub_metadata.front_matter(
            title=card.title, licence=card.license, has_classes=bool(card.class_names), results=_results(card.errors)
        ),
        f"# {plain(card.title)}\n\n{plain(card.summary)}\n",
        _use(card, folder_name),
        _errors(card.errors),
        _table("Data", ("", ""), (*card.data.items(), (LICENCE_ROW, card.license or NOT_RECORDED))),
        _classes(card.class_names),
        _table("Training", ("", ""), card.training.items()),
        _differences(card.differences),
        _list("Limits", card.limits),
        _list("Versions", [" · ".join(f"{name} {version}" for name, version in card.versions.items())]),
    ]
    text = "\n".join(filter(None, parts)) + "\n"
    return text + MARK.format(_digest(text.encode("utf-8", "replace")))


def licence_in(folder: epath.Path) -> str:
    """The licence of the images that the card in a workdir names; empty: there is no card, or it names none."""
    file = folder / FILE_NAME
    try:
        text = file.read_bytes().decode("utf-8", "replace") if is_file(file) else ""
    except OSError:
        return ""
    match = re.search(rf"^\| {LICENCE_ROW} \| (.+) \|$", text, re.MULTILINE)
    licence = re.sub(r"\\(.)", r"\1", match[1]) if match else ""
    return "" if licence == NOT_RECORDED else licence


def plain(text: str) -> str:
    """A text that Markdown and HTML show as it is, on one line."""
    return re.sub(r"([\\`*_{}\[\]<>|~$&])", r"\\\1", " ".join(text.split()))


def _digest(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()[:32]


def _results(errors: Sequence[Errors]) -> list[dict[str, Any]]:
    """The errors as hubs have them: accuracies, a result for each data set and number of views."""
    return [
        {
            "task": {"type": "image-classification"},
            "dataset": {"name": row.dataset, "type": row.dataset.partition("/")[0], "split": row.split},
            "metrics": [
                {"type": "accuracy", "name": f"top-{k} accuracy, {_views(row.views)}", "value": round(1 - error, 6)}
                for k, error in ((1, row.top1), (5, row.top5))
                if error is not None
            ],
        }
        for row in errors
    ]


def _views(views: int) -> str:
    return "centre crop" if views == 1 else f"{views} views"


def _use(card: Card, folder_name: str) -> str:
    """Commands and lines of Python with this workdir."""
    folder = shlex.quote(folder_name)
    commands = [
        ("predict", "photo.jpg"),
        ("evaluate", "--views=10"),
        ("figures", ""),
        ("features", "photos --output=features.npz"),
        ("convert export", "--to=network.onnx"),
    ]
    if not card.class_names:
        commands = [("features", "photos --layer=conv5 --output=features.npz"), ("figures", "")]
    lines = [f"python -m alexnet_jax.{command} --workdir={folder} {rest}".rstrip() for command, rest in commands]
    shell = "\n".join(["```sh", *lines, "```"])
    call = 'network.predict("photo.jpg")' if card.class_names else 'network.features("photo.jpg", "conv5")'
    python = f"```python\nimport alexnet_jax\n\nnetwork = alexnet_jax.load({folder_name!r})\n{call}\n```"
    return f"## Use\n\nFrom the folder that holds this one:\n\n{shell}\n\n{python}\n"


def _errors(errors: Sequence[Errors]) -> str:
    if not errors:
        return "## Errors\n\nNot measured.\n"
    has_top5 = any(row.top5 is not None for row in errors)
    head = ("data set", "split", "images", "views", "top-1 error", *["top-5 error"] * has_top5, "loss")
    rows = [
        (
            *(row.dataset, row.split, f"{row.count:,}", _views(row.views), f"{row.top1:.2%}"),
            *["" if row.top5 is None else f"{row.top5:.2%}"] * has_top5,
            "" if row.loss is None else f"{row.loss:.4f}",
        )
        for row in errors
    ]
    first = errors[0]
    note = (
        f"{_uncertainty(first.top1, first.count)} Ten views: the probabilities of four corner crops, the centre crop"
        " and their mirror images are averaged.\n"
    )
    return _table("Errors", head, rows) + f"\n{note}"


def _uncertainty(rate: float, count: int) -> str:
    # The rate at which `count` images have no error in one of twenty draws: 0.05 = (1 - rate) ** count.
    bound = 100 * (1 - 0.05 ** (1 / count))
    if rate == 0:
        return f"No error among {count:,} images leaves room for an error rate of up to {bound:.2g}% (95% confidence)."
    if rate == 1:
        return f"Errors alone among {count:,} images leave room for a rate from {100 - bound:.3g}% on (95% confidence)."
    deviation = 100 * math.sqrt(rate * (1 - rate) / count)
    return (
        f"An error rate counted on {count:,} images has a standard error of about {deviation:.1f} points, from the"
        " choice of these images alone."
    )


def _table(title: str, head: Sequence[str], rows: Any) -> str:
    rows = list(rows)
    if not rows:
        return ""
    lines = [f"| {' | '.join(plain(str(cell)) for cell in row)} |" for row in rows]
    return "\n".join([f"## {title}", "", f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}", *lines, ""])


def _classes(class_names: Sequence[str]) -> str:
    if not class_names:
        return "The network has no classifier: its features are what it gives.\n"
    names = [plain(readable(name)) for name in class_names]
    if len(names) > LISTED_CLASSES:
        names = [*names[:5], "…", *names[-2:]]
    return f"Classes ({len(class_names):,}, in the order of the outputs): {', '.join(names)}.\n"


def _differences(differences: Sequence[Difference] | None) -> str:
    title = "What differs from 2012"
    if differences is None:
        return ""
    order = "In 2012 all epochs had one order of the images; here each has another."
    if not differences:
        nothing = "Nothing on record but the order: this is the training of net 145, the network of the paper's tables."
        return f"## {title}\n\n{nothing} {order} {RECORD}\n"
    note = (
        "In 2012 is net 145 of Krizhevsky's logs, the paper's network, on ILSVRC 2012. The config in `config.json` has"
        " every field. A table such as `0.01, from 25 on 0.001` changes its value by the schedule's unit: epochs,"
        f" updates (`steps`), or shares of the run (`run`, `cosine`). {order} {RECORD}\n"
    )
    return _table(title, ("", "here", "in 2012"), differences) + f"\n{note}"


def _list(title: str, items: Sequence[str]) -> str:
    items = [item for item in items if item]
    return "\n".join([f"## {title}", "", *(f"* {plain(item)}" for item in items), ""]) if items else ""
