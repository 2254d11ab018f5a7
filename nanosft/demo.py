"""`nanosft demo`: the whole road on a tiny base made on the spot. No key, no server, no GPU.

The base is pretrained on what every Python carries, its language reference and its docstrings, and on the knowledge
base, through the project's own model, loss and optimizer. Then the stages run as the command line runs them.
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
from nanosft.generate.stage import run_generate
from nanosft.knowledge import read_knowledge
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
from nanosft.store import join_uri, open_store
from nanosft.train.batch import batch_from_rows
from nanosft.train.optim import MuonAdamW, OptimizerConfig, group_parameters
from nanosft.train.stage import run_train
from nanosft.train.step import LossModule, train_step

QUESTIONS: Final = ("Who are you?", "Who made you?", "Are you ChatGPT?")
_ROW_LEN: Final = 256
_ROWS_PER_STEP: Final = 16
_RECIPE: Final = """\
# What the demo's finetuning set is made of: two sources, and their shares in one line.
seed = {seed}
synthetic_share = 0.5

[[sources]]
name = "identity"
uri = "{generated}"
synthetic = true

[[sources]]
name = "python"
uri = "{python}"
"""


def run_demo(settings: DemoSettings) -> None:
    """Make a tiny base, walk generate, mix and train, and put three questions to base and chat model.

    A rerun does only what is missing: every stage knows when its output is finished.
    """
    started_s = time.monotonic()
    base, generated, mixture, run = (join_uri(settings.out, name) for name in ("base", "generated", "mixture", "run"))

    console.rule("1/5  a tiny base, pretrained on Python's own documentation")
    make_base(
        base,
        knowledge_text=read_knowledge(settings.knowledge).text,
        num_steps=settings.pretrain_steps,
        seed=settings.seed,
    )

    console.rule("2/5  generate: conversations from the knowledge base, composed offline")
    run_generate(
        GenerateSettings(
            knowledge=settings.knowledge, out=generated, num=settings.num, provider="offline", seed=settings.seed
        )
    )

    console.rule("3/5  mix: with a second source, questions about the standard library")
    _write_sources(settings, generated=generated)
    run_mix(MixSettings(recipe=join_uri(settings.out, "recipe.toml"), out=mixture))

    console.rule("4/5  train")
    run_train(TrainSettings(base=base, data=mixture, out=run, epochs=settings.epochs, seed=settings.seed))

    console.rule("5/5  the same questions to both")
    console.print(_compare(base, run))
    minutes, seconds = divmod(round(time.monotonic() - started_s), 60)
    console.print(
        f"\nAll of it took {minutes} min {seconds} s and lies in {settings.out}: base/ generated/ mixture/ run/.\n"
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
    """Pretrain a model of some two million parameters and save it in nanochat's layout, unless it is there."""
    tag = "d4"
    if open_store(uri).exists(f"base_checkpoints/{tag}/meta_{num_steps:06d}.json"):
        console.print(f"{uri} is finished: nothing to do")
        return
    texts = [*_documentation(), knowledge_text]
    tokenizer = train_tokenizer(texts, 2048)
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


def _write_sources(settings: DemoSettings, *, generated: str) -> None:
    """The second source, in nanochat's list form, and the recipe."""
    store = open_store(settings.out)
    lines = [to_list_line(conversation) for conversation in _python_questions()]
    written = store.write("python.jsonl", b"".join(lines))
    console.print(f"{written.key}: {len(lines)} conversations about the standard library")
    recipe = _RECIPE.format(seed=settings.seed, generated=generated, python=store.uri_of("python.jsonl"))
    store.write("recipe.toml", recipe.encode())


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
