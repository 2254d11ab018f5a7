import numpy as np
import pytest
import torch

from nanosft.train.batch import batch_from_rows, build_micro_batch, find_length_multiple
from tests.unit.train.make import make_tokens

PAD = 699
TOKENS = make_tokens([5, 4, 7], [2, 1, 3])
ROWS = [np.array([0, 1]), np.array([2])]


def build(attention, **options):
    return build_micro_batch(TOKENS, ROWS, row_len=10, attention=attention, pad_id=PAD, **options)


def test_rows_hold_their_conversations_one_after_the_other_and_padding():
    batch = build("row")
    assert batch.documents is None
    first = [*TOKENS.conversation(0)[0], *TOKENS.conversation(1)[0]]
    assert batch.ids[0].tolist() == [*first, PAD]
    assert batch.ids[1].tolist() == [*TOKENS.conversation(2)[0], PAD, PAD, PAD]
    assert batch.supervised.tolist() == [2, 3, 7, 13, 14, 15]
    assert batch.labels.tolist() == [first[3], first[4], first[8], *TOKENS.conversation(2)[0][-3:]]
    assert batch.items.tolist() == [0, 0, 1, 2, 2, 2]


def test_isolated_conversations_lie_without_padding_and_without_their_last_token():
    batch = build("document")
    assert batch.ids.shape == (1, 4 + 3 + 6)
    assert batch.documents.lengths == (4, 3, 6)
    assert batch.labels.tolist() == build("row").labels.tolist()
    assert batch.items.tolist() == build("row").items.tolist()
    flat = batch.ids.flatten()
    assert [int(flat[index]) for index in batch.supervised] == [
        int(build("row").ids.flatten()[index]) for index in build("row").supervised
    ]


def test_isolated_conversations_may_keep_fixed_rows_or_a_round_length():
    fixed = build("document", fixed_shape=True)
    assert fixed.ids.shape == (2, 10)
    assert fixed.documents.lengths == (4, 3, 3, 6, 4)
    assert fixed.labels.tolist() == build("document").labels.tolist()
    rounded = build("document", multiple=8)
    assert rounded.ids.shape == (1, 16)
    assert rounded.documents.lengths == (4, 3, 6, 3)
    assert build("document", multiple=13).documents.lengths == (4, 3, 6)


def test_a_rank_without_rows_gets_a_batch_without_supervised_tokens():
    batch = build_micro_batch(TOKENS, [], row_len=10, attention="row", pad_id=PAD)
    assert batch.ids.numel() == 2
    assert not len(batch.labels)
    assert not len(batch.rows)


def test_plain_rows_predict_every_next_token_unless_a_mask_says_which():
    ids = torch.arange(12).view(2, 6)
    assert batch_from_rows(ids).labels.tolist() == [1, 2, 3, 4, 5, 7, 8, 9, 10, 11]
    mask = torch.tensor([[0, 0, 1, 0, 0, 0], [1, 0, 0, 0, 0, 1]])
    assert batch_from_rows(ids, mask).supervised.tolist() == [1, 9]


@pytest.mark.parametrize(("row_len", "device_rows"), [(2048, 8), (2048, 1), (512, 3), (100, 1)])
def test_batches_have_at_most_sixteen_lengths_on_a_gpu(row_len, device_rows):
    multiple = find_length_multiple(row_len, device_rows)
    assert multiple % 128 == 0
    assert len({-(-length // multiple) for length in range(1, row_len * device_rows + 1)}) <= 16
