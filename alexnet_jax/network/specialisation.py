"""How colour-selective each tower's first kernels are: the paper's remark on specialisation, in a number.

Section 6.1 says of figure 3 that the kernels of one GPU are largely colour-agnostic and those of the other largely
colour-specific, in every run and whatever the initial values.
"""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float

DEFINITION = (
    "The colour share of a kernel is the share of its energy (sum of squared weights) outside the grey axis R = G = B:"
    " 0 for a kernel that sees brightness alone, 1 for a kernel that sees colour alone, and 2/3 on average for noise."
)
NOISE = 2 / 3  # colour share of independent Gaussian weights: two of three axes
PERMUTATIONS = 10_000
BLOCK = 1000  # permutations computed together


@dataclasses.dataclass(frozen=True)
class Specialisation:
    """The colour shares of the first layer's kernels.

    Attributes:
      shares: of each kernel, by tower. A kernel without energy is left out.
      p_value: of the difference between two towers; None: one tower, or a tower without kernels.
    """

    shares: tuple[Float[np.ndarray, " kernels"], ...]
    p_value: float | None

    @property
    def means(self) -> list[float | None]:
        """The mean share of each tower; None: it has no kernel with energy."""
        return [float(shares.mean()) if len(shares) else None for shares in self.shares]

    def facts(self) -> dict[str, Any]:
        """The numbers as JSON has them."""
        return {
            "definition": DEFINITION,
            "colour_share": self.means,
            "kernels": [len(shares) for shares in self.shares],
            "p_value": self.p_value,
            "permutations": None if self.p_value is None else PERMUTATIONS,
        }


def specialisation(kernels: Float[np.ndarray, "towers h w 3 kernels"], seed: int) -> Specialisation:
    """The colour shares of conv1's kernels, tower by tower, with a permutation test where there are two towers.

    Args:
      kernels: of conv1, channels red, green, blue.
      seed: of the permutations.
    """
    shares = tuple(colour_shares(tower) for tower in kernels)
    p_value = permutation_test(shares[0], shares[1], seed) if len(shares) == 2 and all(map(len, shares)) else None
    return Specialisation(shares, p_value)


def colour_shares(kernels: Float[np.ndarray, "h w 3 kernels"]) -> Float[np.ndarray, " some"]:
    """The share of each kernel's energy outside the grey axis; kernels without energy are left out."""
    weights = kernels[..., kernels.any(axis=(0, 1, 2))].astype(np.float64)  # whose squares never underflow to 0
    energy = (weights**2).sum(axis=(0, 1, 2))
    grey = (weights.sum(axis=2) ** 2).sum(axis=(0, 1)) / 3  # the projection on (1, 1, 1) / sqrt(3)
    return np.clip(1 - grey / energy, 0, 1)


def permutation_test(first: Float[np.ndarray, " a"], second: Float[np.ndarray, " b"], seed: int) -> float:
    """The two-sided p-value of a difference between the means, if the kernels were dealt to the towers at random.

    It counts the permutations, and the towers as they are, whose means differ at least as much (Phipson and Smyth
    2010, "Permutation p-values should never be zero").
    """
    together, rng = np.concatenate([first, second]), np.random.default_rng(seed)
    observed = abs(first.mean() - second.mean())
    as_large = 0
    for _ in range(PERMUTATIONS // BLOCK):
        dealt = rng.permuted(np.tile(together, (BLOCK, 1)), axis=1)
        means = dealt[:, : len(first)].mean(axis=1) - dealt[:, len(first) :].mean(axis=1)
        as_large += int((np.abs(means) >= observed - 1e-12).sum())  # rounding makes equal means differ
    return (1 + as_large) / (1 + PERMUTATIONS)
