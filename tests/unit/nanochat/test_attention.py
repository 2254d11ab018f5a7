"""All ways to compute attention agree with a mask over the whole row."""

import inspect
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn

from nanosft.nanochat.attention import Documents, PackedLayout, attend_by_block, attend_dense


def masked_reference(q: Tensor, k: Tensor, v: Tensor, lengths: list[int], window: int | None) -> Tensor:
    """(N, H, D) by explicit loops over tokens and heads, scale 0.3."""
    out = torch.zeros_like(q)
    group = q.shape[1] // k.shape[1]
    start = 0
    for length in lengths:
        for t in range(length):
            first = start if window is None else max(start, start + t - window)
            seen = slice(first, start + t + 1)
            for head in range(q.shape[1]):
                weights = torch.softmax(0.3 * (k[seen, head // group] @ q[start + t, head]), dim=0)
                out[start + t, head] = weights @ v[seen, head // group]
        start += length
    return out


@settings(max_examples=12, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 300), min_size=1, max_size=3),
    window=st.one_of(st.none(), st.integers(1, 140)),
    kv_heads=st.sampled_from([1, 2]),
)
def test_every_document_sees_itself_within_the_window(lengths: list[int], window: int | None, kv_heads: int) -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randn(sum(lengths), heads, 8, generator=generator, dtype=torch.float64)
        for heads in (2, kv_heads, kv_heads)
    )
    found = attend_by_block(q, k, v, lengths, window=window, scale=0.3)
    torch.testing.assert_close(found, masked_reference(q, k, v, lengths, window))


@pytest.mark.parametrize("kv_heads", [1, 2])
@pytest.mark.parametrize("window", [None, 3, 130])
def test_gradients_by_block_are_those_of_the_function(window: int | None, kv_heads: int) -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randn(142, heads, 2, generator=generator, dtype=torch.float64, requires_grad=True)
        for heads in (2, kv_heads, kv_heads)
    )

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attend_by_block(q, k, v, (7, 135), window=window, scale=0.3)

    assert torch.autograd.gradcheck(attend, (q, k, v), fast_mode=True)


@pytest.mark.parametrize("window", [None, 5, 130])
def test_the_dense_mask_of_cuda_float32_agrees_with_one_call_a_document(window: int | None) -> None:
    documents = Documents.from_lengths((100, 100, 150, 50))
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(400, heads, 8, generator=generator, requires_grad=True) for heads in (4, 2, 2))
    layout = PackedLayout((2, 200), documents, torch.device("cpu"))
    mask = layout._make_mask(window)
    rows = [x.view(2, 200, *x.shape[1:]).transpose(1, 2) for x in (q, k, v)]
    dense = attend_dense(*rows, mask=mask, scale=0.3).transpose(1, 2).reshape(q.shape)
    found = layout.attend(0, q, k, v, window=window, scale=0.3)
    torch.testing.assert_close(found, dense, atol=2e-6, rtol=0)
    weights = torch.randn(found.shape, generator=generator)
    for mine, other in zip(
        torch.autograd.grad(found, (q, k, v), weights), torch.autograd.grad(dense, (q, k, v), weights), strict=True
    ):
        torch.testing.assert_close(mine, other, atol=1e-5, rtol=0)


def test_the_variable_length_kernel_takes_what_we_give_it() -> None:
    """It runs on CUDA alone: here only its signature can be held to."""
    names = inspect.signature(varlen_attn).parameters
    assert {"scale", "window_size", "enable_gqa"} <= set(names)
    assert list(names)[:7] == ["query", "key", "value", "cu_seq_q", "cu_seq_k", "max_q", "max_k"]


def test_no_command_on_a_cpu_loads_dynamo() -> None:
    """A third of a start's CPU seconds went to it: `torch.nn.attention.varlen`, of CUDA alone, loads it."""
    code = """
import sys
import torch
from nanosft.chat import stage
from nanosft.evaluate import stage
from nanosft.export import convert
from nanosft.nanochat.attention import attend_by_block
from nanosft.train import stage

q = torch.ones(4, 1, 8)
attend_by_block(q, q, q, [3, 1], window=None, scale=1.0)
sys.exit("torch._dynamo" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_documents_know_their_lengths_positions_and_first_tokens() -> None:
    documents = Documents(torch.tensor([0, 2, 5], dtype=torch.int32), 3)
    assert documents.lengths == (2, 3)
    same = Documents.from_lengths((2, 3))
    assert same.cu_seqlens.tolist() == [0, 2, 5]
    assert same.cu_seqlens.dtype == torch.int32
    layout = PackedLayout((1, 5), documents, torch.device("cpu"))
    assert layout.positions.tolist() == [0, 1, 0, 1, 2]
    assert layout.max_position == 2
    x = torch.arange(1.0, 6.0)[:, None]
    assert layout.take_previous(x).flatten().tolist() == [0, 1, 0, 3, 4]
