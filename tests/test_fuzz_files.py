"""Commands on damaged files of runs, data sets and sources: one line, a status, and nothing sound is lost or run."""

import gzip
import hashlib
import io
import itertools
import json
import pickle
import random
import shutil
import struct
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import scipy.io
from PIL import Image

from tests.conftest import ROOT
from tests.fuzz import Commands, check
from tests.test_faults import Payload

SEED = 20261127
IN_GATE, IN_SOAK = 1, 6  # cases of each kind of damage
CONFIG = (f"--config={ROOT}/tests/configs/tiny.py", "--config.dataset.name=mine", "--config.batch_size=8")
LENGTH = ("--config.dataset.train_split=train", "--config.dataset.eval_split=validation", "--config.num_epochs=1")
MATPLOTLIB = {".cache", ".config"}  # its fonts and settings in the home folder
SAVES = ("--config.save_every=0.4",)
OTHER_ARRAYS = (
    lambda array: np.full(array.shape, np.nan),
    lambda array: np.full(array.shape, np.inf, np.float32),
    lambda array: np.full(array.shape, -1e30),
    lambda array: np.full(array.shape, 2**40),
    lambda array: np.full(array.shape, "x"),
    lambda array: np.zeros(0),
    lambda array: array[None],
    lambda array: array.astype(str),
)
OTHER_VALUES = (None, True, -1, 0, 1e300, 10**30, "", "\0", "x", "../../x", [], [[]], {}, {"": None}, ["x"] * 3)


@pytest.fixture(scope="module")
def commands() -> Iterator[Commands]:
    started = Commands({"JAX_NUM_CPU_DEVICES": "1"})
    yield started
    started.close()


def picture(draw: np.random.Generator, kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(draw.integers(0, 256, (40, 40, 3), np.uint8)).save(file, kind)
    return file.getvalue()


def prepare_cwd(folder: Path) -> Path:
    for name in ("cwd", "home", "tmp"):
        (folder / name).mkdir(parents=True)
    return folder


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory, commands: Commands) -> Path:
    """`source`, `data` prepared from it, `run` trained on it, `archives`, and `half`: an unfinished preparation."""
    folder = prepare_cwd(tmp_path_factory.mktemp("sound"))
    draw = np.random.default_rng(0)
    for split, count in (("train", 12), ("validation", 4)):
        for name in ("a", "b"):
            (folder / "source" / split / name).mkdir(parents=True)
            for number in range(count):
                kind = ("JPEG", "PNG", "BMP", "WEBP")[number % 4]
                (folder / "source" / split / name / f"{number}.{kind.lower()}").write_bytes(picture(draw, kind))
    make_archives(folder / "archives", draw)
    prepare = ("folder", "mine", f"--source_dir={folder}/source", "--size=64", "--per_shard=9", "--processes=1")
    broken = folder / "source/train/b/1.png"
    whole = broken.read_bytes()
    broken.write_bytes(b"broken")
    assert commands("prepare", *prepare, f"--data_dir={folder}/half", folder=folder).status == 2
    broken.write_bytes(whole)
    result = commands("prepare", *prepare, f"--data_dir={folder}/data", folder=folder)
    assert (result.status, result.err) == (0, "")
    flags = (*CONFIG, *LENGTH, *SAVES, f"--data_dir={folder}/data", f"--workdir={folder}/run")
    result = commands("main", *flags, folder=folder, trains=True)
    assert (result.status, result.err) == (0, "")
    assert len(list((folder / "run/checkpoints").iterdir())) == 2
    return folder


