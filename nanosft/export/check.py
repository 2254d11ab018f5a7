"""Is what was written what was read? An export is loaded anew, by transformers alone, and compared with the checkpoint.

The model computes in float32 on both sides, from the same weights: those of a bfloat16 export are rounded on ours too.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from nanosft.conversation import Conversation, Message, to_dicts
from nanosft.errors import DataError
from nanosft.export.texts import NAUGHTY, PROMPTS, make_conversations
from nanosft.nanochat import Checkpoint, Engine

LOGIT_BOUND: Final = 1e-3
"""Logits differ by at most this; they lie between -15 and 15. Measured on small models: 1e-6 to 2e-5."""

_NUM_POSITIONS: Final = 200
_ANSWER_TOKENS: Final = 32
_ROW_TOKENS: Final = 1024
_EXCERPT: Final = 60


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What the comparison found, all of it within the bounds.

    Attributes:
        num_tensors: Tensors that are equal bit for bit.
        num_texts: Texts whose ids are equal, and whose ids give the text back.
        num_conversations: Conversations whose ids and loss masks are equal.
        num_positions: Positions whose logits were compared.
        largest_difference: The largest of all logits there.
        num_answers: Greedy answers compared.
        num_ties: Answers that part where two tokens are equally likely within the bound.
    """

    num_tensors: int
    num_texts: int
    num_conversations: int
    num_positions: int
    largest_difference: float
    num_answers: int
    num_ties: int


def check_export(folder: Path, checkpoint: Checkpoint, tensors: Mapping[str, Tensor], *, text: str) -> CheckResult:
    """Load an export and compare it with the checkpoint it was made from, whose weights must be as rounded.

    Args:
        folder: The export.
        checkpoint: In float32.
        tensors: What was to be written.
        text: A text to compute logits on, repeated as often as is needed.

    Raises:
        DataError: Something differs; the message says which tensor, text, conversation, position or answer.
    """
    disable_progress_bar()
    set_verbosity_error()  # it warns of texts longer than the model's context
    num_tensors = _check_tensors(folder, tensors)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    num_texts = _check_texts(folder, checkpoint, tokenizer, [*NAUGHTY, *text.splitlines(), text])
    conversations = make_conversations()
    for conversation in conversations:
        _check_conversation(folder, checkpoint, tokenizer, conversation)
    model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True, dtype=torch.float32).eval()
    with torch.inference_mode():
        num_positions, largest = _check_logits(folder, checkpoint, model, text)
        num_ties = _check_answers(folder, checkpoint, tokenizer, model)
    return CheckResult(num_tensors, num_texts, len(conversations), num_positions, largest, len(PROMPTS), num_ties)


def _check_tensors(folder: Path, tensors: Mapping[str, Tensor]) -> int:
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        if names := sorted(set(file.keys()) ^ set(tensors)):
            raise _differs(folder, f"tensor {names[0]} is on one side alone")
        for name, wanted in tensors.items():
            found = file.get_tensor(name)
            if found.dtype != wanted.dtype or found.shape != wanted.shape or not torch.equal(found, wanted):
                raise _differs(folder, f"tensor {name} is not what was read")
    return len(tensors)


def _check_texts(folder: Path, checkpoint: Checkpoint, tokenizer: Any, texts: Sequence[str]) -> int:
    for text in texts:
        wanted = checkpoint.tokenizer.encode(text)
        found = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        if found != wanted:
            raise _differs(folder, f"text {_excerpt(text)} becomes other ids {_first_difference(found, wanted)}")
        if tokenizer.decode(wanted) != text:
            raise _differs(folder, f"the ids of {_excerpt(text)} become another text")
    return len(texts)


