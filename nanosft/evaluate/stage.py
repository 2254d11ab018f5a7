"""`nanosft eval`: does a model know who it is, how does it carry itself, and what has it forgotten?

One process, or several ranks under `nanosft launch` or torchrun, with the same result.

nanosft eval --model s3://bucket/run --out s3://bucket/run-evaluation
nanosft eval compare s3://bucket/run-evaluation s3://bucket/other-evaluation
"""

import logging
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any, Final

from nanosft.data import DataObject
from nanosft.distributed import World, open_world
from nanosft.errors import ConfigError, DataError
from nanosft.evaluate.answering import Answer, answer_all
from nanosft.evaluate.conduct import find_faults, measure_stability, summarize_faults
from nanosft.evaluate.forgetting import (
    Document,
    read_held_out,
    read_plain_text,
    score_documents,
    summarize_documents,
)
from nanosft.evaluate.keeping import (
    Inputs,
    check_out,
    find_origin,
    find_origins,
    finish,
    read_evaluation,
    read_finished,
    writing,
)
from nanosft.evaluate.probing.leaks import drop_leaked, read_asked
from nanosft.evaluate.probing.probes import Probe, choose_probes, make_probes, read_personas, read_wordings
from nanosft.evaluate.report import advise, describe_counts, make_score_table, make_table, make_worst_table
from nanosft.evaluate.results import (
    CHANGE,
    Evaluation,
    Figures,
    Row,
    check_requirements,
    compare_evaluations,
    find_worst,
    pair_answers,
    pair_solutions,
    summarize_answers,
)
from nanosft.evaluate.scoring import Judge
from nanosft.evaluate.second_opinion import AskJudge, add_opinions, write_judge_prompt
from nanosft.evaluate.tasks import Sandbox, Task, read_tasks, score_tasks
from nanosft.knowledge import Knowledge, read_knowledge
from nanosft.manifest import Parent
from nanosft.nanochat import Checkpoint, Sampling, resolve_device
from nanosft.nanochat.checkpoint import read_checkpoint
from nanosft.progress import make_result_console, write_json
from nanosft.settings.evaluate import EvalCompareSettings, EvalSettings
from nanosft.signals import raising

_SAMPLE_SEEDS: Final = (0, 1, 2)
_SAMPLE_TEMPERATURE: Final = 0.6
_SAMPLE_TOP_K: Final = 50
_RANKS_TIMEOUT_S: Final = 24 * 3600.0
"""A rank waits for others that got longer answers to write; one that is gone is noticed at once."""
_log = logging.getLogger(__name__)


def run_eval(settings: EvalSettings, ask_judge: AskJudge | None = None) -> None:
    """Evaluate, print what was found, and keep it where an `out` is set.

    Args:
        settings: What to do.
        ask_judge: Asks the judge that the settings name.

    Raises:
        DataError: A figure is not what `require` says, or model, knowledge or data are missing or damaged.
        ConfigError: There is no such figure, or `out` holds another evaluation.
    """
    with raising("the evaluation is not kept: the same command begins anew"), _open_ranks(settings) as world:
        found = _evaluate(settings, world, ask_judge)
    if not world.is_first:
        return
    if settings.json_output:
        write_json(found.to_json(), indent=True)
    else:
        stdout = make_result_console()
        if worst := find_worst(found.answers_of(found.label), settings.num_worst):
            stdout.print(make_worst_table(worst))
        stdout.print(make_score_table(found))
        stdout.print(describe_counts(found), highlight=False, markup=False)
        if advice := advise(found):
            stdout.print(advice, highlight=False, markup=False)
    if problems := check_requirements(found, settings.require):
        raise DataError(f"{settings.model}: {'; '.join(problems)}")


def run_compare(settings: EvalCompareSettings) -> None:
    """Print evaluations side by side, with paired differences to the first.

    Raises:
        DataError: One of them is no finished evaluation.
    """
    found = {uri: read_evaluation(uri) for uri in dict.fromkeys(settings.evaluations)}
    columns = compare_evaluations(found)
    if settings.json_output:
        table = {
            label: {name: value.to_json() for name, value in figures.items()} for label, figures in columns.items()
        }
        write_json(table, indent=True)
        return
    stdout = make_result_console()
    for letter, uri in zip(columns, found, strict=False):
        stdout.print(f"{letter}: {uri}{_tell_pairs(columns, letter)}", highlight=False, markup=False)
    stdout.print(make_table(columns, title="Evaluations"))


def _tell_pairs(columns: dict[str, Figures], letter: str) -> str:
    """How many probes the differences to A are over: other seeds, data and settings ask others."""
    change = columns.get(f"{CHANGE} {letter} - A")
    if change is None or "identity" not in columns[letter]:
        return ""
    num_pairs = change["identity"].num if "identity" in change else 0
    return f" (asked {num_pairs} of its {columns[letter]['identity'].num} answerable probes as A was)"


