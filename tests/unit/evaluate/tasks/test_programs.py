"""HumanEval's programs: put together as nanochat does it, and run where they can do no harm."""

import shutil
from pathlib import Path

import pytest

from nanosft.errors import ConfigError
from nanosft.evaluate.tasks import Problem, Sandbox, make_program
from nanosft.evaluate.tasks.programs import _HARMFUL

PROBLEM = Problem(
    "from typing import List\n# a comment\n\nimport math\n\ndef f(x: List[int]):\n    import os\n",
    "f",
    "program",
    test="def check(candidate):\n    assert candidate([3]) == 3",
)
CODE = "def f(x: List[int]):\n    return math.floor(x[0])"


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    """Skips where this machine has no bubblewrap or forbids namespaces: a sandbox that is no sandbox is refused."""
    try:
        return Sandbox.open()
    except ConfigError as exc:
        pytest.skip(str(exc))


@pytest.mark.parametrize("answer", [CODE, f"Here:\n```python\n{CODE}\n```\nand\n```\nno\n```", f"```\n\n{CODE}\n```"])
def test_a_program_is_imports_code_test_and_call(answer: str) -> None:
    assert make_program(PROBLEM, answer) == (
        f"from typing import List\nimport math\n\n{CODE}\n\n"
        "def check(candidate):\n    assert candidate([3]) == 3\ncheck(f)"
    )


def test_without_bubblewrap_the_sandbox_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(ConfigError, match="there is no bwrap on this machine"):
        Sandbox.open()


def test_a_sandbox_that_cannot_be_made_is_refused_with_its_reason() -> None:
    with pytest.raises(ConfigError, match="no sandbox on this machine: nope"):
        Sandbox(("/bin/sh", "-c", "echo nope >&2")).run("pass")


def test_what_runs_to_its_end_passes(sandbox: Sandbox) -> None:
    program = make_program(PROBLEM, CODE)
    libraries = "import collections, hashlib, heapq, itertools, math, random, re\nhashlib.md5(b'x')"
    assert sandbox.run_all([program, program.replace("== 3", "== 4"), libraries, "print('x' * 10**7)"]) == [
        True,
        False,
        True,
        True,
    ]


@pytest.mark.parametrize(
    "program",
    [
        "import sys; sys.exit(0)",
        "import os; os._exit(0)",
        "def (",
        "x = bytearray(400 << 20)",
        "import threading; threading.Thread(target=print).start()",
        "import os; os.execv('/usr/bin/true', ['true'])",
        "import socket; socket.create_connection(('127.0.0.1', 80))",
        "open('/tmp/x', 'w')",
        "open('/etc/passwd')",
        "raise SystemExit if __import__('os').environ.get('HOME') else ValueError",
    ],
)
def test_what_leaves_early_or_reaches_outside_fails(sandbox: Sandbox, program: str) -> None:
    assert not sandbox.run(program)


def test_the_check_of_the_sandbox_fails_where_nothing_isolates(sandbox: Sandbox, tmp_path: Path) -> None:
    """The same program, in a bubblewrap that leaves a directory to be written."""
    tail = sandbox.command.index("--remount-ro")
    (tmp_path / "tmp").mkdir()
    open_one = (*sandbox.command[:tail], "--bind", str(tmp_path / "tmp"), "/tmp", *sandbox.command[tail:])
    assert sandbox.run(_HARMFUL)
    assert not Sandbox(open_one).run(_HARMFUL)


def test_a_loop_ends_at_its_limit_of_computing(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nanosft.evaluate.tasks.programs.CPU_S", 1)
    assert not sandbox.run("while True: pass")
