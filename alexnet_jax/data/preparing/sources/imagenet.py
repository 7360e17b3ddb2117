"""ILSVRC 2012 and 2010 from their official tar archives, read in place."""

import importlib.resources
import io
import os
import re
from collections.abc import Callable
from pathlib import Path

from alexnet_jax.data.errors import MissingSourceError, PartialArchiveError, SourceError
from alexnet_jax.data.preparing.listing import Item, Listing, read_span
from alexnet_jax.data.preparing.sources.archives import Member, members
from alexnet_jax.errors import words_of

MAX_DEVKIT_FILE = 64 * 2**20  # bytes

# Images of the official archives; the sizes of 2012's are 147,897,477,120 and 6,744,924,160 bytes.
IMAGES = {
    "ILSVRC2012_img_train.tar": 1_281_167,
    "ILSVRC2012_img_val.tar": 50_000,
    "ILSVRC2010_images_train.tar": 1_261_406,
    "ILSVRC2010_images_val.tar": 50_000,
    "ILSVRC2010_images_test.tar": 150_000,
}


def imagenet2012(source_dir: str, *, partial: bool = False, say: Callable[[str], None] = print) -> Listing:
    """The 1000 classes in the order of their WordNet ids, as usual; TFDS has the validation labels.

    Args:
      source_dir: holds `ILSVRC2012_img_train.tar` and `ILSVRC2012_img_val.tar`.
      partial: accept archives with fewer images than the official archives.
      say: takes a line about the progress.

    Raises:
      SourceError: an archive is missing or damaged, or a file of that name holds something else.
    """
    folder = importlib.resources.files("tensorflow_datasets") / "datasets" / "imagenet2012"
    ids = folder.joinpath("labels.txt").read_text().split()
    # The labels of TFDS are in the order of the images' names.
    truth = [ids.index(wordnet_id) for wordnet_id in folder.joinpath("validation_labels.txt").read_text().split()]
    train = _archive(source_dir, "ILSVRC2012_img_train.tar")
    validation = _archive(source_dir, "ILSVRC2012_img_val.tar")
    problems: list[tuple[str, str]] = []
    splits = {
        "train": _classes(train, ids, problems, partial=partial, say=say),
        "validation": _numbered(validation, "ILSVRC2012_val_", truth, problems, partial=partial, say=say),
    }
    return Listing("imagenet2012", ids, splits, read_span, problems, "ILSVRC 2012: 1000 classes of ImageNet")


def imagenet2010(source_dir: str, *, partial: bool = False, say: Callable[[str], None] = print) -> Listing:
    """The 1000 classes of 2010 in the order of their WordNet ids; the test split where its labels are present.

    Args:
      source_dir: holds `ILSVRC2010_images_train.tar`, `ILSVRC2010_images_val.tar` and the development kit, packed
        (`ILSVRC2010_devkit-1.0.tar`) or not (`devkit-1.0/`); also `ILSVRC2010_images_test.tar` with
        `ILSVRC2010_test_ground_truth.txt`, optionally.
      partial: accept archives with fewer images than the official archives.
      say: takes a line about the progress.

    Raises:
      SourceError: a file is missing or damaged, or a file of that name holds something else.
    """
    numbers = _numbers_of_classes(_devkit(source_dir, "meta.mat"))
    ids = sorted(numbers.values())
    by_number = {number: ids.index(wordnet_id) for number, wordnet_id in numbers.items()}

    def truth(text: bytes, file: str) -> list[int]:
        try:
            return [by_number[int(line)] for line in text.split()]
        except (KeyError, ValueError) as error:
            raise SourceError(
                f"{file} holds {error}, a label outside the {len(ids)} classes; use the official file"
            ) from error

    problems: list[tuple[str, str]] = []
    train = _archive(source_dir, "ILSVRC2010_images_train.tar")
    validation = _archive(source_dir, "ILSVRC2010_images_val.tar")
    name = "ILSVRC2010_validation_ground_truth.txt"
    labels = truth(_devkit(source_dir, name), name)
    splits = {
        "train": _classes(train, ids, problems, partial=partial, say=say),
        "validation": _numbered(validation, "ILSVRC2010_val_", labels, problems, partial=partial, say=say),
    }
    test, answers = Path(source_dir, "ILSVRC2010_images_test.tar"), Path(source_dir, "ILSVRC2010_test_ground_truth.txt")
    if test.exists() and answers.exists():
        labels = truth(answers.read_bytes(), answers.name)
        splits["test"] = _numbered(str(test), "ILSVRC2010_test_", labels, problems, partial=partial, say=say)
    elif test.exists() or answers.exists():
        there, missing = (test, answers) if test.exists() else (answers, test)
        say(f"{there} makes no split 'test': {missing.name} is not beside it")
    return Listing("imagenet2010", ids, splits, read_span, problems, "ILSVRC 2010: 1000 classes of ImageNet")


