"""README.md and docs/: every command runs on a tiny base, every option is one of the CLI, every link leads somewhere.

A block of `sh` or `python` is run, block after block and file after file, in one directory that stands for the
reader's. One whose first line says `needs=…` is not run: its command lines are parsed. `nanosft` runs in this process,
which spares each command its imports; variables make rows, steps and answers few.
"""

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer

from nanosft.cli import app, main
from tests.unit.train.make import GOLDEN

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *(ROOT / "docs" / f"{name}.md" for name in ("assistant", "python", "cluster", "cost"))]
LINKED = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("k8s/*.md"), *ROOT.glob("infra/*.md")]
FEW = {
    "NANOSFT_NUM": "40",
    "NANOSFT_MAX_STEPS": "2",
    "NANOSFT_EVAL_ROWS": "2",
    "NANOSFT_SAMPLE_TOKENS": "2",
    "NANOSFT_NUM_PROBES": "4",
    "NANOSFT_NUM_SAMPLED": "0",
    "NANOSFT_NUM_DOCUMENTS": "2",
    "NANOSFT_MAX_TOKENS": "16",
    "NANOSFT_DTYPE": "float32",
    "NANOSFT_WORKERS": "1",
    "NANOSFT_NUM_WORKERS": "1",
    "NANOSFT_RANKS": "0",
    "AWS_MAX_ATTEMPTS": "1",
}
_BLOCK = re.compile(r"^```(sh|python)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A block of code: where it stands, its language, what it needs (nothing: it is run), its text."""

    where: str
    language: str
    needs: str
    text: str


def find_blocks(path: Path) -> Iterator[Block]:
    content = path.read_text(encoding="utf-8")
    for match in _BLOCK.finditer(content):
        line = content.count("\n", 0, match.start()) + 1
        yield Block(f"{path.relative_to(ROOT)}:{line}", match[1], match[2].strip(), match[3])


def split_statements(text: str) -> list[str]:
    """Command lines of nanosft, each whole, and what stands between them for the shell."""
    statements: list[str] = []
    shell: list[str] = []
    lines = iter(text.replace("\\\n", " ").splitlines())
    for line in lines:
        if line.startswith("nanosft "):
            statements += ["\n".join(shell), line]
            shell = []
        else:
            shell.append(line)
            if here := re.search(r"<<'(\w+)'", line):
                shell += iter(lines.__next__, here[1])
                shell.append(here[1])
    return [item for item in [*statements, "\n".join(shell)] if item.strip()]


def run_nanosft(line: str, monkeypatch: pytest.MonkeyPatch) -> int:
    words = [os.path.expanduser(word) for word in shlex.split(line, comments=True)]  # noqa: PTH111 - as the shell does
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as ended:
        main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory as a reader's checkout is, with a nanochat base at home and a set of chats."""
    shutil.copytree(GOLDEN / "g5", tmp_path / ".cache/nanochat")
    for name in ("knowledge", "README.md", "k8s"):
        (tmp_path / name).symlink_to(ROOT / name)
    messages = [
        [
            {"role": "user", "content": f"How far is it to the {number}th mill?"},
            {"role": "assistant", "content": f"It is {number} miles up the river."},
        ]
        for number in range(80)
    ]
    (tmp_path / "mine/chats/data").mkdir(parents=True)
    pq.write_table(pa.table({"messages": messages}), tmp_path / "mine/chats/data/train-00000-of-00001.parquet")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("OPENROUTER_API_KEY", raising=False)
    for name, value in FEW.items():
        monkeypatch.setenv(name, value)
    return tmp_path


@pytest.mark.usefixtures("reader")
def test_every_block_that_needs_nothing_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    num_run = 0
    names: dict[str, Any] = {}  # of Python, from block to block
    for block in [block for path in DOCUMENTS for block in find_blocks(path) if not block.needs]:
        if block.language == "python":
            exec(compile(block.text, block.where, "exec"), names)
            continue
        for statement in split_statements(block.text):
            if statement.startswith("nanosft "):
                code = run_nanosft(statement, monkeypatch)
                num_run += 1
            else:
                code = subprocess.run(["bash", "-euc", statement], check=False).returncode
            assert code == 0, f"{block.where}: {statement}: exit code {code}: {capsys.readouterr().err[-2000:]}"
    assert num_run >= 20


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.stem)
def test_command_lines_that_are_not_run_are_ones_of_the_cli(path: Path) -> None:
    lines = [line for block in find_blocks(path) if block.needs for line in split_statements(block.text)]
    for line in lines:
        if line.startswith("nanosft "):
            words = shlex.split(line, comments=True)
            parse(typer.main.get_command(app), words[1 : words.index("<") if "<" in words else None])


def parse(command: Any, words: list[str]) -> None:
    """Parse as the CLI does; the ranks' own command line after launch too."""
    name, *rest = words
    command = command.commands[name]
    if getattr(command, "commands", None) and rest and rest[0] in command.commands:
        parse(command, rest)
        return
    with contextlib.suppress(typer.Exit):
        context = command.make_context(name, rest)
        if ranks := context.params.get("arguments"):
            parse(typer.main.get_command(app), list(ranks))


def test_what_a_block_needs_is_one_of_few_things() -> None:
    needs = {block.needs for path in DOCUMENTS for block in find_blocks(path)}
    assert needs <= {
        "",
        *(f"needs={name}" for name in ("network", "key", "bucket", "gpu", "cluster", "server", "make")),
    }


@pytest.mark.parametrize("path", LINKED, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    for target in _LINK.findall(_BLOCK.sub("", path.read_text(encoding="utf-8"))):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        found = (path.parent / name).resolve() if name else path
        assert found.exists(), f"{path.name}: {target}"
        assert not anchor or anchor in find_anchors(found), f"{path.name}: {target}"


def find_anchors(path: Path) -> set[str]:
    """The headings, as GitHub names them, and what a table's or list's bold beginning is called by."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_the_readme_stays_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 120
