"""Evaluation from `nanosft train`: a few probes while it runs, and all of `nanosft eval` once the model is there.

Training knows neither: the command hands it a function that asks the model, and evaluates what training has finished.
"""

from collections.abc import Mapping
from typing import Final

from nanosft.data import list_data_objects
from nanosft.distributed import World
from nanosft.errors import Interrupted, NanosftError
from nanosft.evaluate.answering import answer_all
from nanosft.evaluate.probing.probes import Probe
from nanosft.evaluate.scoring import Judge
from nanosft.evaluate.stage import choose_all, run_eval
from nanosft.knowledge import Knowledge, read_knowledge
from nanosft.nanochat import Checkpoint
from nanosft.settings.evaluate import EvalSettings
from nanosft.settings.train import TrainSettings

_MAX_TOKENS: Final = 48


class ProbeAsker:
    """Asks a model in training the same few probes each time; calling it takes no random number from anywhere.

    Args:
        settings: What the run is trained on, and how many probes of which knowledge base are asked.
    """

    def __init__(self, settings: TrainSettings) -> None:
        self._settings = settings
        self._knowledge: Knowledge | None = None
        self._probes: list[Probe] = []

    def __call__(self, checkpoint: Checkpoint, world: World) -> Mapping[str, float]:
        """Shares of the answers that are right, wrong and missing; every rank gives its share of answers.

        Raises:
            DataError: There is no such knowledge base.
        """
        if self._knowledge is None:
            self._knowledge, self._probes = world.run_on_rank_zero(self._prepare)
        prompts = [probe.messages for probe in self._probes]
        answers = answer_all(checkpoint, prompts, max_tokens=_MAX_TOKENS, label="probes", world=world)
        judge = Judge(self._knowledge)
        verdicts = [
            judge.judge(probe, answer.whole_words).verdict for probe, answer in zip(self._probes, answers, strict=True)
        ]
        shares = {name: verdicts.count(name) / len(verdicts) for name in ("right", "wrong", "missing")}
        return {**shares, "num_probes": len(verdicts)}

    def _prepare(self) -> tuple[Knowledge, list[Probe]]:
        settings = self._settings
        knowledge = read_knowledge(settings.eval_knowledge)
        asked = EvalSettings(model=settings.out, knowledge=settings.eval_knowledge, num_probes=settings.eval_probes)
        data = (settings.data, *filter(None, [settings.val_data]))
        probes, _ = choose_all(asked, knowledge, [list_data_objects(uri) for uri in data], answerable=True)
        return knowledge, probes


def evaluate_run(settings: TrainSettings) -> None:
    """Evaluate the model of a finished run into the prefix beside it, `OUT-evaluation`.

    Raises:
        NanosftError: Of the kind that stopped the evaluation; the model is whole, and the message says so.
    """
    out = settings.out.rstrip("/")
    try:
        run_eval(
            EvalSettings(model=out, out=f"{out}-evaluation", knowledge=settings.eval_knowledge, device=settings.device)
        )
    except Interrupted:
        raise
    except NanosftError as exc:
        raise type(exc)(f"the model in {out} is finished, its evaluation is not: {exc}") from exc
