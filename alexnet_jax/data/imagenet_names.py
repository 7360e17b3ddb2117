"""ImageNet's classes for people: `n02123045` is a tabby.

The ids and names are in `imagenet_names.txt`, with their source and licence.
"""

import functools
from pathlib import Path

FILE = Path(__file__).with_name("imagenet_names.txt")


@functools.cache
def names() -> dict[str, str]:
    """All English names of each of the 1000 classes, such as `tabby, tabby cat`, by WordNet id, in label order."""
    lines = FILE.read_text("utf-8").splitlines()
    return dict(line.split(" ", 1) for line in lines if not line.startswith("#"))


def class_ids() -> tuple[str, ...]:
    """The 1000 WordNet ids in the order of the labels."""
    return tuple(names())


def readable(class_name: str) -> str:
    """A class as people read it: `tabby (n02123045)` for a WordNet id of ImageNet, and any other name as it is."""
    synonyms = names().get(class_name)
    return f"{synonyms.split(', ')[0]} ({class_name})" if synonyms else class_name
