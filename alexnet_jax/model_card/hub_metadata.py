"""The metadata of a model card that model hubs read: the YAML at its top."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

TAGS = ("image-classification", "alexnet", "jax", "flax")
# Licences that model hubs know by these names.
HUB_LICENSES = {
    *("apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "unlicense", "gpl-3.0", "lgpl-3.0"),
    *(
        f"cc-by{suffix}-{version}"
        for suffix in ("", "-sa", "-nd", "-nc", "-nc-sa", "-nc-nd")
        for version in ("3.0", "4.0")
    ),
}


def front_matter(*, title: str, licence: str, has_classes: bool, results: Sequence[Mapping[str, Any]]) -> str:
    """The lines from `---` to `---`.

    Args:
      title: of the network.
      licence: of the training images, in words; empty: not recorded.
      has_classes: the network has a classifier.
      results: of evaluations, as hubs have them in `model-index`.
    """
    slug = re.sub(r"[^a-z0-9.]+", "-", licence.lower()).strip("-")
    values: dict[str, Any] = {"license": slug if slug in HUB_LICENSES else "other" if slug else "unknown"}
    if values["license"] == "other":
        values["license_name"] = slug
    values |= {"library_name": "alexnet_jax", "tags": list(TAGS)}
    if has_classes:
        values |= {"pipeline_tag": "image-classification"}
    if results:
        values |= {"metrics": ["accuracy"], "model-index": [{"name": title, "results": results}]}
    return "\n".join(["---", *_yaml(values), "---", ""])


def _yaml(values: Mapping[str, Any]) -> Iterator[str]:
    """The lines of a mapping. Texts and numbers are written as JSON, which is YAML too."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield f"{key}:"
            yield from (f"  {line}" for line in _yaml(value))
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            yield f"{key}:"
            for item in value:
                first, *rest = _yaml(item)
                yield from (f"  - {first}", *(f"    {line}" for line in rest))
        else:
            yield f"{key}: {json.dumps(value, ensure_ascii=False)}"
