"""Any tree of images: `SPLIT/CLASS/*.jpg`."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from alexnet_jax.data.preparing.listing import Found, Item, read_span
from alexnet_jax.errors import UsageError

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
HELD_OUT = 0.1  # of each class, where the tree has a training split alone


def folder(name: str, source_dir: str, *, held_out: float = HELD_OUT, say: Callable[[str], None] = print) -> Found:
    """The images of a tree; its classes are the folders of `train`, in alphabetical order.

    Where `train` is the only split, a share of each class becomes `validation`, chosen by a hash of the file names:
    the same on every machine.

    Args:
      name: of the data set to be.
      source_dir: the tree.
      held_out: the share.
      say: takes a line about what goes on.

    Raises:
      UsageError: the tree is not of that form, or has fewer than two classes.
    """
    root = Path(source_dir)
    splits = {split: _folders(root / split) for split in _folders(root)}
    if "train" not in splits:
        found = f"it holds the folders {', '.join(splits)}" if splits else "it holds no folder"
        raise UsageError(f"{root} has no folder 'train' ({found}); expected SPLIT/CLASS/IMAGE, such as train/cat/1.jpg")
    class_names = splits["train"]
    if len(class_names) < 2:
        raise UsageError(
            f"{root / 'train'} has {len(class_names)} classes ({', '.join(class_names) or 'no folder'});"
            " at least two are needed: one folder a class"
        )
    odd = [class_name for class_name in class_names if not class_name.isprintable()]
    if odd:
        raise UsageError(
            f"{root / 'train'} has the class {odd[0]!r}; rename it: TFDS keeps the names in lines of a text"
        )
    for split, classes in splits.items():
        unknown = sorted(set(classes) - set(class_names))
        if unknown:
            raise UsageError(f"{root / split} has the class {unknown[0]!r}, which 'train' has not; add it or remove it")
    ignored = 0
    items: dict[str, list[Item]] = {}
    for split, classes in splits.items():
        items[split] = []
        for class_name in classes:
            files, others = _images(root / split / class_name)
            ignored += others
            if not files and split == "train":
                raise UsageError(
                    f"{root / split / class_name} holds no image ({', '.join(ENDINGS)}); remove the folder"
                )
            label = class_names.index(class_name)
            items[split] += [Item(f"{class_name}/{path.name}", label, str(path), 0, size) for path, size in files]
    if ignored:
        say(f"ignoring {ignored:,} files that do not end in {', '.join(ENDINGS)}")
    if len(items) == 1:
        items = _hold_out(items["train"], held_out)
        say(f"no split but 'train': {len(items['validation']):,} images are held out as 'validation'")
    items = {split: listed for split, listed in items.items() if listed}
    return Found(name, class_names, items, read_span, [], f"Images of {root.resolve().name}")


def _folders(path: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise UsageError(f"--source_dir {path} cannot be read: {error.strerror}") from error


def _images(path: Path) -> tuple[list[tuple[Path, int]], int]:
    """The images of a folder with their sizes, and how many other files there are."""
    with os.scandir(path) as entries:
        files = sorted((entry.name, entry.stat().st_size) for entry in entries if _is_file(entry))
    images = [(path / name, size) for name, size in files if name.lower().endswith(ENDINGS)]
    return images, len(files) - len(images)


def _is_file(entry: os.DirEntry[str]) -> bool:
    return entry.is_file() and not entry.name.startswith(".")


def _hold_out(items: list[Item], share: float) -> dict[str, list[Item]]:
    """Of each class the share whose names have the smallest hashes; at least one image stays for training."""
    by_label = defaultdict(list)
    for item in items:
        by_label[item.label].append(item)
    held = set()
    for same in by_label.values():
        count = min(max(1, round(share * len(same))), len(same) - 1)
        held |= {item.name for item in sorted(same, key=_hash)[:count]}
    return {
        "train": [item for item in items if item.name not in held],
        "validation": [item for item in items if item.name in held],
    }


def _hash(item: Item) -> bytes:
    return hashlib.sha256(item.name.encode("utf-8", "surrogateescape")).digest()
