"""A signal that comes while a model in training is evaluated: all ranks stop at once, and the step before is saved.

SIGTERM in a long evaluation took 76.9 s at a grace of 50.
"""

import signal
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from nanosft.conversation import Message
from nanosft.distributed import World
from nanosft.errors import Interrupted
from nanosft.evaluate.answering import answer_all
from nanosft.nanochat import load_checkpoint
from nanosft.packing import pack_in_order
from nanosft.settings.train import TrainSettings
from nanosft.store import open_store
from nanosft.train.batch import BatchBuilder
from nanosft.train.evaluate import ValidationSet, evaluate, render_prompts, sample_answers
from nanosft.train.stage import run_train
from nanosft.train.state import list_states
from nanosft.train.step import LossModule
from tests.unit.train.make import GOLDEN, golden_base, talk, tokens_of

if TYPE_CHECKING:
    from collections.abc import Callable

NUM_PARTS = 4


@dataclass(frozen=True, slots=True)
class TwoRanks(World):
    """Rank 0 of two; rank 1, which is not there, is told to stop before the second part of shared work."""

    size: int = 2
    is_told: bool = False
    num_parts: list[int] = field(default_factory=lambda: [0])

    def gather(self, value: Any, *, background: bool = False) -> list[Any]:  # noqa: ARG002 - World's own face
        self.num_parts[0] += 1
        return [value, Interrupted(signal.SIGTERM) if self.is_told and self.num_parts[0] > 1 else None]


class Told(LossModule):
    """Counts its batches; the signal comes in the first."""

    def __init__(self, signals: list[int]) -> None:
        super().__init__(golden_base().model)
        self.signals, self.num_batches = signals, 0

    def token_losses(self, batch: Any) -> torch.Tensor:
        self.signals += [signal.SIGTERM]
        self.num_batches += 1
        return super().token_losses(batch)


def make_validation() -> ValidationSet:
    base = golden_base()
    tokens = tokens_of(*[talk("Two and two?", f"{number}.") for number in range(2 * NUM_PARTS)], capacity=33)
    rows = pack_in_order(tokens.lengths, 33)
    places: dict[str, Any] = {"device": torch.device("cpu"), "dtype": torch.float32, "device_rows": 1}
    builder = BatchBuilder(tokens, rows, 32, "document", base.tokenizer.bos_id, **places)
    assert len(rows) >= NUM_PARTS
    return ValidationSet(builder, np.array(base.tokenizer.token_bytes(), np.int64), device_rows=1)


def test_validation_stops_behind_the_batch_that_a_signal_comes_in() -> None:
    signals: list[int] = []
    module = Told(signals)
    with pytest.raises(Interrupted):
        evaluate(module, make_validation(), World(signals=signals))
    assert module.num_batches == 1


@pytest.mark.parametrize("work", ["validation", "samples"])
def test_a_rank_that_no_signal_has_come_to_stops_with_the_one_that_it_has_come_to(work: str) -> None:
    base, world = golden_base(), TwoRanks(is_told=True)
    shared: dict[str, Callable[[], object]] = {
        "validation": lambda: evaluate(LossModule(base.model), make_validation(), world),
        "samples": lambda: sample_answers(
            base.model, render_prompts(base.tokenizer, ["a"] * 8, max_tokens=1, context_len=256), world
        ),
    }
    with pytest.raises(Interrupted):
        shared[work]()
    assert world.num_parts == [2]


class Countdown(list[int]):
    """Signals of which there are none until they were looked at so many times."""

    def __init__(self, num_looks: int) -> None:
        super().__init__([signal.SIGTERM])
        self.num_looks = num_looks

    def __bool__(self) -> bool:
        self.num_looks -= 1
        return self.num_looks < 0


def test_samples_and_probes_look_at_signals_between_tokens_and_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    base = golden_base()
    prompts = render_prompts(base.tokenizer, ["Hi"], max_tokens=40, context_len=256)
    signals = Countdown(3)
    with pytest.raises(Interrupted):
        sample_answers(base.model, prompts, World(signals=signals))
    assert signals.num_looks == -1
    monkeypatch.setattr("nanosft.evaluate.answering._BLOCK_PROMPTS", 1)
    signals = Countdown(2)
    with pytest.raises(Interrupted):
        answer_all(base, [[Message("user", "Hi")]] * 4, max_tokens=2, world=World(signals=signals))
    assert signals.num_looks == -1


@pytest.mark.parametrize("step", [0, 2, 3])
def test_sigterm_in_a_long_evaluation_saves_the_step_before_it_and_the_rerun_makes_it(tmp_path: Any, step: int) -> None:
    data = tmp_path / "data.jsonl"
    data.write_bytes(b"".join(talk(f"What is {number} and one?", f"It is {number + 1}.") for number in range(12)))
    settings = TrainSettings(
        base=str(GOLDEN / "g5"),
        data=str(data),
        val_data=str(data),
        out=str(tmp_path / "run"),
        max_steps=3,
        total_batch_size=256,
        max_seq_len=64,
        eval_every=1,
        save_every=0,
        sample_tokens=0,
        dtype="float32",
        device="cpu",
        num_threads=1,
    )
    asked: list[int] = []

    def ask(_base: object, world: World) -> dict[str, float]:
        asked.append(len(asked))
        if asked[-1] == step:
            signal.raise_signal(signal.SIGTERM)
            world.run_on_all_ranks(world.stop_if_told)
        return {}

    with pytest.raises(Interrupted, match="the same command goes on from here"):
        run_train(settings, ask)
    states = list_states(open_store(settings.out))
    assert [(state.step, state.manifest.counts["evaluated_step"]) for state in states] == (
        [(step, step - 1)] * (step > 0)
    )
    assert len(asked) == step + 1
    run_train(settings, ask)
    assert len(asked) == 5  # each step's, and the interrupted one's once more
    run_train(settings.model_copy(update={"out": str(tmp_path / "whole")}))
    found, whole = (load_checkpoint(str(tmp_path / name)).model.state_dict() for name in ("run", "whole"))
    assert all(torch.equal(tensor, found[name]) for name, tensor in whole.items())
