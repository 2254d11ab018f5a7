"""What the CUDA path is made of, as far as a CPU can tell: blocks compile whole and few times, kernels trace."""

import pytest
import torch
from torch._dynamo.utils import counters

from nanosft.nanochat import attention
from nanosft.nanochat import model as model_module
from nanosft.nanochat.attention import Documents, PackedLayout, attend_dense
from nanosft.nanochat.generations import GENERATIONS, ModelConfig
from nanosft.nanochat.model import GPT

# Dynamo asks tensors that are no leaves for their gradient and hides the warning itself; Inductor imports old parts
pytestmark = [
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf"),
    pytest.mark.filterwarnings("ignore:`torch.jit"),
]

SIZES = {"sequence_len": 256, "vocab_size": 64, "n_head": 2, "n_kv_head": 1, "n_embd": 64}
IDS = torch.arange(256).remainder(64)[None]


@pytest.fixture(autouse=True)
def _fresh():
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def make(generation, num_layers):
    config = ModelConfig(n_layer=num_layers, window_pattern="SL", **SIZES)
    model = GPT(config, GENERATIONS[generation])
    torch.manual_seed(0)
    for param in model.parameters():
        torch.nn.init.normal_(param, std=0.1)
    return model


def run(model, lengths):
    """What is computed of documents of these lengths, and the gradients."""
    model.zero_grad()
    hidden = model.hidden(IDS, documents=Documents.from_lengths(lengths))
    weights = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(1))
    (hidden * weights).sum().backward()
    grads = {name: param.grad for name, param in model.named_parameters() if param.grad is not None}
    return hidden.detach(), grads


@pytest.mark.parametrize(
    ("generation", "num_layers", "backend", "num_kinds"), [("g5", 2, "aot_eager", 2), ("g1", 1, "inductor", 1)]
)
def test_blocks_compile_whole_and_once_a_kind_whatever_the_documents(
    monkeypatch, generation, num_layers, backend, num_kinds
):
    monkeypatch.setattr(model_module, "choose_kernel", lambda _device, _dtype: "dense")
    model = make(generation, num_layers)
    expected, expected_grads = run(model, [100, 156])
    model.compile_blocks(backend=backend)
    found, grads = run(model, [100, 156])
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=2e-5)
    assert grads.keys() == expected_grads.keys()
    for name, grad in grads.items():
        assert (grad - expected_grads[name]).norm() <= 1e-4 * expected_grads[name].norm() + 1e-6, name
    assert counters["stats"]["unique_graphs"] == num_kinds
    for lengths in ([60, 50, 146], [200, 56], [130] + [2] * 63):
        run(model, lengths)
    assert counters["stats"]["unique_graphs"] == num_kinds
    assert not counters["graph_break"]


def test_small_batches_and_evaluations_are_not_compiled(monkeypatch):
    model = make("g5", 2)
    monkeypatch.setattr(model, "_compiled", None)
    model.compile_blocks()
    model.hidden(IDS[:, :2]).sum().backward()
    with torch.no_grad():
        model.hidden(IDS)
    assert not counters["stats"]


def plain_varlen(q, k, v, borders, _borders, _max_len, _max_k, *, scale, window_size, **_):
    """What the variable-length kernel computes, by a mask."""
    position = torch.arange(len(q))
    document = torch.searchsorted(borders, position, right=True)
    distance = position[:, None] - position[None]
    mask = (document[:, None] == document[None]) & (distance >= 0)
    if window_size[0] >= 0:
        mask &= distance <= window_size[0]
    heads = [x.transpose(0, 1)[None] for x in (q, k, v)]
    return attend_dense(*heads, mask=mask, scale=scale)[0].transpose(0, 1)


def test_the_variable_length_kernel_is_told_the_documents_in_few_shapes(monkeypatch):
    model = make("g5", 4)
    expected, _ = run(model, [100, 156])
    monkeypatch.setattr(model_module, "choose_kernel", lambda _device, _dtype: "varlen")
    monkeypatch.setattr(attention, "varlen_attn", plain_varlen)
    model.compile_blocks(backend="aot_eager")
    found, _ = run(model, [100, 156])
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=2e-5)
    for lengths in ([130, 126], [50] * 5 + [6], [4] * 64):
        run(model, lengths)
    num_bounds = 2  # 128 and 256 tokens at most
    assert counters["stats"]["unique_graphs"] == 2 * num_bounds


@pytest.mark.parametrize("kernel", ["varlen", "dense"])
def test_the_kernels_of_a_gpu_trace_forward_and_backward_without_one(monkeypatch, kernel):
    monkeypatch.setattr(model_module, "choose_kernel", lambda _device, _dtype: kernel)
    model = make("g5", 4).to("meta")
    model.compute_dtype = torch.bfloat16 if kernel == "varlen" else torch.float32
    hidden = model.hidden(IDS.to("meta"), documents=Documents.from_lengths([100, 156], "meta"))
    assert hidden.shape == (1, 256, 64)
    assert hidden.dtype == model.compute_dtype
    hidden.sum().backward()
    assert all(param.grad is not None for name, param in model.named_parameters() if name != "lm_head.weight")


def test_the_longest_document_is_told_to_kernels_as_few_values():
    bounds = {
        PackedLayout((1, 512), Documents.from_lengths([length, 512 - length]), IDS.device, kernel="varlen")._max_len
        for length in range(256, 511)
    }
    assert bounds == {256, 512}
