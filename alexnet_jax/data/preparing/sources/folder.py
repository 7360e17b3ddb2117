"""Any tree of images: `SPLIT/CLASS/*.jpg`, or `CLASS/*.jpg`."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from alexnet_jax.data.errors import MissingSourceError, SourceError
from alexnet_jax.data.folder_listing import (
    ENDING_LIST,
    ENDINGS,
    HIDDEN,
    NO_FILE,
    OUTSIDE,
    Seen,
    by_ending,
    is_file,
    is_folder,
    is_hidden,
)
from alexnet_jax.data.picture_files import composed, pictures_below
from alexnet_jax.data.preparing.listing import Item, Listing, missing_classes, read_span
from alexnet_jax.errors import reason_of
from alexnet_jax.paths import in_one_line

# Folders of these names are splits, never classes.
SPLIT_NAMES = ("train", "training", "val", "valid", "validation", "test", "testing", "dev", "eval")
HELD_OUT = 0.1  # share of each class, where the tree has a training split alone
READABLE = "make the folder readable or move it out of the tree"
EXPECTED = "expected SPLIT/CLASS/IMAGE, such as train/cat/1.jpg, or CLASS/IMAGE"


def folder(name: str, source_dir: str, *, held_out: float | None = None, say: Callable[[str], None] = print) -> Listing:
    """The images of a tree; the classes are the folders of `train`, in alphabetical order.

    Subfolders of a class belong to the class. A tree of class folders alone is the split `train`: no folder is named as
    a split, and an image lies directly in one of them. Where `train` is the only split, a share of each class becomes
    `validation`, chosen by a hash of the file names: the same on every machine.

    Args:
      name: of the data set to prepare.
      source_dir: the tree.
      held_out: the share; None: a tenth.
      say: takes a line about each default, about each kind of entry that is ignored, and about the progress of a long
        listing.

    Raises:
      SourceError: the tree has another form, fewer than two classes, or cannot be read.
    """
    root = Path(source_dir)
    seen = Seen(say, below=root)
    splits = _splits(root, seen, say)
    class_names = _class_names(root, splits)
    labels = {composed(name): label for label, name in enumerate(class_names)}
    items: dict[str, list[Item]] = {}
    for split, classes in splits.items():
        items[split] = []
        for name_there, path in classes.items():
            label, images = labels[composed(name_there)], _images(path, seen, needed=split == "train")
            class_name = class_names[label]
            items[split] += [
                Item(f"{class_name}/{inner}", label, str(path / inner), 0, size, modified)
                for inner, size, modified in images
            ]
    for line in seen.lines():
        say(line)
    for split in [split for split, listed in items.items() if not listed]:
        say(f"the folder {split!r} holds no image and makes no split")
        del items[split]
    if len(items) == 1:
        items = _hold_out(items["train"], HELD_OUT if held_out is None else held_out)
        if count := len(items["validation"]):
            say(f"no split but 'train': {count:,} image{' is' if count == 1 else 's are'} held out as 'validation'")
        else:
            say(
                "no split but 'train', and no image is held out, for each class has one alone; to measure an error, add"
                " images to the classes"
            )
        items = {split: listed for split, listed in items.items() if listed}
    elif held_out is not None:
        say(f"nothing is held out: the tree has the splits {', '.join(items)}")
    for split, listed in items.items():
        if line := missing_classes(split, class_names, {item.label for item in listed}):
            say(line)
    return Listing(name, class_names, items, read_span, [], f"Images of {in_one_line(root.resolve().name)}")


def _splits(root: Path, seen: Seen, say: Callable[[str], None]) -> dict[str, dict[str, Path]]:
    """The class folders of each split, by name.

    Raises:
      SourceError: the tree has another form.
    """
    folders = _folders(root, seen)
    flat = {name: count for name in folders if (count := _count_images(root / name, seen))}
    if "train" not in folders:
        named_as_splits = set(map(str.lower, folders)) & set(SPLIT_NAMES)
        if flat and not named_as_splits:
            what = f"{len(folders):,} folders of {root} are" if len(folders) > 1 else f"only folder of {root} is"
            say(f"no folder 'train': the {what} used as the class{'es' * (len(folders) > 1)} of 'train'")
            return {"train": {name: root / name for name in folders}}
        some = ", ".join(folders[:10]) + ", ..." * (len(folders) > 10)
        if folders and not named_as_splits:
            raise SourceError(
                f"{root} has no folder 'train', and its folders {some} may be splits or classes, for no image lies"
                f" directly in one; {EXPECTED}: move classes into a folder 'train', or name the training split 'train'"
            )
        held = f"holds the folders {some}" if folders else "holds no folder"
        raise SourceError(f"{root} has no folder 'train' and {held}; {EXPECTED}")
    splits = {split: {name: root / split / name for name in _folders(root / split, seen)} for split in folders}
    for split, count in flat.items():
        if not splits[split]:
            raise SourceError(
                f"{root / split} holds {count:,} images outside of class folders; {EXPECTED}: sort the images into"
                f" class folders, or move {split!r} out of the tree"
            )
    return splits


def _class_names(root: Path, splits: dict[str, dict[str, Path]]) -> list[str]:
    class_names = list(splits["train"])
    if len(class_names) < 2:
        count = f"one class ({class_names[0]})" if class_names else "no class (no folder)"
        raise SourceError(
            f"the split 'train' of {root} has {count}; at least two classes are needed: one folder a class"
        )
    for name in class_names:
        if (stored := os.fsencode(name)) != name.encode(errors="replace"):
            raise SourceError(f"{root} has the class {stored!r}, and the name is not UTF-8; rename it")
        if in_one_line(name) != name or not name.strip():
            raise SourceError(f"{root} has the class {name!r}; rename it: TFDS keeps the names in lines of a text")
    known = _forms(root / "train", class_names)
    for split, classes in splits.items():
        forms = _forms(root / split, classes)
        if unknown := sorted(forms.keys() - known.keys()):
            raise SourceError(
                f"{root / split} has the class {forms[unknown[0]]!r}, which 'train' has not; add the class to 'train',"
                " or move it out of the tree"
            )
    return class_names


def _forms(path: Path, names: Iterable[str]) -> dict[str, str]:
    """The names of a split's class folders by Unicode's composed form; some systems store names in the other one.

    Raises:
      SourceError: two names differ in their forms alone.
    """
    forms: dict[str, str] = {}
    for name in names:
        if (other := forms.setdefault(composed(name), name)) != name:
            raise SourceError(
                f"{path} has the class {name!r} twice, in two Unicode forms ({other!a} and"
                f" {name!a}); move the images of one into the other"
            )
    return forms


def _images(path: Path, seen: Seen, *, needed: bool) -> list[tuple[str, int, int]]:
    """The images of a class by path below the class folder, with their sizes and times of modification.

    Raises:
      SourceError: the folder holds none, and an image is `needed`, or the folder holds other pictures.
    """
    images, endings = [], seen.endings.copy()
    for file in pictures_below(str(path), seen):
        try:
            stat = os.stat(file)
        except OSError:  # removed since
            seen.leave_out(NO_FILE, file)
            continue
        images.append((file.removeprefix(os.path.join(path, "")), stat.st_size, stat.st_mtime_ns))
    for unreadable, reason in seen.unreadable:
        raise SourceError(f"{unreadable} cannot be read: {reason}; {READABLE}")
    pictures = seen.endings - endings
    if not images and pictures.total():
        them = "it" if pictures.total() == 1 else "them"
        raise SourceError(f"{path} holds no image but {by_ending(pictures)}; convert {them} to JPEG ({ENDING_LIST})")
    if not images and needed:
        raise SourceError(f"{path} holds no image ({ENDING_LIST}); fill the folder, or move it out of the tree")
    return sorted(images)


def _folders(path: Path, seen: Seen) -> list[str]:
    """The folders in a folder that should hold nothing else."""
    folders = []
    for entry in _entries(path, seen):
        if is_hidden(entry.name):
            _ignore_hidden(path, entry, seen)
        elif is_folder(entry):
            folders.append(entry.name)
        elif _is_image(entry):
            seen.leave_out(OUTSIDE, str(path / entry.name))
        else:
            seen.leave_out_file(str(path / entry.name))
    return sorted(folders)


def _ignore_hidden(path: Path, entry: "os.DirEntry[str]", seen: Seen) -> None:
    if is_folder(entry) or _is_image(entry):  # other hidden files, such as .DS_Store, are of no concern
        seen.leave_out(HIDDEN, str(path / entry.name))


def _is_image(entry: "os.DirEntry[str]") -> bool:
    return entry.name.lower().endswith(ENDINGS) and is_file(entry)


def _count_images(path: Path, seen: Seen) -> int:
    return sum(_is_image(entry) and not is_hidden(entry.name) for entry in _entries(path, seen, counts=False))


def _entries(path: Path, seen: Seen, *, counts: bool = True) -> Iterator["os.DirEntry[str]"]:
    try:
        with os.scandir(path) as entries:
            ordered = sorted(seen.count(entries, path, each=0), key=lambda entry: entry.name)
    except OSError as error:
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            raise MissingSourceError(f"{path} cannot be read: {reason_of(error)}") from error
        raise SourceError(f"{path} cannot be read: {reason_of(error)}; {READABLE}") from error
    yield from seen.count(ordered, path, each=int(counts))


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
