"""Programs that a model wrote, run where they can do no harm: in bubblewrap, or not at all.

A program sees Python's standard library and nothing else: no network, no file to write, no process to start, nothing
of this machine's files or processes, one address space of `MEMORY_BYTES`, `CPU_S` seconds of computing. Kernel
namespaces do that, a seccomp filter and resource limits on top; a container that forbids namespaces has no sandbox.
"""

import os
import platform
import re
import secrets
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from nanosft.errors import ConfigError
from nanosft.evaluate.tasks.problems import Problem

CPU_S: Final = 5
MEMORY_BYTES: Final = 256 << 20
_WALL_S: Final = 60.0
"""For those that sleep. Computing is limited by CPU time, which other work on the machine does not shorten."""
_STARTED: Final = b"started "
_PYTHON: Final = os.path.realpath(sys.executable)
_FENCE: Final = re.compile(r"```(?:python)?\s*\n(?P<code>.*?)\n```", re.DOTALL)

_RUNNER: Final = """
import os, resource, sys
report, token, cpu_s, memory_bytes = (int(text) for text in sys.argv[1:])
program = sys.stdin.buffer.read().decode()
null = os.open("/dev/null", os.O_WRONLY)
os.dup2(null, 1)
os.dup2(null, 2)
for limit, value in (
    (resource.RLIMIT_AS, memory_bytes), (resource.RLIMIT_CPU, cpu_s), (resource.RLIMIT_FSIZE, 0),
    (resource.RLIMIT_CORE, 0),
):
    resource.setrlimit(limit, (value, value))
os.write(report, b"started ")
exec(compile(program, "<program>", "exec"), {})
os.write(report, str(token).encode())
"""
_HARMFUL: Final = """
import os, socket
def write(path): open(path, "w").close()
for harm, *arguments in (
    (socket.socket,), (os.fork,), (write, "/harm"), (write, "/tmp/harm"), (write, "/dev/harm"),
    (os.listdir, "/proc"), (os.listdir, "/home"), (os.listdir, "/etc"),
):
    try:
        harm(*arguments)
    except OSError:
        continue
    raise SystemExit
"""
"""Ends well where all that it tries is refused."""

# By machine: AUDIT_ARCH, and the numbers of clone, clone3, (fork, vfork,) socket, ptrace, unshare, io_uring_setup.
_FORBIDDEN: Final[dict[str, tuple[int, tuple[int, ...]]]] = {
    "x86_64": (0xC000003E, (56, 435, 57, 58, 41, 101, 272, 425)),
    "aarch64": (0xC00000B7, (220, 435, 198, 117, 97, 425)),
}
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _REFUSE, _KILL = 0x7FFF0000, 0x00050001, 0x80000000
_X32: Final = 0x40000000


def make_program(problem: Problem, answer: str) -> str:
    """What is run for an answer to a HumanEval problem, as nanochat puts it together.

    The imports at the top of the prompt, the first block of code of the answer (or all of it), the test and its call.
    """
    imports = []
    for line in map(str.strip, problem.question.split("\n")):
        if line.startswith(("import ", "from ")):
            imports.append(line)
        elif line and not line.startswith("#"):
            break
    block = _FENCE.search(answer)
    code = (block["code"] if block else answer).strip()
    return "\n".join(imports) + f"\n\n{code}\n\n{problem.test}\ncheck({problem.answer})"


@dataclass(frozen=True, slots=True)
class Sandbox:
    """Runs programs in bubblewrap.

    Attributes:
        command: bubblewrap and its options, up to those of a single run.
    """

    command: tuple[str, ...]

    @classmethod
    def open(cls) -> "Sandbox":
        """The sandbox, after a program in it has tried to do harm in vain.

        Raises:
            ConfigError: There is no bubblewrap, it cannot isolate here, or it does not.
        """
        found = shutil.which("bwrap")
        if found is None:
            raise ConfigError("--sandbox bubblewrap: there is no bwrap on this machine: install the package bubblewrap")
        if platform.system() != "Linux" or platform.machine() not in _FORBIDDEN:
            raise ConfigError(f"--sandbox bubblewrap: not on {platform.system()} {platform.machine()}")
        sandbox = cls((found, *_make_options()))
        if not sandbox.run(_HARMFUL):
            raise ConfigError("--sandbox bubblewrap: does not isolate on this machine: a program in it could do harm")
        return sandbox

    def run_all(self, programs: Sequence[str]) -> list[bool]:
        """Whether each program ran to its end; as many at a time as there are cores."""
        with ThreadPoolExecutor(len(os.sched_getaffinity(0)), thread_name_prefix="nanosft-programs") as threads:
            return list(threads.map(self.run, programs))

    def run(self, program: str) -> bool:
        """Whether a program ran to its end, without an exception and within its limits.

        Raises:
            ConfigError: The sandbox could not be made, for instance because namespaces are forbidden here.
        """
        token = str(secrets.randbits(64))
        reader, writer = os.pipe()
        try:
            with tempfile.TemporaryFile() as rules:
                rules.write(_make_filter(platform.machine()))
                rules.seek(0)
                runner = ("-c", _RUNNER, str(writer), token, str(CPU_S), str(MEMORY_BYTES))
                process = subprocess.Popen(  # noqa: S603 - isolating what is untrusted is what this is for
                    (*self.command, "--seccomp", str(rules.fileno()), "--", _PYTHON, "-I", "-S", *runner),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    pass_fds=(rules.fileno(), writer),
                )
            os.close(writer)
            writer = -1
            try:
                _, complaint = process.communicate(program.encode(errors="replace"), timeout=_WALL_S)
            except subprocess.TimeoutExpired:
                process.kill()
                _, complaint = process.communicate()
            os.set_blocking(reader, False)
            said = os.read(reader, 64)
        finally:
            for end in (reader, writer):
                if end >= 0:
                    os.close(end)
        if not said.startswith(_STARTED):
            reason = complaint.decode(errors="replace").strip().rpartition("\n")[2][:200] or "it did not start in time"
            raise ConfigError(f"--sandbox bubblewrap: no sandbox on this machine: {reason}")
        return said == _STARTED + token.encode()


def _make_options() -> tuple[str, ...]:
    """Everything unshared, and of the file system Python alone, for reading."""
    options = [
        "--unshare-all",
        "--unshare-user",
        "--disable-userns",
        "--die-with-parent",
        "--new-session",
        "--clearenv",
    ]
    options += ["--uid", "65534", "--gid", "65534", "--cap-drop", "ALL", "--hostname", "sandbox"]
    for path in ("/usr", "/lib", "/lib64"):
        options += ["--ro-bind-try", path, path]
    if not sys.base_prefix.startswith("/usr"):
        options += ["--ro-bind", sys.base_prefix, sys.base_prefix]
    return (*options, "--dev-bind", "/dev/null", "/dev/null", "--remount-ro", "/", "--chdir", "/")


def _make_filter(machine: str) -> bytes:
    """A seccomp program, in classic BPF, that refuses new processes, sockets and namespaces (EPERM).

    Source:
        linux/filter.h and linux/seccomp.h; the calls' numbers from asm/unistd.h.
    """
    architecture, calls = _FORBIDDEN[machine]
    rules = [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, architecture), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, 0)]
    if machine == "x86_64":
        rules += [(_AT_LEAST, 0, 1, _X32), (_RETURN, 0, 0, _REFUSE)]
    for call in calls:
        rules += [(_EQUAL, 0, 1, call), (_RETURN, 0, 0, _REFUSE)]
    return b"".join(struct.pack("=HBBI", *rule) for rule in (*rules, (_RETURN, 0, 0, _ALLOW)))
