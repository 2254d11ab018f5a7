"""What the CUDA path is made of, as far as a CPU can tell: kernels trace, a compiled block sees few values."""

import pytest
import torch
from torch._dynamo.utils import counters

from nanosft.nanochat import attention as attention_module
from nanosft.nanochat import model as model_module
from nanosft.nanochat.attention import Documents, PackedLayout
from nanosft.nanochat.generations import GENERATIONS, ModelConfig
from nanosft.nanochat.model import GPT

# The compiler itself looks at the gradient of what it traces.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
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


def named_blocks(model):
    return [(name, param) for name, param in model.named_parameters() if name.startswith("transformer.h.")]


def test_small_batches_and_evaluations_are_not_compiled(monkeypatch):
    model = make("g5", 2)
    monkeypatch.setattr(model, "_compiled", None)
    model.compile_blocks()
    model.hidden(IDS[:, :2]).sum().backward()
    with torch.no_grad():
        model.hidden(IDS)
    assert not counters["stats"]


def attend_alike(q, k, v, borders, max_len, *, window, scale):
    """In place of the variable-length kernel, which no CPU has: it reads all that the kernel is given."""
    seen = (k.sum(1, keepdim=True) + v.sum(1, keepdim=True)) * (max_len + (window or 0))
    return q * scale + seen + borders.sum()


@pytest.mark.parametrize("generation", ["g1", "g3", "g5"])
def test_a_block_is_compiled_once_a_kind_and_never_again_for_other_documents(monkeypatch, generation):
    monkeypatch.setattr(model_module, "choose_kernel", lambda _device, _dtype: "varlen")
    monkeypatch.setattr(attention_module, "attend_varlen", attend_alike)
    model = make(generation, 4)
    model.compile_blocks(backend="eager")
    ids = torch.arange(1024).remainder(64)[None]
    model.hidden(ids, documents=Documents.from_lengths([300, 212, 512], "cpu")).sum().backward()
    kinds = {(block.attn.window, hasattr(block.attn, "ve_gate")) for block in model.transformer["h"]}
    assert counters["stats"]["unique_graphs"] == len(kinds) <= 4
    with torch._dynamo.config.patch(error_on_recompile=True):
        for lengths in ([512, 512], [400, 500, 124], [300] + [1] * 100 + [500, 124]):
            model.hidden(ids, documents=Documents.from_lengths(lengths, "cpu")).sum().backward()
    assert not counters["graph_break"]


@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")
def test_blocks_compile_with_inductor_in_whole_and_give_what_they_gave(monkeypatch):
    monkeypatch.setattr(model_module, "choose_kernel", lambda _device, _dtype: "dense")
    model = make("g5", 1)
    documents = Documents.from_lengths([100, 156], "cpu")
    runs = []
    for compiled in (False, True):
        if compiled:
            model.compile_blocks()
        hidden = model.hidden(IDS, documents=documents)
        model.zero_grad()
        hidden.sum().backward()
        runs.append([hidden.detach(), *(param.grad.clone() for name, param in named_blocks(model))])
    assert counters["stats"]["unique_graphs"] == 1
    for plain, found in zip(*runs, strict=True):
        torch.testing.assert_close(found, plain, rtol=1e-3, atol=1e-3)
    with torch._dynamo.config.patch(error_on_recompile=True):
        model.hidden(IDS, documents=Documents.from_lengths([200, 56], "cpu")).sum().backward()


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
