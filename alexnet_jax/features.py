r"""A layer's features of many pictures, their nearest neighbours, and short binary codes.

    python -m alexnet_jax.features --workdir=runs/elpv cells --output=cells.npz                # a folder of pictures
    python -m alexnet_jax.features --workdir=runs/elpv elpv/160 --split=train --output=elpv.parquet
    python -m alexnet_jax.features --workdir=runs/elpv elpv/160 --split=train --output=elpv.npz --neighbours=6
    python -m alexnet_jax.features --workdir=runs/elpv elpv/160 --split=train --output=elpv.npz --neighbours=6 \
        --queries=elpv/160 --queries_split=test
    python -m alexnet_jax.features --workdir=runs/elpv elpv/160 --split=train --output=elpv.npz --codes=64

The argument, DATA, names a folder where there is one of that name, and otherwise a prepared data set. Where every
picture of a folder lies in CLASS/IMAGE, CLASS is its class. Pictures that cannot be read are named and left out.
docs/retrieval.md describes the output and the measurements that are printed.

Exit status: 0, all pictures were read; 1, some were not; 2, none was, the command is wrong, or neighbours or codes
could not be found, as of features that are not finite. Features that were computed are written even then.
"""

import functools
import math
import os
import sys
from collections.abc import Iterator

if not __package__:  # `python alexnet_jax/features.py` puts this folder on the path; its parent holds the package
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
if __name__ == "__main__":  # before the other imports
    from alexnet_jax import startup

    startup.leave_on_interrupt()

from absl import flags
from etils import epath

from alexnet_jax import cli, cli_network, paths
from alexnet_jax.errors import UsageError
from alexnet_jax.hints import hints
from alexnet_jax.progress_line import progress_line
from alexnet_jax.retrieval import code_trial, exact_search, feature_file, feature_table
from alexnet_jax.retrieval.code_trial import Trial
from alexnet_jax.retrieval.columns import Scratch
from alexnet_jax.retrieval.feature_data import DEFAULT_SPLIT, MissingSplitError, Pictures, open_pictures
from alexnet_jax.retrieval.feature_table import SameClass, Table
from alexnet_jax.trained import Trained

flags.adopt_module_key_flags(cli_network)  # so that --help lists them
LAYER = flags.DEFINE_string(
    "layer", None, "Layer whose output is taken, after the operations that follow it; default: the last hidden layer."
)
OUTPUT = flags.DEFINE_string("output", None, "File for the features; it ends in .npz or .parquet.")
SPLIT = flags.DEFINE_string(
    "split", None, f"Split of a prepared data set, in TFDS's notation, such as 'test[:100]'; default: {DEFAULT_SPLIT}."
)
NEIGHBOURS = flags.DEFINE_integer("neighbours", None, "Number of nearest neighbours of each picture.", lower_bound=1)
QUERIES = flags.DEFINE_string(
    "queries",
    None,
    "Folder or data set of pictures whose neighbours are searched among those of DATA; default: DATA itself.",
)
QUERIES_SPLIT = flags.DEFINE_string("queries_split", None, f"Split of --queries; default: {DEFAULT_SPLIT}.")
CODES = flags.DEFINE_integer("codes", None, "Bits of a binary code of each picture: a multiple of 8, at most 1,024.")
SEED = flags.DEFINE_integer(
    "seed", 0, "Seed of the codes: initial values, hyperplanes, order and held-out pictures.", lower_bound=0
)
CODE_UPDATES = flags.DEFINE_integer("code_updates", 2000, "Updates of an autoencoder for codes.", lower_bound=1)

MOST_BITS = 1024
RECALLED = 10  # exact neighbours that codes should find, without --neighbours
SOME_BROKEN = 1  # exit status


@hints()
def main(*words: str) -> int:
    """Writes the features of the pictures that DATA names."""
    file = check_flags(words)
    network = cli_network.open_network()
    layer = LAYER.value or network.last_hidden_layer
    network.features_step(layer)  # an unknown layer is an error before anything is read
    data = pictures_of(network, words[0], SPLIT, named="DATA")
    asked = None if QUERIES.value is None else pictures_of(network, QUERIES.value, QUERIES_SPLIT, named="--queries")
    if NEIGHBOURS.value is not None:
        exact_search.check_count(NEIGHBOURS.value, data.total - (asked is None))
    if CODES.value is not None:
        held = code_trial.held_out(data.total) if asked is None else asked.total
        searched = data.total - held if asked is None else data.total
        code_trial.check_counts(NEIGHBOURS.value or RECALLED, held, searched)
    problem: UsageError | None = None
    with Scratch(None if "://" in str(file) else str(file.parent)) as scratch:
        table = compute(network, data, layer, scratch)
        queries: Table | None = None
        lines = [f"{len(table.names):,} pictures, {math.prod(table.features.shape):,} features of {layer} each"]
        try:
            if asked is not None:
                queries = compute(network, asked, layer, scratch)
            if NEIGHBOURS.value is not None:
                lines += about_neighbours(find_neighbours(table, queries, scratch))
            if CODES.value is not None:
                lines += about_codes(learn_codes(table, queries, layer, scratch))
        except UsageError as error:  # of broken pictures, or of an overflow: the features may have taken hours
            problem = error
        feature_file.write(file, table, queries, {"layer": layer, "step": network.step})
    cli.print_results("\n".join([*lines, f"written to {file}"]) + "\n")
    broken = data.broken + (asked.broken if asked else 0)
    if broken:
        cli_network.say(f"{broken:,} could not be read and {'is' if broken == 1 else 'are'} not in {file}")
    if problem is not None:
        raise problem
    return SOME_BROKEN if broken else 0


