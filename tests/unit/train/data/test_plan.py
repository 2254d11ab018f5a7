import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanosft.errors import ConfigError, DataError
from nanosft.train.data.plan import StepPlan, count_rows_per_step, plan_steps
from tests.unit.train.make import make_tokens


def make_plan(lengths, *, rows_per_step=4, epochs=1, max_steps=None, supervised=None) -> StepPlan:
    tokens = make_tokens(lengths, supervised)
    return plan_steps(
        tokens, capacity=64, rows_per_step=rows_per_step, epochs=epochs, max_steps=max_steps, seed=0, window=1000
    )


@given(st.lists(st.integers(2, 64), min_size=1, max_size=80), st.sampled_from([1, 2, 3, 4, 6]), st.integers(1, 4))
def test_ranks_rows_are_disjoint_and_complete_and_the_same_at_any_world_size(lengths, world_size, device_rows):
    plan = make_plan(lengths, rows_per_step=12)
    for step in range(plan.num_steps):
        shares = [
            plan.micro_batches(step, rank=rank, world_size=world_size, device_rows=device_rows)
            for rank in range(world_size)
        ]
        assert len({len(share) for share in shares}) == 1
        assert all(len(rows) <= device_rows for share in shares for rows in share)
        assert sorted(row for share in shares for rows in share for row in rows) == list(plan.step_rows(step))


def test_each_epoch_has_every_conversation_once_and_only_the_last_batch_is_short():
    plan = make_plan([30] * 21, rows_per_step=4, epochs=2)
    assert len(plan.rows) == 22
    assert sorted(plan.rows.items.tolist()) == sorted([*range(21)] * 2)
    assert [len(plan.step_rows(step)) for step in range(plan.num_steps)] == [4, 4, 4, 4, 4, 2]
    assert plan.num_supervised.sum() == 2 * 21 * 29
    assert plan.num_tokens.sum() == 2 * 21 * 30


def test_max_steps_takes_as_many_epochs_as_it_needs():
    plan = make_plan([60] * 5, rows_per_step=2, max_steps=7)
    assert plan.num_steps == 7
    assert len(plan.rows) == 14


def test_a_batch_without_supervised_tokens_is_refused_before_the_first_step():
    with pytest.raises(DataError, match=r"step \d has no supervised token \(conversations 0000000000000000"):
        make_plan([60, 60, 60], rows_per_step=1, supervised=[59, 0, 59])


def test_nothing_to_train_on_is_a_data_error():
    with pytest.raises(DataError, match="no conversation is left"):
        make_plan([])


def test_the_batch_must_be_whole_rows_that_the_ranks_divide():
    assert count_rows_per_step(4096, 512, 4) == 8
    with pytest.raises(ConfigError, match=r"no multiple of --max-seq-len 512: choose 4096"):
        count_rows_per_step(4000, 512, 1)
    with pytest.raises(ConfigError, match=r"3 ranks do not divide the 8 rows .* 4608"):
        count_rows_per_step(4096, 512, 3)
