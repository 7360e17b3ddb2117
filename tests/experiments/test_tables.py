import math

import pytest

from alexnet_jax.experiments import elpv, figure1, initialisation, large_batch, response_norm, tables


def row(name: str, seed: int, error: float, **fields):
    return {"run": name, "seed": seed, "result": {"top1_10_views": error, "top1_1_views": error + 0.01}} | fields


ROWS = [row("a", seed, error) for seed, error in enumerate((0.10, 0.12, 0.14))]
ROWS += [row("b", seed, error) for seed, error in enumerate((0.13, 0.15, 0.18))]


def test_a_spread_is_mean_and_standard_deviation():
    assert tables.spread([0.10, 0.12, 0.14]) == "12.0 ± 2.0"
    assert tables.spread([0.5], scale=1.0) == "0.5"
    assert tables.spread([]) == "-"


def test_a_difference_is_taken_seed_by_seed_with_students_interval():
    difference = tables.paired(tables.of_run(ROWS, "a"), tables.of_run(ROWS, "b"))
    # Differences 3, 3 and 4 points: mean 10/3, deviation 0.577, and t is 4.303 with two degrees of freedom.
    assert difference.mean == pytest.approx(0.1 / 3)
    assert difference.margin == pytest.approx(4.3026527 * 0.0057735 / math.sqrt(3), rel=1e-5)
    assert (difference.seeds, difference.sign, difference.words()) == (3, "+", "+3.3 ± 1.4")


def test_a_difference_of_means_has_the_deviation_that_all_networks_share():
    deviation = tables.pooled([[0.10, 0.12, 0.14], [0.13, 0.15, 0.18], [0.5]])
    # Variances 4 and 6.333 square points, of two degrees of freedom each.
    assert deviation.freedom == 4
    assert deviation.value == pytest.approx(math.sqrt((4 + 19 / 3) / 2) / 100)
    difference = tables.of_means([0.10, 0.12, 0.14], [0.15, 0.17], deviation)
    assert difference.mean == pytest.approx(0.04)
    assert difference.margin == pytest.approx(2.7764451 * deviation.value * math.sqrt(1 / 3 + 1 / 2), rel=1e-6)
    assert (difference.seeds, difference.sign) == (2, "?")
    assert tables.of_means([0.1], [0.3], tables.pooled([[0.1], [0.3]])).words() == "+20.0"
    assert tables.of_means([], [0.3], deviation).words() == "-"


def test_a_difference_needs_two_seeds_for_an_interval_and_the_same_seeds_for_a_pair():
    one = tables.paired(ROWS[:1], ROWS[3:4])
    assert (one.seeds, one.sign, one.words()) == (1, "?", "+3.0")
    assert tables.Difference(-0.0004, 0.01, 3).words() == "+0.0 ± 1.0"
    none = tables.paired(ROWS[:1], ROWS[4:])
    assert (none.seeds, none.sign, none.words()) == (0, "?", "-")


def test_without_a_pair_of_runs_no_difference_is_named():
    rows = [row("11pct", 0, 0.11, nine_views=0.12)]
    assert "differs" not in response_norm.make_table(rows)
    assert "differs by +2.0 points" in response_norm.make_table([*rows, row("no_norm", 0, 0.13, nine_views=0.14)])


def test_a_difference_within_its_interval_has_no_sign():
    noisy = [row("c", seed, error) for seed, error in enumerate((0.09, 0.14, 0.13))]
    assert tables.paired(tables.of_run(ROWS, "a"), noisy).sign == "?"


def test_runs_that_diverged_are_counted_and_have_no_error():
    rows = [*ROWS, {"run": "a", "seed": 3, "failed": "the loss of update 7 is not finite"}]
    assert "| `a` | 12.0 ± 2.0 | 13.0 ± 2.0 | 3, 1 diverged | 11 |" in tables.errors(rows, ["a"], {"a": "11"})


def test_a_run_that_diverged_is_none_with_a_break():
    made = {"device": "CPU", "versions": {"jax": "1"}, "date": "2026-11-29"}
    rows = [row("a", 0, 0.1, seconds=60, **made), {"run": "a", "seed": 1, "failed": "7", "seconds": None} | made]
    assert tables.made(rows) == "2 runs on CPU, 60 s each; JAX 1; 2026-11-29"
    rows.append(row("a", 2, 0.1, seconds=None, **made))
    assert tables.made(rows) == "3 runs on CPU, 1 of them without a break, 60 s each; JAX 1; 2026-11-29"


def test_a_table_has_a_column_for_each_number_of_views():
    rows = [row("a", 0, 0.10, nine_views=0.20), row("a", 1, 0.12, nine_views=0.24)]
    table = tables.errors(rows, ["a"], all_views=(9, 1)).splitlines()
    assert (table[0], table[2]) == (
        "|  | nine views, % | centre, % | runs | paper, % |",
        "| `a` | 22.0 ± 2.8 | 12.0 ± 1.4 | 2 |  |",
    )


