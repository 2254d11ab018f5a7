"""What the CUDA path is made of, as far as a CPU can tell: kernels trace, a compiled block sees few values."""

import pytest
import torch
from torch._dynamo.utils import counters

from nanosft.nanochat import model as model_module
from nanosft.nanochat.attention import Documents, PackedLayout
from nanosft.nanochat.generations import GENERATIONS, ModelConfig
from nanosft.nanochat.model import GPT

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


def test_small_batches_and_evaluations_are_not_compiled(monkeypatch):
    model = make("g5", 2)
    monkeypatch.setattr(model, "_compiled", None)
    model.compile_blocks()
    model.hidden(IDS[:, :2]).sum().backward()
    with torch.no_grad():
        model.hidden(IDS)
    assert not counters["stats"]


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
