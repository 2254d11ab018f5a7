"""The model computes what nanochat computed (g1, g3, g5), and what its facts say in all five generations."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from nanosft.errors import DataError
from nanosft.nanochat import GENERATIONS, GPT, Checkpoint, Documents, init_model
from nanosft.nanochat.state_dict import model_from_state_dict
from tests.unit.nanochat.conftest import SMALL, make_model
from tests.unit.nanochat.reference import reference_logits

SHORT_WINDOWS = {"g1": 6, "g2": 6, "g3": 6, "g4": 4, "g5": 3}
LENGTHS = [3, 17, 1, 30, 13]  # shorter and longer than both windows (at most 6, and 12)


def sum_loss(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits.flatten(0, -2), targets.flatten(), ignore_index=-1, reduction="sum")


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("name", ["g1", "g3", "g5"])
def test_logits_loss_and_gradients_are_nanochats(
    name: str, load_golden: Callable[[str], tuple[Checkpoint, dict[str, Any]]]
) -> None:
    checkpoint, computed = load_golden(name)
    model = checkpoint.model
    assert checkpoint.generation.name == name
    logits = model(computed["ids"])
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits[:, ::17], computed["logits_sample"], atol=1e-5, rtol=0)
    targets = computed["targets"].long()
    assert int((targets != -1).sum()) == computed["num_supervised"]
    loss = sum_loss(logits, targets)
    assert loss.item() == pytest.approx(computed["loss_sum"], rel=1e-5)
    torch.autograd.backward(loss)
    parameters = dict(model.named_parameters())
    assert set(parameters) == set(computed["grad_norms"])
    for key, parameter in parameters.items():
        assert parameter.grad is not None
        norm = computed["grad_norms"][key]
        assert parameter.grad.norm().item() == pytest.approx(norm, rel=1e-5), key
        head = computed["grad_head"][key]
        torch.testing.assert_close(parameter.grad.flatten()[: len(head)], head, atol=1e-5 * norm, rtol=1e-5)


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("name", GENERATIONS)
def test_every_generation_computes_what_its_facts_say(name: str, padded: bool) -> None:  # noqa: FBT001
    model = make_model(name, padded=padded)
    ids = torch.randint(0, SMALL.vocab_size, (2, 40), generator=torch.Generator().manual_seed(1))
    logits = model(ids)
    assert logits.shape == (2, 40, 90)
    for row in range(2):
        expected = reference_logits(
            model.state_dict(), SMALL.to_dict(), name, ids[row].tolist(), short=SHORT_WINDOWS[name]
        )
        torch.testing.assert_close(logits[row].double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["g2", "g3", "g4", "g5"])
def test_windows_are_counted_from_the_context_as_each_generation_does(name: str) -> None:
    config = replace(SMALL, sequence_len=133, n_layer=2, window_pattern="S")
    model = make_model(name, config=config, generation=GENERATIONS[name])
    ids = torch.randint(0, 90, (1, 145), generator=torch.Generator().manual_seed(8))
    expected = reference_logits(model.state_dict(), config.to_dict(), name, ids[0].tolist())
    torch.testing.assert_close(model(ids)[0].double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", GENERATIONS)
def test_a_packed_row_is_its_documents_alone_forward_and_backward(name: str) -> None:
    model = make_model(name)
    generator = torch.Generator().manual_seed(2)
    num_tokens = sum(LENGTHS)
    ids = torch.randint(0, 90, (1, num_tokens), generator=generator)
    targets = torch.randint(-1, 90, (1, num_tokens), generator=generator)
    alone = [
        sum_loss(model(doc_ids), doc_targets)
        for doc_ids, doc_targets in zip(torch.split(ids, LENGTHS, 1), torch.split(targets, LENGTHS, 1), strict=True)
        if (doc_targets != -1).any()
    ]
    expected_loss = torch.stack(alone).sum()
    expected = torch.autograd.grad(expected_loss, list(model.parameters()))
    packed_loss = sum_loss(model(ids, documents=Documents.from_lengths(LENGTHS)), targets)
    found = torch.autograd.grad(packed_loss, list(model.parameters()))
    assert packed_loss.item() == pytest.approx(expected_loss.item(), rel=1e-5)
    for (key, _), gradient, other in zip(model.named_parameters(), found, expected, strict=True):
        assert relative_error(gradient, other) < 1e-5, key
    whole_row = sum_loss(model(ids), targets)
    assert abs(whole_row.item() - expected_loss.item()) > 1e-2, "the row's documents do not touch: nothing is proved"


def test_a_batch_of_rows_may_hold_documents() -> None:
    model = make_model("g5")
    ids = torch.randint(0, 90, (2, 20), generator=torch.Generator().manual_seed(3))
    logits = model(ids, documents=Documents.from_lengths((5, 15, 20)))
    torch.testing.assert_close(logits[0, 5:], model(ids[:1, 5:])[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(logits[1], model(ids[1:])[0], atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="39 tokens in a batch of 40"):
        model(ids, documents=Documents.from_lengths((5, 34)))


@pytest.mark.parametrize("name", GENERATIONS)
def test_nothing_sees_the_future(name: str) -> None:
    model = make_model(name)
    ids = torch.randint(0, 90, (1, 30), generator=torch.Generator().manual_seed(4))
    changed = ids.clone()
    changed[0, 20:] = (changed[0, 20:] + 1) % 90
    torch.testing.assert_close(model(ids)[0, :20], model(changed)[0, :20], atol=1e-6, rtol=0)
    assert not torch.allclose(model(ids)[0, 20:], model(changed)[0, 20:], atol=1e-3)


def test_logits_of_some_positions_are_those_of_all() -> None:
    model = make_model("g5")
    ids = torch.randint(0, 90, (2, 20), generator=torch.Generator().manual_seed(5))
    some = torch.tensor([3, 4, 30])
    hidden = model.hidden(ids)
    assert hidden.shape == (2, 20, 128)
    torch.testing.assert_close(model.logits(hidden.view(40, -1)[some]), model(ids).view(40, -1)[some])


def test_bfloat16_compute_keeps_float32_masters_and_gradients(
    load_golden: Callable[[str], tuple[Checkpoint, dict[str, Any]]],
) -> None:
    checkpoint, computed = load_golden("g5")
    model = checkpoint.model
    model.compute_dtype = torch.bfloat16
    loss = sum_loss(model(computed["ids"]), computed["targets"].long())
    assert loss.item() == pytest.approx(computed["loss_sum"], rel=1e-2)
    assert loss.item() != pytest.approx(computed["loss_sum"], rel=1e-7), "nothing was computed in bfloat16"
    torch.autograd.backward(loss)
    for key, parameter in model.named_parameters():
        assert parameter.dtype == torch.float32
        assert parameter.grad is not None
        assert parameter.grad.dtype == torch.float32
        assert parameter.grad.norm().item() == pytest.approx(computed["grad_norms"][key], rel=0.15), key


def test_compiled_and_bfloat16_state_dicts_load() -> None:
    model = make_model("g3")
    state = {f"_orig_mod.{key}": tensor.bfloat16() for key, tensor in model.state_dict().items()}
    loaded = model_from_state_dict(state, SMALL, where="x")
    assert loaded.generation.name == "g3"
    for key, tensor in loaded.state_dict().items():
        assert tensor.dtype == torch.float32
        torch.testing.assert_close(tensor, model.state_dict()[key], atol=0, rtol=1e-2)
    assert all(parameter.requires_grad for parameter in loaded.parameters())


def test_a_softcap_of_twenty_is_another_model() -> None:
    model = make_model("g3")
    ids = torch.randint(0, 90, (1, 12), generator=torch.Generator().manual_seed(6))
    model.generation = replace(model.generation, softcap=20.0)
    expected = reference_logits(model.state_dict(), SMALL.to_dict(), "g3", ids[0].tolist(), softcap=20.0)
    torch.testing.assert_close(model(ids)[0].double(), expected, atol=1e-5, rtol=1e-5)


def test_wrong_state_dicts_name_the_key() -> None:
    state = dict(make_model("g5").state_dict())
    cases: list[tuple[dict[str, Tensor], str]] = [
        ({key: t for key, t in state.items() if key != "lm_head.weight"}, "as g5: missing 'lm_head.weight'"),
        ({**state, "transformer.h.0.attn.bias": torch.zeros(1)}, "as g5: unknown 'transformer.h.0.attn.bias'"),
        ({**state, "transformer.h.1.mlp.c_fc.weight": torch.zeros(3, 4)}, r"c_fc.weight has shape \(3, 4\)"),
        ({**state, "transformer.wte.weight": torch.zeros(80, 128)}, "80 rows"),
        ({**state, "resid_lambdas": torch.zeros(4, dtype=torch.int64)}, "resid_lambdas has dtype torch.int64"),
        ({}, "as g1: missing 'lm_head.weight', 'transformer.h.0"),
    ]
    for broken, match in cases:
        with pytest.raises(DataError, match=match):
            model_from_state_dict(broken, SMALL, where="s3://b/model.pt")


def test_a_new_model_depends_on_its_seed_alone_and_can_learn() -> None:
    models = [init_model(SMALL, GENERATIONS["g5"], seed) for seed in (1, 1, 2)]
    states = [model.state_dict() for model in models]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not torch.equal(states[0]["lm_head.weight"], states[2]["lm_head.weight"])
    ids = torch.randint(0, 90, (2, 30), generator=torch.Generator().manual_seed(7))
    model = models[0]
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(12):
        loss = sum_loss(model(ids[:, :-1]), ids[:, 1:]) / 58
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(torch.tensor(90.0).log().item(), abs=0.05)
    assert losses[-1] < losses[0] / 2
    assert all(p.grad is not None for p in model.parameters())


def test_rows_longer_than_the_context_have_positions_too() -> None:
    model = make_model("g2")
    short, long = torch.zeros(1, 5, dtype=torch.int64), torch.zeros(1, 200, dtype=torch.int64)
    first = model(short)
    assert isinstance(model, GPT)
    assert model(long).shape == (1, 200, 90)
    torch.testing.assert_close(model(short), first)
