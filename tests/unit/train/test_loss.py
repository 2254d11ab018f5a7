import pytest
import torch

from nanosft.train.loss import sum_losses, token_losses

VOCAB = 100


def make(num, dtype=torch.float32):
    generator = torch.Generator().manual_seed(num)
    hidden = torch.randn(num, 32, generator=generator).to(dtype).requires_grad_()
    weight = (3 * torch.randn(128, 32, generator=generator)).requires_grad_()  # 28 rows of padding
    return hidden, weight, torch.randint(VOCAB, (num,), generator=generator)


def plain(hidden, weight, targets, softcap):
    logits = torch.nn.functional.linear(hidden, weight[:VOCAB].to(hidden.dtype)).float()
    return torch.nn.functional.cross_entropy(softcap * torch.tanh(logits / softcap), targets, reduction="none")


@pytest.mark.parametrize("chunk", [1, 7, 64, 1000])
@pytest.mark.parametrize("softcap", [15.0, 20.0])
def test_chunks_give_the_loss_and_the_gradients_of_all_logits_at_once(chunk, softcap):
    hidden, weight, targets = make(64)
    total = sum_losses(hidden, weight, targets, vocab_size=VOCAB, softcap=softcap, chunk=chunk)
    found = torch.autograd.grad(total / 3, (hidden, weight))
    expected_total = plain(hidden, weight, targets, softcap).sum()
    expected = torch.autograd.grad(expected_total / 3, (hidden, weight))
    torch.testing.assert_close(total, expected_total, rtol=1e-5, atol=0)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == theirs.dtype
        assert (ours - theirs).norm() <= 1e-5 * theirs.norm()
    assert not found[1][VOCAB:].any()


def test_bfloat16_differs_by_its_rounding_alone():
    hidden, weight, targets = make(64, torch.bfloat16)
    total = sum_losses(hidden, weight, targets, vocab_size=VOCAB, softcap=15.0, chunk=10)
    found = torch.autograd.grad(total, (hidden, weight))
    expected_total = plain(hidden, weight, targets, 15.0).sum()
    expected = torch.autograd.grad(expected_total, (hidden, weight))
    torch.testing.assert_close(total, expected_total, rtol=1e-5, atol=0)
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours.float() - theirs.float()).norm() <= 0.02 * theirs.float().norm()


def test_no_supervised_token_means_no_loss_and_zero_gradients():
    hidden, weight, targets = make(0)
    total = sum_losses(hidden, weight, targets, vocab_size=VOCAB, softcap=15.0)
    total.backward()
    assert total.item() == 0.0
    assert weight.grad is not None
    assert not weight.grad.any()
    assert token_losses(hidden, weight, targets, vocab_size=VOCAB, softcap=15.0).shape == (0,)


def test_losses_of_single_tokens_sum_to_the_whole():
    hidden, weight, targets = make(50)
    each = token_losses(hidden, weight, targets, vocab_size=VOCAB, softcap=15.0, chunk=16)
    torch.testing.assert_close(each, plain(hidden, weight, targets, 15.0).detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")  # torch's compiler warns of torch itself
def test_a_compiled_loss_is_the_plain_one():
    hidden, weight, targets = make(20)
    losses = [
        sum_losses(hidden, weight, targets, vocab_size=VOCAB, softcap=15.0, chunk=8, compiled=compiled)
        for compiled in (False, True)
    ]
    gradients = [torch.autograd.grad(loss, weight)[0] for loss in losses]
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-6, atol=0)
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-5, atol=1e-6)