def test_an_ablation_is_what_the_lesser_network_adds_to_the_error():
    # Of b: pairs as above; all seeds with the deviation of both networks: variances 4 and 6.333, and t is 2.776.
    together = 2.7764451 * math.sqrt((4 + 19 / 3) / 2) * math.sqrt(2 / 3)
    line = f"| `b` | 15.3 ± 2.5 | +3.3 ± 1.4 | +3.3 ± {together:.1f} | + | ? | 3 |"
    assert line in tables.ablations(ROWS, "a", {"b": "+"})
    better = tables.ablations(ROWS, "b", {"a": "+"})
    assert f"| `a` | 12.0 ± 2.0 | -3.3 ± 1.4 | -3.3 ± {together:.1f} | + | ? | 3 |" in better
    clear = [*ROWS, *(row("c", seed, error) for seed, error in enumerate((0.30, 0.31, 0.32)))]
    assert " | + | + | 3 |" in tables.ablations(clear, "a", {"c": "+"})


def test_differences_are_those_of_the_second_network():
    rows = [row("default", seed, 0.10 + seed / 100, weighted=0.2) for seed in range(2)]
    rows += [row("dropout, 45 epochs", seed, 0.13 + seed / 100) for seed in range(2)]
    assert "of `dropout, 45 epochs` differs by +3.0 ± 0.0 points" in elpv.make_table(rows)
    rows = [row("SGD, 128", 0, 0.25), row("LARS, 128", 0, 0.20)]
    assert "| 128 | 25.0 | 20.0 | -5.0 | 1, 1 |" in large_batch.make_table(rows)


def test_losses_of_a_start_are_means_over_updates():
    """Points lie 1 to 20 updates apart, and each counts as its updates do."""
    losses = [[step, 2.5 - step / 2000] for step in range(100, 2001, 100)]
    fields = {"losses": losses, "signal": {"conv1": 12.0}}
    rows = [row(name, seed, 0.5, **fields) for name in ("original", "paper") for seed in (0, 1)]
    line = "| `original` | 2.25 ± 0.00 | 2.00 ± 0.00 | 1.75 ± 0.00 | 1.50 ± 0.00 | 400 |"
    assert line in initialisation.make_table(rows)
    uneven = [[80, 9.0], [81, 5.0], [100, 2.0], [140, 1.0], [240, 0.5]]
    assert initialisation.mean_loss(uneven, 50) == 9.0
    assert initialisation.mean_loss(uneven, 100) == pytest.approx((80 * 9 + 5 + 19 * 2) / 100)
    assert initialisation.mean_loss(uneven, 140) == pytest.approx((40 * 9 + 5 + 19 * 2 + 40) / 100)
    assert initialisation.mean_loss(uneven, 240) == 0.5


def test_a_loss_below_guessing_stays_below():
    assert initialisation.below_guessing([[20, 2.2], [40, 2.4], [60, 2.2], [80, 1.0]]) == 60
    assert initialisation.below_guessing([[20, 2.2], [40, 2.4]]) is None
    rows = [
        row(name, seed, 0.5, losses=[[2000, 2.2 + seed]], signal={"conv1": 1.0}) for name in "ab" for seed in (0, 1)
    ]
    rows = [each | {"run": {"a": "original", "b": "paper"}[each["run"]]} for each in rows]
    assert initialisation.make_table(rows).count("| - |") == 2, "a run that ends above"


def test_a_network_that_starts_below_the_goal_reaches_it_on_the_line_from_guessing():
    # From 90 % at 0 to 15 % after half an epoch.
    assert figure1.epochs_to_goal(curve("relu", 0.001, 0, [0.15])) == pytest.approx(0.5 * 0.65 / 0.75)
    assert figure1.epochs_to_goal(curve("relu", 0.001, 0, [0.35, 0.15])) == pytest.approx(0.75)
    assert figure1.epochs_to_goal(curve("relu", 0.001, 0, [0.35, 0.26])) is None


def test_a_variant_that_diverged_is_not_one_that_was_not_run():
    failed = [{"run": "b", "seed": seed, "failed": "the loss is not finite"} for seed in range(3)]
    assert "| `b` | - | - | - | + | | 0, 3 diverged |" in tables.ablations(ROWS[:3] + failed, "a", {"b": "+"}).replace(
        "|  |", "| |"
    )
    large = [row("SGD, 128", 0, 0.25), {"run": "SGD, 128", "seed": 1, "failed": "the loss is not finite"}]
    assert "| 128 | 25.0, 1 diverged | - |" in large_batch.make_table(large)


def test_the_factor_of_figure_1_is_also_that_of_the_seeds_that_chose_nothing():
    rows = []
    for network, before in (("tanh", 8), ("relu", 2)):
        rows += [curve(network, rate, 0, [0.9, 0.6 - 25 * rate]) for rate in figure1.RATES]
        rows += [curve(network, 0.016, seed, [0.9] * before + [0.25]) for seed in (1, 2)]
    chosen, tanh, relu = 0.5 + 0.5 * 0.65 / 0.7, 4.5, 1.5  # epochs
    both, others = (chosen + 2 * tanh) / (chosen + 2 * relu), tanh / relu
    text = f"Tanh takes {both:.1f} times as many epochs as ReLU, and {others:.1f} times without the seed that chose"
    assert text in figure1.make_table(rows)
    assert "times as many" not in figure1.make_table(rows[:-1])