def check_flags(words: tuple[str, ...]) -> epath.Path:
    """The file of `--output`; checks words and flags before the work.

    Raises:
      UsageError: there is not one word, flags are missing or contradict each other, or the file cannot be written.
    """
    if len(words) != 1:
        problem = "no pictures are named" if not words else f"{words[1]!r} is one word too many"
        raise UsageError(f"{problem}; name one folder of pictures, or one prepared data set such as elpv/160")
    if not OUTPUT.value:
        raise UsageError("--output is missing; name a file that ends in .npz or .parquet")
    if QUERIES.value is not None and NEIGHBOURS.value is None and CODES.value is None:
        raise UsageError("--queries is given without --neighbours or --codes, which would search for them; add one")
    if QUERIES.value is None and QUERIES_SPLIT.value is not None:
        raise UsageError("--queries_split is given without --queries; name a prepared data set with --queries")
    for flag in (SEED, CODE_UPDATES):
        if flag.present and CODES.value is None:
            raise UsageError(f"--{flag.name} is given without --codes, which alone reads the flag; add --codes=64")
    if CODES.value is not None and (not 8 <= CODES.value <= MOST_BITS or CODES.value % 8):
        raise UsageError(
            f"--codes={CODES.value} is no multiple of 8 from 8 to {MOST_BITS:,}; use 32 or 64, for example"
        )
    file = cli_network.output_file("--output", OUTPUT.value, feature_file.SUFFIXES)
    named = [word for word in (*words, QUERIES.value) if word is not None]
    cli_network.check_is_no_picture("--output", OUTPUT.value, file, map(paths.expand_home, named))
    if file.suffix.lower() == ".parquet":
        feature_file.need_pyarrow()
    return file


def pictures_of(network: Trained, word: str, split: flags.FlagHolder, *, named: str) -> Pictures:
    """The pictures that a word or a flag names, of the split that another flag names.

    Raises:
      UsageError: as in `open_pictures`.
    """
    try:
        return open_pictures(
            word,
            split.value,
            cli_network.DATA_DIR.value,
            known=network.classes,
            say=cli_network.say,
            named=named,
        )
    except MissingSplitError as error:
        error.option = split.name
        raise


def compute(network: Trained, pictures: Pictures, layer: str, scratch: Scratch) -> Table:
    """The features of the pictures, with progress.

    Raises:
      UsageError: as in `feature_table.compute`.
    """
    return feature_table.compute(
        network,
        pictures,
        layer,
        with_pixels=CODES.value is not None,
        scratch=scratch,
        say=cli_network.say,
        progress=progress_line("computed", pictures.total),
    )


def find_neighbours(table: Table, queries: Table | None, scratch: Scratch) -> SameClass | None:
    """Fills in the neighbours, with progress.

    Raises:
      UsageError: as in `feature_table.find_neighbours`.
    """
    assert NEIGHBOURS.value is not None, "main searches only with --neighbours"
    show = functools.cache(lambda of: progress_line("searched", of))
    return feature_table.find_neighbours(
        table, queries, NEIGHBOURS.value, scratch=scratch, progress=lambda done, of: show(of)(done)
    )


def learn_codes(table: Table, queries: Table | None, layer: str, scratch: Scratch) -> Trial:
    """Fills in the codes and measures them, with progress.

    Raises:
      UsageError: as in `code_trial.run`.
    """
    assert CODES.value is not None and SEED.value is not None and CODE_UPDATES.value is not None
    options = code_trial.Options(CODES.value, NEIGHBOURS.value or RECALLED, SEED.value, CODE_UPDATES.value)
    updates = CODE_UPDATES.value
    return code_trial.run(
        table,
        queries,
        options,
        layer=layer,
        scratch=scratch,
        progress=lambda name: progress_line(f"learning codes from {name},", updates, "updates"),
    )


def about_neighbours(same_class: SameClass | None) -> Iterator[str]:
    """How often neighbours are of the query's class, in a line."""
    if same_class is None:
        return
    k = len(same_class.by_place)
    many = "" if k == 1 else f", {same_class.by_place.mean():.1%} of the nearest {k}"
    yield (
        f"of the class of the query: {same_class.by_place[0]:.1%} of the nearest neighbours{many};"
        f" {same_class.by_chance:.1%} by chance ({same_class.queries:,} queries)"
    )


def about_codes(trial: Trial) -> Iterator[str]:
    """The measurement of the codes as a table."""
    k = NEIGHBOURS.value or RECALLED
    yield (
        f"codes of {CODES.value} bits: the share of the {k} exact neighbours of {trial.queries:,} held-out pictures"
        f" that are among the first {' and '.join(map(str, trial.depths))} of {trial.database:,}"
    )
    with_class = any(result.same_class is not None for result in trial.results)
    width = max(len(result.name) for result in trial.results)
    columns = [*(f"recall@{depth}" for depth in trial.depths), *([f"same class in {k}"] * with_class)]
    yield "  ".join([" " * width, *columns])
    for result in trial.results:
        shares = [*result.recalls, *([result.same_class] * with_class)]
        cells = [f"{share:.1%}".rjust(len(column)) for share, column in zip(shares, columns, strict=True)]
        yield "  ".join([f"{result.name:<{width}}", *cells])


if __name__ == "__main__":
    cli.run(main, words=None)
