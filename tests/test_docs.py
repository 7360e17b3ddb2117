"""The pages name files, folders and modules that exist."""

import importlib.util
import re
from pathlib import Path

import pytest

from tests.conftest import ROOT

PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(ROOT.glob("docs/*.md")),
    *sorted(ROOT.glob("launch/*.md")),
]
PLACES = r"(?<![\w./-])(?:alexnet_jax|configs|docs|launch|tests|network|runtime|workdir)/[\w/.-]*\w"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_names_what_exists(page: Path):
    text = page.read_text()
    for link in re.findall(r"\]\((?!http)([^)#]+)", text):
        assert (page.parent / link).exists(), link
    for place in re.findall(PLACES, re.sub(r"\]\([^)]*\)", "", text)):
        assert (ROOT / place).exists() or (ROOT / "alexnet_jax" / place).exists(), place
    for module in re.findall(r"python -m ((?:alexnet_jax|docs)[\w.]*)", text):
        assert importlib.util.find_spec(module) is not None, module


def test_the_readme_shows_every_room_and_module():
    [tree] = re.findall(r"```\n(alexnet_jax/.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    for file in (ROOT / "alexnet_jax").iterdir():
        if file.is_dir() and (file / "__init__.py").exists() and file.name != "configs":
            assert f"  {file.name}/" in tree, file
        elif file.suffix == ".py" and not file.name.startswith("__"):
            assert re.search(rf" {file.name}[ ,;\n]", tree), file
    for name in re.findall(r"^  (\w+)/", tree, re.MULTILINE):
        assert (ROOT / "alexnet_jax" / name).is_dir(), name
    for name in re.findall(r"\b\w+\.py\b", tree):
        assert (ROOT / "alexnet_jax" / name).exists(), name