def _archive(source_dir: str, name: str) -> str:
    path = Path(source_dir, name)
    if not path.is_file():
        there = sorted(file.name for file in Path(source_dir).glob("*.tar*")) if Path(source_dir).is_dir() else []
        raise MissingSourceError(
            f"{path} is missing"
            + (
                f" (the folder holds {', '.join(there[:5])})"
                if there
                else "; image-net.org has it for registered users"
            )
        )
    return str(path)


def _classes(
    path: str, ids: list[str], problems: list[tuple[str, str]], *, partial: bool, say: Callable[[str], None]
) -> list[Item]:
    """A tar of tars, one a class: `n01440764.tar` holds `n01440764_10026.JPEG` and so on."""
    say(f"listing {path}")
    modified = os.stat(path).st_mtime_ns
    label_of, seen, items = {wordnet_id: label for label, wordnet_id in enumerate(ids)}, set(), []
    for outer in members(path):
        wordnet_id = outer.name.split("/")[-1].removesuffix(".tar")
        if outer.problem is None and (wordnet_id not in label_of or not outer.name.endswith(".tar")):
            raise SourceError(
                f"{path} holds {outer.name!r}, which is not the archive of a class; is the file the training tar?"
            )
        if outer.problem is not None:
            problems.append((outer.name, outer.problem))
            continue
        seen.add(wordnet_id)
        for member in members(path, outer.offset, outer.size):
            if _usable(member, f"{wordnet_id}/", problems):
                label = label_of[wordnet_id]
                items.append(Item(f"{wordnet_id}/{member.name}", label, path, member.offset, member.size, modified))
    missing = sorted(label_of.keys() - seen)
    if missing:
        raise SourceError(
            f"{path} lacks {len(missing)} of {len(ids)} classes: {', '.join(missing[:5])}"
            f"{', ...' if len(missing) > 5 else ''}; download the archive again and compare the checksum"
        )
    _check_count(path, len(items), partial)
    return items


def _numbered(
    path: str,
    prefix: str,
    truth: list[int],
    problems: list[tuple[str, str]],
    *,
    partial: bool,
    say: Callable[[str], None],
) -> list[Item]:
    """A flat tar of `ILSVRC2012_val_00000001.JPEG` and so on, in any order: the number finds the label."""
    say(f"listing {path}")
    items, modified = [], os.stat(path).st_mtime_ns
    for member in members(path):
        if not _usable(member, "", problems):
            continue
        match = re.fullmatch(rf"{prefix}(\d{{8}})\.JPEG", member.name.split("/")[-1])
        if match is None or not 1 <= int(match[1]) <= len(truth):
            raise SourceError(
                f"{path} holds {member.name!r}; expected {prefix}00000001.JPEG to {prefix}{len(truth):08}.JPEG:"
                " the file is another archive"
            )
        items.append(Item(member.name, truth[int(match[1]) - 1], path, member.offset, member.size, modified))
    _check_count(path, len(items), partial)
    return items


def _usable(member: Member, prefix: str, problems: list[tuple[str, str]]) -> bool:
    if member.problem is not None:
        problems.append((prefix + member.name, member.problem))
    return member.problem is None


def _check_count(path: str, count: int, partial: bool) -> None:
    expected = IMAGES[Path(path).name]
    if count != expected and not partial:
        raise PartialArchiveError(path, count, expected)


def _devkit(source_dir: str, name: str) -> bytes:
    """The content of a file of the development kit, packed or not."""
    unpacked = list(Path(source_dir).glob(f"devkit-1.0/**/{name}"))
    if unpacked:
        return unpacked[0].read_bytes()
    packed = Path(source_dir, "ILSVRC2010_devkit-1.0.tar")
    if packed.is_file():
        for member in members(str(packed)):
            if member.name.split("/")[-1] == name and member.problem is None and member.size <= MAX_DEVKIT_FILE:
                return read_span(Item(name, -1, str(packed), member.offset, member.size, 0))[0]
    raise MissingSourceError(
        f"{name} of the 2010 development kit is missing in {source_dir}; put ILSVRC2010_devkit-1.0.tar or the folder"
        " devkit-1.0 there (unpack .tar.gz with gunzip first)"
    )


def _numbers_of_classes(meta: bytes) -> dict[int, str]:
    """The WordNet ids of the 1000 classes without children, by ILSVRC2010_ID."""
    import scipy.io

    try:
        synsets = scipy.io.loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"]
        numbers = {int(row["ILSVRC2010_ID"]): str(row["WNID"]) for row in synsets if int(row["num_children"]) == 0}
    except Exception as error:  # SciPy has no common error for damaged files
        raise SourceError(
            f"meta.mat of the 2010 development kit cannot be read ({words_of(error)}); use the official development kit"
        ) from error
    if len(numbers) < 2:
        raise SourceError(f"meta.mat names {len(numbers)} classes; use the official development kit")
    return numbers