def evaluate(settings: EvalSettings, ask_judge: AskJudge | None = None) -> Evaluation:
    """Evaluate a model; what a finished evaluation under `out` found is read from there.

    Args:
        settings: `EvalSettings(model="run")` and what else is to be set.
        ask_judge: Asks the judge that the settings name: `nanosft.judging.make_judge(settings)`.

    Raises:
        DataError: Model, knowledge or data are missing or damaged.
        ConfigError: `out` holds an evaluation made with other settings, or one of other models.
    """
    with _open_ranks(settings) as world:
        return _evaluate(settings, world, ask_judge)


def _open_ranks(settings: EvalSettings) -> AbstractContextManager[World]:
    return open_world(settings.device, timeout_s=_RANKS_TIMEOUT_S)


def _evaluate(settings: EvalSettings, world: World, ask_judge: AskJudge | None) -> Evaluation:
    """The order of work. Rank 0 reads, judges and keeps; all ranks run the models."""
    if settings.judge_model and ask_judge is None:
        raise ConfigError("judge_model: give evaluate() what nanosft.judging.make_judge(settings) makes")
    knowledge = read_knowledge(settings.knowledge)
    base_uri, data = find_origin(settings.model)
    base_uri = base_uri if settings.base is None else settings.base
    data = settings.data or data
    if settings.out:
        check_out(settings, base_uri, data)
    inputs = _find_inputs(settings, base_uri, data, world)

    def find() -> tuple[tuple[Parent, ...], Evaluation | None]:
        origins = find_origins(settings, base_uri, inputs, knowledge)
        finished = read_finished(settings, origins) if settings.out else None
        return (() if finished else tuple(origin.to_parent() for origin in origins)), finished

    parents, finished = world.run_on_rank_zero(find)
    if finished is not None:
        return finished
    sandbox = world.run_on_rank_zero(Sandbox.open) if settings.sandbox else None
    tasks = world.run_on_rank_zero(partial(read_tasks, settings.tasks_dir)) if settings.tasks_dir else []
    if not settings.out:
        return _make(settings, world, knowledge, base_uri, inputs, tasks, sandbox, ask_judge)
    with world.enter_on_rank_zero(lambda: writing(settings, parents)) as finished_meanwhile:
        if finished_meanwhile is not None:
            return world.run_on_rank_zero(lambda: read_evaluation(str(settings.out)))
        found = _make(settings, world, knowledge, base_uri, inputs, tasks, sandbox, ask_judge)
        world.run_on_rank_zero(lambda: finish(settings, found, parents))
    return found


def _find_inputs(settings: EvalSettings, base_uri: str | None, data: tuple[str, ...], world: World) -> Inputs:
    """What rank 0 has found; the others learn which models these are."""
    listed: dict[str, list[DataObject]] = {uri: [] for uri in data}

    def find() -> Inputs:
        found = Inputs.find(settings, base_uri, data)
        listed.update(found.data)
        return replace(found, data={})  # a store's connection goes to no other process

    return replace(world.run_on_rank_zero(find), data=listed)


def _make(
    settings: EvalSettings,
    world: World,
    knowledge: Knowledge,
    base_uri: str | None,
    inputs: Inputs,
    tasks: list[Task],
    sandbox: Sandbox | None,
    ask_judge: AskJudge | None,
) -> Evaluation:
    """Run the models on everything, and put the figures together."""
    models = world.run_on_all_ranks(lambda: _load_models(settings, base_uri, inputs, world))
    found = Evaluation({label: _describe_model(checkpoint) for label, checkpoint in models.items()})
    probes, found.counts = world.run_on_rank_zero(lambda: choose_all(settings, knowledge, inputs.data.values()))
    for label, checkpoint in models.items():
        _probe(settings, label, checkpoint, probes, Judge(knowledge), found, world)
    _score_documents(settings, models, inputs.data.values(), found, world)
    for label, checkpoint in models.items():
        score_tasks(
            label,
            checkpoint,
            tasks,
            found,
            max_tokens=settings.task_tokens,
            max_problems=settings.max_problems,
            sandbox=sandbox,
            world=world,
        )
    if ask_judge is not None:
        rows = [row for label in models for row in found.answers_of(label)]
        prompts = [write_judge_prompt(knowledge, *pair) for pair in zip(probes * len(models), rows, strict=True)]
        add_opinions(found, rows, world.run_on_rank_zero(partial(ask_judge, prompts)))
    if len(models) > 1:
        found.add(CHANGE, pair_answers(*(found.answers_of(label) for label in models)))
        found.add(CHANGE, pair_solutions(*(found.solutions_of(label) for label in models)))
    return found


def _load_models(settings: EvalSettings, base_uri: str | None, inputs: Inputs, world: World) -> dict[str, Checkpoint]:
    """The base, where there is one, and the model."""
    device = resolve_device(str(world.device))
    model = read_checkpoint(settings.model, inputs.model, device)
    if not base_uri or inputs.base is None:
        return {"model": model}
    base = read_checkpoint(base_uri, inputs.base, device)
    if base.tokenizer.to_pickle() != model.tokenizer.to_pickle():
        raise ConfigError(f"--base {base_uri}: has another tokenizer than {settings.model}: they cannot be compared")
    return {"base": base, "chat": model}