def test_an_ensemble_is_compared_with_the_mean_of_the_network():
    rows = [*ROWS, row("a, ensemble", 0, 0.09, ensemble=[0, 1, 2])]
    assert "| `a, ensemble` | 9.0 |  | -3.0 | -2.6 (table 2) |  | 3, averaged |" in tables.ablations(
        rows, "a", {"b": "+"}
    )
    assert "| `a, ensemble` | 9.0 | 10.0 | 3, averaged |  |" in tables.errors(rows, ["a", "a, ensemble"])


def curve(network: str, rate: float, seed: int, errors: list[float], epochs: float = figure1.EPOCHS[0]):
    run = figure1._run(network, rate, seed, epochs)
    points = [[0.5 * (i + 1), error, 1.0] for i, error in enumerate(errors)]
    return row(run.name, seed, errors[-1], curve=points, config=run.config, overrides=run.overrides)


def diverged(network: str, rate: float):
    of_run = curve(network, rate, 0, [0.9])
    return {key: of_run[key] for key in ("run", "config", "overrides", "seed")} | {"failed": "not finite"}


def wanted(rows, network: str) -> set[tuple[float, int, float]]:
    """Rate, seed and epochs of a network's runs."""
    runs = [run for run in figure1.runs(rows) if run.name.startswith(network)]
    return {(float(run.name.split()[-1]), run.seed, run.overrides["num_epochs"]) for run in runs}


def test_epochs_until_25_percent_lie_between_two_evaluations():
    assert figure1.epochs_to_goal(curve("relu", 0.001, 0, [0.5, 0.35, 0.15])) == pytest.approx(1.25)
    assert figure1.epochs_to_goal(curve("relu", 0.001, 0, [0.5, 0.35])) is None
    assert figure1.epochs_to_goal({"failed": "not finite"}) is None


def test_the_seeds_of_figure_1_follow_from_the_grid_of_rates():
    first = figure1.EPOCHS[0]
    grid = [curve("relu", rate, 0, [0.5, 0.3, 0.6 - 25 * rate]) for rate in figure1.RATES]
    assert figure1.best_rate(grid[:-1], "relu") is None
    assert figure1.best_rate(grid, "relu") == 0.016
    starts = {(rate, 0, first) for rate in figure1.RATES}
    assert wanted(grid, "relu") == starts | {(0.016, 1, first), (0.016, 2, first)}
    assert wanted(grid, "tanh") == starts
    text = figure1.make_table(grid)
    assert "| relu | 0.016 | 1.2 | 1 of 1 |" in text and "times as many" not in text
    assert "| tanh | - | - | 0 of 0 | 0.001: -, " in text  # no run yet


def test_runs_of_figure_1_go_on_until_one_of_the_grid_reaches_it():
    first, second, third, *_ = figure1.EPOCHS
    grid = [curve("tanh", rate, 0, [0.9, 0.4]) for rate in figure1.RATES[:-1]] + [diverged("tanh", figure1.RATES[-1])]
    assert figure1.best_rate(grid, "tanh") is None
    starts = {(rate, 0, first) for rate in figure1.RATES}
    longer = {(rate, 0, second) for rate in figure1.RATES[:-1]}
    assert wanted(grid, "tanh") == starts | longer  # a rate that diverged does not go on
    slower = [figure1.RATES[0], *figure1.RATES[2:-1]]
    grid += [curve("tanh", rate, 0, [0.9, 0.4, 0.3], second) for rate in slower]
    assert wanted(grid, "tanh") == starts | longer
    grid += [curve("tanh", figure1.RATES[1], 0, [0.9, 0.4, 0.2], second)]
    best = figure1.RATES[1]
    assert figure1.best_rate(grid, "tanh") == best
    assert wanted(grid, "tanh") == starts | longer | {(best, 1, first), (best, 2, first)}
    grid += [curve("tanh", best, 1, [0.9, 0.4])]
    assert (best, 1, second) in wanted(grid, "tanh") and (best, 1, third) not in wanted(grid, "tanh")
    assert "40% after 1" not in figure1.make_table(grid) and "30% after 1.5" in figure1.make_table(grid)


def test_of_two_rates_that_never_reach_it_the_smaller_error_is_better():
    grid = [
        curve("tanh", rate, 0, [0.9, 0.3 + rate], epochs) for rate in figure1.RATES[:-1] for epochs in figure1.EPOCHS
    ]
    grid.append(diverged("tanh", figure1.RATES[-1]))
    assert figure1.best_rate(grid, "tanh") == min(figure1.RATES[:-1])
    assert figure1.best_rate(grid[:-2] + grid[-1:], "tanh") is None