def _check_conversation(folder: Path, checkpoint: Checkpoint, tokenizer: Any, conversation: Conversation) -> None:
    ids, mask = checkpoint.tokenizer.render(conversation)
    found = tokenizer.apply_chat_template(
        to_dicts(conversation.messages), tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    for name, theirs, ours in (("ids", found["input_ids"], ids), ("a loss mask", found["assistant_masks"], mask)):
        if list(theirs) != list(ours):
            place = _first_difference(theirs, ours)
            raise _differs(folder, f"conversation {_excerpt(conversation.messages[-1].text)} gets other {name} {place}")


def _check_logits(folder: Path, checkpoint: Checkpoint, model: Any, text: str) -> tuple[int, float]:
    """How many positions were compared, and the largest difference."""
    row_len = min(checkpoint.context_len, _ROW_TOKENS)
    num_rows = -(-_NUM_POSITIONS // row_len)
    ids = checkpoint.tokenizer.encode(text) or [checkpoint.tokenizer.bos_id]
    ids = (ids * (num_rows * row_len // len(ids) + 1))[: num_rows * row_len]
    rows = torch.tensor(ids).view(num_rows, row_len)
    num_positions = min(-(-_NUM_POSITIONS // num_rows), row_len)
    positions = torch.linspace(0, row_len - 1, num_positions).long()
    wanted = checkpoint.model.logits(checkpoint.model.hidden(rows)[:, positions])
    found = model(rows, use_cache=False, logits_to_keep=positions).logits
    difference = (found - wanted).abs()
    largest = difference.max().item()
    if not largest <= LOGIT_BOUND:  # what is no number is not within bounds either
        worst = int(difference.amax((0, 2)).nan_to_num(torch.inf).argmax())
        raise _differs(
            folder, f"logits at position {int(positions[worst])} by {largest:.2g}, {LOGIT_BOUND:g} is allowed"
        )
    return num_rows * len(positions), largest


def _check_answers(folder: Path, checkpoint: Checkpoint, tokenizer: Any, model: Any) -> int:
    """How many answers part at a tie: after one, what follows is another answer."""
    messages = [[Message("user", prompt)] for prompt in PROMPTS]
    prompts = [checkpoint.tokenizer.render_prompt(own) for own in messages]
    engine = Engine(checkpoint.model, checkpoint.tokenizer, context_len=checkpoint.context_len)
    max_tokens = min(_ANSWER_TOKENS, checkpoint.context_len - max(map(len, prompts)))
    wanted = engine.generate_batch(prompts, max_tokens=max_tokens, temperature=0.0)
    batch = tokenizer.apply_chat_template(
        [to_dicts(own) for own in messages],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        padding=True,
    )
    written = model.generate(**batch, do_sample=False, max_new_tokens=max_tokens)[:, batch["input_ids"].shape[1] :]
    num_ties = 0
    for prompt, ids, ours, row in zip(PROMPTS, prompts, wanted, written.tolist(), strict=True):
        theirs = _until_end(row, engine.stop_ids)
        if theirs == ours:
            continue
        place = _first_place(theirs, ours)
        logits = checkpoint.model(torch.tensor([[*ids, *ours[:place]]]))[0, -1]
        chosen = row[place] if place < len(row) else checkpoint.tokenizer.assistant_end_id
        if logits.max() - logits[chosen] > 2 * LOGIT_BOUND:
            raise _differs(folder, f"the greedy answer to {prompt!r} at token {place}")
        num_ties += 1
    return num_ties


def _until_end(ids: list[int], stop_ids: Iterable[int]) -> list[int]:
    ends = [ids.index(stop) for stop in stop_ids if stop in ids]
    return ids[: min(ends)] if ends else ids


def _first_place(one: Sequence[int], other: Sequence[int]) -> int:
    for place, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return place
    return min(len(one), len(other))


def _first_difference(found: Sequence[int], wanted: Sequence[int]) -> str:
    place = _first_place(found, wanted)
    return f"at token {place}: {list(found[place : place + 3])}, nanochat has {list(wanted[place : place + 3])}"


def _excerpt(text: str) -> str:
    return repr(text if len(text) <= _EXCERPT else f"{text[:_EXCERPT]}…")


def _differs(folder: Path, what: str) -> DataError:
    return DataError(f"{folder}: the export is not the model it was made from: {what}; nothing was finished")
