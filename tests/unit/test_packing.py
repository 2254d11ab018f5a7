import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from nanosft.packing import pack_epoch, pack_in_order, shuffle_order

LENGTHS = st.lists(st.integers(1, 64), max_size=200)


@given(LENGTHS, st.integers(0, 5), st.integers(0, 3), st.integers(1, 50))
def test_every_conversation_is_in_exactly_one_row_and_no_row_overflows(lengths, seed, epoch, window):
    array = np.array(lengths, np.int64)
    rows = pack_epoch(array, 64, seed=seed, epoch=epoch, window=window)
    assert sorted(rows.items.tolist()) == list(range(len(lengths)))
    assert all(0 < array[rows.row(index)].sum() <= 64 for index in range(len(rows)))


@given(LENGTHS)
def test_no_two_rows_of_a_window_would_fit_into_one(lengths):
    array = np.array(lengths, np.int64)
    rows = pack_epoch(array, 64, seed=0, epoch=0, window=1000)
    fill = sorted(int(array[rows.row(index)].sum()) for index in range(len(rows)))
    assert len(fill) < 2 or fill[0] + fill[1] > 64


def test_the_order_depends_on_seed_and_epoch_alone():
    lengths = np.random.default_rng(0).integers(1, 64, 300)
    packed = {
        (seed, epoch): pack_epoch(lengths, 64, seed=seed, epoch=epoch).items.tolist()
        for seed in (0, 1)
        for epoch in (0, 1)
    }
    assert len({tuple(items) for items in packed.values()}) == 4
    assert pack_epoch(lengths, 64, seed=1, epoch=1).items.tolist() == packed[1, 1]


def test_the_shuffle_is_a_permutation_that_no_library_can_change():
    assert shuffle_order(8, 3, 1).tolist() == [5, 1, 3, 2, 0, 4, 7, 6]
    assert sorted(shuffle_order(1000, 7).tolist()) == list(range(1000))


def test_padding_of_mixed_lengths_is_far_below_nanochats():
    lengths = np.random.default_rng(0).integers(50, 900, 4000)
    rows = pack_epoch(lengths, 2049, seed=0, epoch=0)
    assert 1 - lengths.sum() / (len(rows) * 2049) < 0.005


def test_a_smaller_window_mixes_lengths_and_pads_little_more():
    lengths = np.random.default_rng(0).integers(50, 900, 4000)
    wide, narrow = (len(pack_epoch(lengths, 2049, seed=0, epoch=0, window=window)) for window in (4000, 500))
    assert wide <= narrow <= 1.02 * wide


def test_validation_is_packed_without_a_seed():
    assert pack_in_order(np.array([10, 60, 50]), 64).items.tolist() == [1, 2, 0]