def _describe_model(checkpoint: Checkpoint) -> dict[str, Any]:
    return {"source": checkpoint.source, "tag": checkpoint.tag, "step": checkpoint.step}


def choose_all(
    settings: EvalSettings, knowledge: Knowledge, data: Collection[Sequence[DataObject]], *, answerable: bool = False
) -> tuple[list[Probe], dict[str, int]]:
    """The probes to ask, and counts of those that are not.

    Args:
        settings: How many, of which personas and seed.
        knowledge: What they are made from.
        data: The objects of the training data, set by set, which leaves out those that it holds.
        answerable: Whether those without an answer in the knowledge base are left out.
    """
    probes = make_probes(knowledge, read_wordings(), read_personas(settings.dimensions), seed=settings.seed)
    if answerable:
        probes = [probe for probe in probes if probe.kind != "unanswerable"]
    asked = read_asked(chain.from_iterable(data)) if data else None
    kept, num_leaked = drop_leaked(probes, asked)
    chosen = choose_probes(kept, settings.num_probes, seed=settings.seed)
    counts = {
        "probes asked": len(chosen),
        "left out because training data has them": num_leaked,
        "more not asked": len(kept) - len(chosen),
        "training conversations looked through": asked.num_conversations if asked else 0,
    }
    if not data:
        _log.warning("no training data is known: give --data, so that probes that stand in it are left out")
    return chosen, counts


def _probe(
    settings: EvalSettings,
    label: str,
    checkpoint: Checkpoint,
    probes: list[Probe],
    judge: Judge,
    found: Evaluation,
    world: World,
) -> None:
    """Ask one model all probes, and some again at a temperature."""
    prompts = [probe.messages for probe in probes]
    answers = answer_all(checkpoint, prompts, max_tokens=settings.max_tokens, label=f"probes: {label}", world=world)
    rows = [_to_row(label, probe, answer, judge) for probe, answer in zip(probes, answers, strict=True)]
    found.answers += rows
    found.add(label, summarize_answers(rows))
    found.add(label, summarize_faults([row["faults"] for row in rows], [row["item"] for row in rows]))
    chosen = choose_probes([probe for probe in probes if probe.kind != "unanswerable"], settings.num_sampled)
    verdicts: list[list[str]] = [[] for _ in chosen]
    for seed in _SAMPLE_SEEDS if chosen else ():
        sampled = answer_all(
            checkpoint,
            [probe.messages for probe in chosen],
            max_tokens=settings.max_tokens,
            sampling=Sampling(_SAMPLE_TEMPERATURE, _SAMPLE_TOP_K, seed=settings.seed + seed),
            label=f"samples: {label}",
            world=world,
        )
        for own, probe, answer in zip(verdicts, chosen, sampled, strict=True):
            own.append(judge.judge(probe, answer.whole_words).verdict)
    found.add(label, measure_stability(verdicts, [probe.item for probe in chosen]))


def _to_row(label: str, probe: Probe, answer: Answer, judge: Judge) -> Row:
    judgement = judge.judge(probe, answer.whole_words)
    return {
        "model": label,
        "probe": probe.id,
        "kind": probe.kind,
        "topic": probe.topic,
        "item": probe.item,
        "manner": probe.manner,
        "messages": [{"role": message.role, "content": message.text} for message in probe.messages],
        "answer": answer.text,
        "verdict": judgement.verdict,
        "reason": judgement.reason,
        "other_name": judgement.other_name,
        "other_maker": judgement.other_maker,
        "ungrounded": list(judgement.ungrounded),
        "num_tokens": answer.num_tokens,
        "faults": find_faults(probe.messages, answer),
    }


def _score_documents(
    settings: EvalSettings,
    models: dict[str, Checkpoint],
    data: Collection[Sequence[DataObject]],
    found: Evaluation,
    world: World,
) -> None:
    """Bits per byte on plain text and on held-out conversations."""
    tokenizer = models[found.label].tokenizer
    row_len = min(checkpoint.context_len for checkpoint in models.values())
    max_rows = settings.num_documents

    def read() -> tuple[list[Document], int]:
        plain, held_out, num_long = list[Document](), list[Document](), 0
        if settings.plain_text:
            plain = read_plain_text(settings.plain_text, tokenizer, row_len=row_len, max_rows=max_rows)
        if data:
            held_out, num_long = read_held_out(data, tokenizer, row_len=row_len, max_rows=max_rows)
        return plain + held_out, num_long

    documents, num_long = world.run_on_rank_zero(read)
    if data:
        found.counts["held-out conversations left out as too long"] = num_long
    scores = score_documents(models, documents, world=world)
    found.documents = [score.to_json() for score in scores]
    found.counts["documents scored"] = len(scores)
    for label, figures in summarize_documents(scores).items():
        found.add(label, figures)
