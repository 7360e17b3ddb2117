"""Where the images of a prepared data set come from, and under which licence: from TFDS's metadata."""

import dataclasses
import json
from typing import Any

from etils import epath

METADATA_FILE = "dataset_info.json"


@dataclasses.dataclass(frozen=True)
class Provenance:
    """The origin of images. Empty: not recorded.

    Attributes:
      description: in a sentence or more.
      homepage: an address.
      license: of the images, in words.
    """

    description: str = ""
    homepage: str = ""
    license: str = ""


def provenance_of(folder: epath.Path) -> Provenance:
    """The origin of a prepared data set's images, read from its metadata; empty fields are not recorded there."""
    try:
        facts = json.loads((folder / METADATA_FILE).read_text())
    except (OSError, ValueError, RecursionError):
        return Provenance()
    if not isinstance(facts, dict):
        return Provenance()
    urls = _value(facts.get("location"), "urls")
    return Provenance(
        description=_text(facts.get("description")),
        homepage=_text(urls[0]) if isinstance(urls, list) and urls else "",
        license=_text(_value(facts.get("redistributionInfo"), "license")),
    )


def _value(facts: Any, key: str) -> Any:
    return facts.get(key) if isinstance(facts, dict) else None


def _text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else ""