def make_archives(folder: Path, draw: np.random.Generator) -> None:
    """Fashion-MNIST with four images, and ImageNet 2010 with two classes."""
    (folder / "devkit-1.0/data").mkdir(parents=True)
    for start in ("train", "t10k"):
        images = struct.pack(">HBB3I", 0, 8, 3, 4, 28, 28) + draw.integers(0, 256, 4 * 784, np.uint8).tobytes()
        (folder / f"{start}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
        labels = struct.pack(">HBBI", 0, 8, 1, 4) + bytes(range(4))
        (folder / f"{start}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
    kinds = [("ILSVRC2010_ID", int), ("WNID", object), ("num_children", int)]
    synsets = np.array([(1, "n1", 0), (2, "n2", 0), (3, "n3", 2)], kinds)
    scipy.io.savemat(folder / "devkit-1.0/data/meta.mat", {"synsets": synsets})
    (folder / "devkit-1.0/data/ILSVRC2010_validation_ground_truth.txt").write_text("1\n2\n")

    def archive(members: dict[str, bytes]) -> bytes:
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w") as writer:
            for name, content in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                writer.addfile(info, io.BytesIO(content))
        return file.getvalue()

    classes = {f"{n}.tar": archive({f"{n}_{i}.JPEG": picture(draw, "JPEG") for i in range(2)}) for n in ("n1", "n2")}
    (folder / "ILSVRC2010_images_train.tar").write_bytes(archive(classes))
    names = (f"ILSVRC2010_val_{number:08}.JPEG" for number in (1, 2))
    validation = archive({name: picture(draw, "JPEG") for name in names})
    (folder / "ILSVRC2010_images_val.tar").write_bytes(validation)


class Damage:
    """Damages files. Each method but `marker` is a kind of damage.

    Args:
      draw: of places and values.
      marker: the folder that the payload of a pickle makes.
    """

    def __init__(self, draw: random.Random, marker: Path):
        self._draw, self._marker = draw, marker

    def flip(self, file: Path, others: list[Path]) -> None:
        content = bytearray(file.read_bytes())
        for _ in range(self._draw.choice((1, 1, 30))):
            if content:
                content[self._draw.randrange(len(content))] ^= 1 << self._draw.randrange(8)
        file.write_bytes(content)

    def cut(self, file: Path, others: list[Path]) -> None:
        content = file.read_bytes()
        file.write_bytes(content[: self._draw.randrange(len(content) or 1)])

    def empty(self, file: Path, others: list[Path]) -> None:
        file.write_bytes(b"")

    def lengthen(self, file: Path, others: list[Path]) -> None:
        file.write_bytes(file.read_bytes() + self._draw.randbytes(self._draw.choice((1, 1000))))

    def zeros(self, file: Path, others: list[Path]) -> None:
        file.write_bytes(bytes(file.stat().st_size))

    def swap(self, file: Path, others: list[Path]) -> None:
        other = self._draw.choice(others)
        content = file.read_bytes()
        file.write_bytes(other.read_bytes())
        other.write_bytes(content)

    def remove(self, file: Path, others: list[Path]) -> None:
        file.unlink()

    def link_to_nothing(self, file: Path, others: list[Path]) -> None:
        self._link(file, "nothing at all")

    def link_to_itself(self, file: Path, others: list[Path]) -> None:
        self._link(file, file.name)

    def link_to_folder(self, file: Path, others: list[Path]) -> None:
        self._link(file, ".")

    def link_to_device(self, file: Path, others: list[Path]) -> None:
        self._link(file, "/dev/null")

    def link_to_endless_device(self, file: Path, others: list[Path]) -> None:
        if file.suffix in (".json", ".jsonl", ".npz", ".jpeg", ".png") or "checkpoints" in file.parts:
            self._link(file, "/dev/zero")

    def folder(self, file: Path, others: list[Path]) -> None:
        file.unlink()
        file.mkdir()
        (file / "x").write_bytes(b"x")

    def payload(self, file: Path, others: list[Path]) -> None:
        file.write_bytes(pickle.dumps(Payload(self._marker)))

    def nested(self, file: Path, others: list[Path]) -> None:
        file.write_bytes(b"[" * 100_000)

    def value(self, file: Path, others: list[Path]) -> None:
        """Another value, of another type, somewhere in JSON or in an archive of arrays; other files become JSON."""
        if file.suffix == ".npz":
            arrays = dict(np.load(file))
            name = self._draw.choice(sorted(arrays))
            arrays[name] = self._draw.choice(OTHER_ARRAYS)(arrays[name])
            np.savez(file, **arrays)
            return
        try:
            rows = [json.loads(line) for line in file.read_bytes().splitlines()]
            tree, form = (rows, "rows") if len(rows) > 1 else (json.loads(file.read_bytes()), "tree")
        except ValueError:
            try:
                tree, form = json.loads(file.read_bytes()), "tree"
            except ValueError:
                tree, form = [0], "tree"
        place = tree
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = self._draw.choice(keys)
            if isinstance(place[key], (dict, list)) and place[key] and self._draw.random() < 0.9:
                place = place[key]
                continue
            place[key] = self._draw.choice(OTHER_VALUES)
            break
        text = json.dumps(tree) if form == "tree" else "\n".join(map(json.dumps, tree))
        file.write_text(text)

    def _link(self, file: Path, target: str) -> None:
        file.unlink()
        file.symlink_to(target)


KINDS = [name for name in vars(Damage) if not name.startswith("_")]


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".part")


def digests(folder: Path) -> dict[str, str]:
    """The digests of all files, by name."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


class Case(NamedTuple):
    """A file of a group (None: of any) in a part of the sound files, and the kind of its damage."""

    part: str
    group: str | None
    kind: str


def damaged(sound: Path, tmp_path: Path, number: int, case: Case, draw: random.Random) -> tuple[Path, str]:
    """A copy of the sound files with one that is damaged: the folder, and the file's name below it."""
    folder = prepare_cwd(tmp_path / str(number))
    for name in ("run", "data", "source", "archives", "half"):
        shutil.copytree(sound / name, folder / name)
    if case.part == "data":  # the images are read again where updates are left to make
        (folder / "run/result.json").unlink()
        newest = max((folder / "run/checkpoints").iterdir(), key=lambda path: int(path.name))
        shutil.rmtree(newest)
    if case.part == "run" and case.group != "result.json" and draw.random() < 0.7:
        (folder / "run/result.json").unlink()  # else nothing is left to do
    files = files_of(folder / case.part)
    group = case.group or draw.choice(groups_of(folder / case.part))
    file = draw.choice([path for path in files if group_of(path, folder / case.part) == group])
    getattr(Damage(draw, folder / "marker"), case.kind)(file, [path for path in files if path != file])
    return folder, str(file.relative_to(folder))


def groups_of(folder: Path) -> list[str]:
    return sorted({group_of(path, folder) for path in files_of(folder) if path.name != "lock"})


def group_of(path: Path, root: Path) -> str:
    """The kind of a file: its name without numbers, and without those of arrays."""
    name = path.relative_to(root).as_posix()
    return "arrays" if "/d/" in name else "".join(letter for letter in name if not letter.isdigit())


def attempt(commands: Commands, folder: Path, touched: set[str], case: object) -> None:
    """Evaluates, predicts, draws what the file may change, and resumes."""
    before = digests(folder)
    starts: dict[str, tuple[str, ...]] = {"evaluate": (), "predict": (f"{folder}/source/train/a/1.png",)}
    if not any(name.startswith("run/checkpoints/") for name in touched):
        starts["figures"] = (f"--output={folder}/figures",)
    starts["main"] = (*CONFIG, *LENGTH, *SAVES)
    for module, flags in starts.items():
        flags = (*flags, f"--data_dir={folder}/data", f"--workdir={folder}/run")
        result = commands(module, *flags, folder=folder, trains=True, seconds=120)
        check(result, (module, case))
    after = digests(folder)
    hurt = {name.split("/")[2] for name in touched if name.startswith("run/checkpoints/") and name.count("/") > 2}
    for name, digest in before.items():
        if name.startswith("run/checkpoints/") and name.split("/")[2] not in hurt:
            assert after.get(name) == digest, f"{case}: {name} has changed"
        if name.startswith("data/"):
            assert after.get(name) == digest, f"{case}: {name} has changed"


def fuzz_runs(commands: Commands, sound: Path, tmp_path: Path, cases: list[Case]) -> None:
    draw, failures = random.Random(SEED), []
    for number, drawn in enumerate(cases):
        folder, name = damaged(sound, tmp_path, number, drawn, draw)
        touched = {name} | (changed(sound, folder) if drawn.kind == "swap" else set())
        case = (number, drawn.kind, name)
        try:
            attempt(commands, folder, touched, case)
            assert not (folder / "marker").exists(), f"{case}: a pickle was loaded"
            assert not any(any((folder / place).iterdir()) for place in ("cwd", "tmp")), f"{case}: litter"
            assert {path.name for path in (folder / "home").iterdir()} <= MATPLOTLIB, f"{case}: litter"
        except AssertionError as error:
            failures.append(str(error))
        shutil.rmtree(folder)
    assert not failures, f"{len(failures)} cases\n\n" + "\n\n".join(failures[:30])


def changed(sound: Path, folder: Path) -> set[str]:
    before, after = digests(sound), digests(folder)
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


FOUND = [
    Case("run", "config.json", "cut"),
    Case("run", "preprocessing.npz", "value"),
    Case("data", "mine//../statistics.npz", "value"),
    Case("run", "checkpoints//MANIFEST", "link_to_folder"),
    Case("run", "checkpoints//_CHECKPOINT_METADATA", "nested"),
    Case("run", "checkpoints//MANIFEST", "link_to_endless_device"),
]


def groups(sound: Path) -> list[tuple[str, str]]:
    """The parts and groups of a run's files and of its data's."""
    return [(part, group) for part in ("run", "data") for group in groups_of(sound / part)]


def test_damaged_runs_and_data_sets(commands: Commands, sound: Path, tmp_path: Path):
    """Every second file, and most kinds of damage."""
    kinds = random.Random(SEED).sample(KINDS, len(KINDS))
    drawn = [Case(*group, kind) for group, kind in zip(groups(sound), itertools.cycle(kinds), strict=False)]
    fuzz_runs(commands, sound, tmp_path, [*FOUND, *drawn[::2]])


@pytest.mark.soak
@pytest.mark.parametrize("kind", KINDS)
def test_more_damaged_runs_and_data_sets(kind: str, commands: Commands, sound: Path, tmp_path: Path):
    """Each file with each kind of damage."""
    fuzz_runs(commands, sound, tmp_path, [Case(*group, kind) for group in groups(sound)])


def fuzz_preparations(commands: Commands, sound: Path, tmp_path: Path, count: int) -> None:
    """Images, archives, and an unfinished data set."""
    draw, failures = random.Random(SEED), []
    cases = [Case(part, None, kind) for part in ("source", "archives", "half") for kind in KINDS]
    for number, drawn in enumerate(cases * count):
        folder, name = damaged(sound, tmp_path, number, drawn, draw)
        part, case = drawn.part, (number, drawn.kind, name)
        words = [("folder", "mine")]
        if part == "archives":
            words = [("fashion_mnist",)] if "ubyte" in name else [("imagenet2010", "--partial")]
        before = digests(folder / "data") | digests(folder / "source") | digests(folder / "archives")
        for on_error in ("stop", "skip"):
            flags = (f"--source_dir={folder}/{'archives' if part == 'archives' else 'source'}", "--size=64")
            flags = (*flags, f"--data_dir={folder}/half", "--per_shard=9", "--processes=1", f"--on_error={on_error}")
            try:
                check(commands("prepare", *words[0], *flags, folder=folder), (on_error, *case))
                assert not (folder / "marker").exists(), f"{case}: a pickle was loaded"
                assert not any(any((folder / place).iterdir()) for place in ("cwd", "home", "tmp")), f"{case}: litter"
                after = digests(folder / "data") | digests(folder / "source") | digests(folder / "archives")
                assert before == after, f"{case}: a source has changed"
            except AssertionError as error:
                failures.append(str(error))
        shutil.rmtree(folder)
    assert not failures, f"{len(failures)} cases\n\n" + "\n\n".join(failures[:30])


def test_damaged_sources_and_unfinished_data_sets(commands: Commands, sound: Path, tmp_path: Path):
    fuzz_preparations(commands, sound, tmp_path, IN_GATE)


@pytest.mark.soak
def test_more_damaged_sources_and_unfinished_data_sets(commands: Commands, sound: Path, tmp_path: Path):
    fuzz_preparations(commands, sound, tmp_path, IN_SOAK)
