"""`nanosft demo`: the whole road on a tiny base made on the spot. No key, no server, no GPU.

The base is pretrained on what every Python carries, its language reference and its docstrings, through the project's
own model, loss and optimizer. Then the stages run as the command line runs them. At the end three models answer probes
that no training data holds: the base, the chat model, and a control that was trained as long on the other source alone.
"""

import ast
import pydoc_data.topics
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import torch
from rich.table import Table

from nanosft.chat import Chat
from nanosft.conversation import Conversation, Message, to_list_line
from nanosft.evaluate import EvalSettings, Interval, evaluate
from nanosft.evaluate.report import make_table
from nanosft.generate.stage import run_generate
from nanosft.knowledge import SHIPPED_DEMO, read_knowledge
from nanosft.mix.stage import run_mix
from nanosft.nanochat import (
    GENERATIONS,
    GPT,
    ModelConfig,
    Tokenizer,
    init_model,
    load_checkpoint,
    save_checkpoint,
    save_tokenizer,
    train_tokenizer,
)
from nanosft.progress import Bar, console
from nanosft.report.stage import write_beside
from nanosft.settings.chat import ChatSettings
from nanosft.settings.generate import GenerateSettings
from nanosft.settings.mix import MixSettings
from nanosft.settings.run import DemoSettings
from nanosft.settings.train import TrainSettings
from nanosft.shipped import find_shipped
from nanosft.store import join_uri, open_store
from nanosft.train.batch import batch_from_rows
from nanosft.train.optim import MuonAdamW, OptimizerConfig, group_parameters
from nanosft.train.stage import run_train
from nanosft.train.step import LossModule, train_step

QUESTIONS: Final = ("Who are you?", "Who made you?", "Are you ChatGPT?")
_ROW_LEN: Final = 256
_ROWS_PER_STEP: Final = 16
_FIGURES: Final[tuple[str, ...]] = (
    "identity",
    "identity: wrong",
    "identity: missing",
    "kind name",
    "kind maker",
    "kind fact",
    "kind section",
    "says that it does not know",
    "claims another name",
    "claims another maker",
)
_RECIPE: Final = """\
# What the demo's finetuning set is made of: two sources, and their shares in one line.
seed = {seed}
synthetic_share = {share}

[[sources]]
name = "identity"
uri = "{generated}"
synthetic = true

[[sources]]
name = "python"
uri = "{python}"
"""
_CONTROL_RECIPE: Final = """\
# The same without the synthetic source: what a model learns of itself from that is what it guesses.
seed = {seed}

[[sources]]
name = "python"
uri = "{python}"
"""


def run_demo(settings: DemoSettings) -> None:
    """Make a tiny base, walk generate, mix and train, put questions to base and chat model, and evaluate them.

    A rerun does only what is missing: every stage knows when its output is finished.
    """
    started_s = time.monotonic()
    base, generated, mixture, run = (join_uri(settings.out, name) for name in ("base", "generated", "mixture", "run"))
    knowledge = settings.knowledge or _write_knowledge(settings)

    console.rule("1/6  a tiny base, pretrained on Python's own documentation")
    make_base(
        base,
        knowledge_text=read_knowledge(knowledge).text,
        num_steps=settings.pretrain_steps,
        seed=settings.seed,
    )

    console.rule("2/6  generate: conversations from the knowledge base, composed offline")
    run_generate(
        GenerateSettings(knowledge=knowledge, out=generated, num=settings.num, provider="offline", seed=settings.seed)
    )

    console.rule("3/6  mix: with a second source, questions about the standard library")
    _write_sources(settings, generated=generated)
    run_mix(MixSettings(recipe=join_uri(settings.out, "recipe.toml"), out=mixture))

    console.rule("4/6  train")
    trained = run_train(TrainSettings(base=base, data=mixture, out=run, epochs=settings.epochs, seed=settings.seed))

    console.rule("5/6  the same questions to both")
    console.print(_compare(base, run))

    console.rule("6/6  eval: probes that are not in the training data, and a control without the synthetic source")
    control = _train_control(settings, base, num_steps=trained.step)
    console.print(_evaluate(settings, knowledge, base=base, run=run, control=control))
    minutes, seconds = divmod(round(time.monotonic() - started_s), 60)
    console.print(
        f"\nAll of it took {minutes} min {seconds} s and lies in {settings.out}: knowledge.md base/ generated/ "
        "mixture/ run/ evaluation/ control/.\n"
        "Try next:\n"
        f"  nanosft chat --model {run}\n"
        f"  nanosft describe {run}\n"
        f"  nanosft audit {generated}\n"
        f"  nanosft inspect {mixture}\n"
        "README.md shows the same road with your own base, an OpenRouter key and a bucket.",
        highlight=False,
    )
    if page := write_beside(run, made=run):
        console.print(f"All of it on one page, for a browser: {page}", highlight=False, soft_wrap=True)


