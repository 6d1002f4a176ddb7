import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from paddle_sparse_cb.pruning.knapsack import budget_loss, choose_options

# Up to four groups of up to four options with a loss and a cost.
options = st.tuples(st.floats(0, 10), st.integers(0, 30))
groups = st.lists(st.lists(options, min_size=1, max_size=4), min_size=1, max_size=4)


def split(groups):
    return [[loss for loss, _ in group] for group in groups], [[cost for _, cost in group] for group in groups]


def total(values, picked):
    return sum(group[index] for group, index in zip(values, picked))


def brute_force(losses, costs, budget):
    """The least loss of all combinations within the budget; None if there is none."""
    combinations = itertools.product(*(range(len(group)) for group in costs))
    return min((total(losses, picked) for picked in combinations if total(costs, picked) <= budget), default=None)


@settings(max_examples=300, deadline=None)
@given(groups, st.integers(0, 100))
def test_the_choice_is_as_good_as_the_best_of_all_combinations(groups, budget):
    losses, costs = split(groups)
    picked, best = choose_options(losses, costs, budget), brute_force(losses, costs, budget)
    assert budget_loss(costs, budget) == 0
    assert (picked is None) == (best is None)
    if picked is not None:
        assert total(costs, picked) <= budget
        assert abs(total(losses, picked) - best) < 1e-9


@settings(max_examples=300, deadline=None)
@given(groups, st.integers(0, 100), st.integers(1, 20))
def test_with_fewer_steps_it_is_as_good_as_the_best_within_the_stated_smaller_budget(groups, budget, bins):
    losses, costs = split(groups)
    picked = choose_options(losses, costs, budget, bins)
    assert (picked is None) == (brute_force(losses, costs, budget) is None)
    if picked is not None:
        assert total(costs, picked) <= budget
        smaller = brute_force(losses, costs, budget - budget_loss(costs, budget, bins))
        assert smaller is None or total(losses, picked) <= smaller + 1e-9


def test_of_equal_losses_the_first_option_is_chosen():
    assert choose_options([[0.0, 0.0, 0.0]], [[9, 5, 1]], 100) == [0]


def test_a_network_of_a_hundred_layers_is_allocated_within_its_budget():
    losses = [[layer * step / 40 for step in range(40)] for layer in range(100)]
    costs = [[1_000_000 - 20_000 * step for step in range(40)]] * 100
    picked = choose_options(losses, costs, 50_000_000)
    assert 49_500_000 < total(costs, picked) <= 50_000_000
    assert picked[0] == 39  # costs nothing
    assert picked == sorted(picked, reverse=True)  # the least sensitive layers are pruned most


def test_a_budget_below_the_cheapest_options_has_no_answer():
    assert choose_options([[0.0], [0.0]], [[3], [4]], 6) is None
    assert choose_options([[0.0], [0.0]], [[3], [4]], 7) == [0, 0]