def make_base(uri: str, *, knowledge_text: str, num_steps: int, seed: int) -> None:
    """Pretrain a model of some two million parameters and save it in nanochat's layout, unless it is there.

    Args:
        uri: Where it goes.
        knowledge_text: The tokenizer learns its words too; the model does not read it.
        num_steps: Of pretraining.
        seed: Of the weights and of the rows' order.
    """
    tag = "d4"
    if open_store(uri).exists(f"base_checkpoints/{tag}/meta_{num_steps:06d}.json"):
        console.print(f"{uri} is finished: nothing to do")
        return
    texts = list(_documentation())
    tokenizer = train_tokenizer([*texts, knowledge_text], 2048)
    config = ModelConfig(
        sequence_len=_ROW_LEN,
        vocab_size=tokenizer.vocab_size,
        n_layer=4,
        n_head=4,
        n_kv_head=4,
        n_embd=128,
        window_pattern="SL",
    )
    model = init_model(config, GENERATIONS["g5"], seed)
    rows = _cut_rows(texts, tokenizer)
    _pretrain(model, rows, num_steps=num_steps, seed=seed)
    meta = {
        "model_config": config.to_dict(),
        "max_seq_len": _ROW_LEN,
        "device_batch_size": 8,
        "total_batch_size": 8 * _ROW_LEN,
    }
    save_tokenizer(uri, tokenizer)
    save_checkpoint(uri, model, meta, tag=tag, step=num_steps, source="base")


def _pretrain(model: GPT, rows: torch.Tensor, *, num_steps: int, seed: int) -> None:
    """Next-token training on random rows, (num_rows, _ROW_LEN + 1) int64, through the finetuning's own step."""
    module = LossModule(model)
    optimizer = MuonAdamW(group_parameters(model, OptimizerConfig(), width=model.config.n_embd))
    generator = torch.Generator().manual_seed(seed)
    with Bar("pretrain", num_steps) as bar:
        for step in range(num_steps):
            picked = torch.randint(len(rows), (_ROWS_PER_STEP,), generator=generator)
            result = train_step(
                module,
                optimizer,
                [batch_from_rows(rows[picked])],
                num_supervised=_ROWS_PER_STEP * _ROW_LEN,
                lr_scale=min(1.0, (num_steps - step) / num_steps * 1.5),
                momentum=0.95,
            )
            bar.advance(loss=result.loss)


def _documentation() -> Iterator[str]:
    """The language reference, and the docstrings of the standard library's modules."""
    yield from pydoc_data.topics.topics.values()
    for _, _, docstring in _docstrings():
        yield docstring


def _docstrings() -> Iterator[tuple[str, str, str]]:
    """Module, function ("" for the module itself) and docstring, of every public one; nothing is imported."""
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("[a-z]*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in (tree, *tree.body):
            if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef):
                name = getattr(node, "name", "")
                docstring = ast.get_docstring(node)
                if docstring and not name.startswith("_"):
                    yield path.stem, name, docstring


def _cut_rows(texts: list[str], tokenizer: Tokenizer) -> torch.Tensor:
    """All texts one after another, cut to rows: (num_rows, _ROW_LEN + 1) int64."""
    ids: list[int] = []
    for text in texts:
        ids += [tokenizer.bos_id, *tokenizer.encode(text)]
    num_rows = len(ids) // (_ROW_LEN + 1)
    return torch.tensor(ids[: num_rows * (_ROW_LEN + 1)]).view(num_rows, _ROW_LEN + 1)


def _write_knowledge(settings: DemoSettings) -> str:
    """The URI of a copy of the demo's own knowledge base."""
    store = open_store(settings.out)
    store.write("knowledge.md", find_shipped(SHIPPED_DEMO).read_bytes())
    return store.uri_of("knowledge.md")


def _write_sources(settings: DemoSettings, *, generated: str) -> None:
    """The second source, in nanochat's list form, and the recipes."""
    store = open_store(settings.out)
    lines = [to_list_line(conversation) for conversation in _python_questions()]
    written = store.write("python.jsonl", b"".join(lines))
    console.print(f"{written.key}: {len(lines)} conversations about the standard library")
    slots = {
        "seed": settings.seed,
        "share": settings.synthetic_share,
        "generated": generated,
        "python": store.uri_of("python.jsonl"),
    }
    store.write("recipe.toml", _RECIPE.format(**slots).encode())
    store.write("control.toml", _CONTROL_RECIPE.format(**slots).encode())


def _train_control(settings: DemoSettings, base: str, *, num_steps: int) -> str:
    """The URI of a model trained for as many steps on the second source alone."""
    mixture, run = (join_uri(settings.out, name) for name in ("control/mixture", "control/run"))
    run_mix(MixSettings(recipe=join_uri(settings.out, "control.toml"), out=mixture))
    run_train(TrainSettings(base=base, data=mixture, out=run, max_steps=num_steps, seed=settings.seed))
    return run


def _evaluate(settings: DemoSettings, knowledge: str, *, base: str, run: str, control: str) -> Table:
    """Who base, chat model and control say they are, by the same probes, with intervals."""

    def ask(name: str, model: str, base_of_it: str) -> dict[str, dict[str, Interval]]:
        asked = EvalSettings(
            model=model,
            base=base_of_it,
            out=join_uri(settings.out, name),
            knowledge=knowledge,
            data=(join_uri(settings.out, "mixture"),),
            num_probes=settings.num_probes,
            num_sampled=0,
            seed=settings.seed,
        )
        return evaluate(asked).figures

    models = ask("evaluation", run, base)
    columns = {"base": models["base"], "chat": models["chat"]}
    columns["control"] = ask("control/evaluation", control, "")["model"]
    chosen = {
        label: {name: figures[name] for name in _FIGURES if name in figures} for label, figures in columns.items()
    }
    return make_table(chosen, title="Probes that are not in the training data: share of answers")


def _python_questions() -> Iterator[Conversation]:
    """What each public function and class of the standard library does, by its docstring's first paragraph."""
    for module, name, docstring in _docstrings():
        summary = " ".join(docstring.split("\n\n")[0].split())
        if name and summary.endswith(".") and 20 <= len(summary) <= 160 and ">>>" not in summary:  # noqa: PLR2004
            question = f"What does {module}.{name} do?"
            yield Conversation((Message("user", question), Message("assistant", summary)))


def _compare(base: str, run: str) -> Table:
    """The questions, and what base and chat model answer at temperature 0."""
    table = Table("question", "base", "chat", show_lines=True, expand=True)
    answers = []
    for uri in (base, run):
        settings = ChatSettings(model=(uri,), temperature=0, max_tokens=64)
        checkpoint = load_checkpoint(uri)
        answers.append(["".join(Chat(checkpoint, settings).answer(question)).strip() for question in QUESTIONS])
    for row in zip(QUESTIONS, *answers, strict=True):
        table.add_row(*row)
    return table
