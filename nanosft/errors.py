"""Every error nanosft raises on purpose, and the exit code each one ends the process with.

    NanosftError            1   never raised itself
    ├── ConfigError         2   a setting, a recipe or a command line cannot be right
    ├── DataError           3   an object in the store is missing, malformed or unfinished
    ├── CreditError         4   no credit, a bad key, or the budget is reached
    ├── TrainError          5   training cannot go on: a non-finite loss, a lost rank
    ├── ProviderError      75   the chat API fails for reasons that may pass
    ├── StoreError         75   the object store fails for reasons that may pass
    └── BatchesPendingError 75  batches are with the provider, and --no-wait leaves them there

    any other exception     1   a defect of nanosft
    SIGINT                130   everything flushed
    SIGTERM               143   everything flushed, or the training state saved

75 is EX_TEMPFAIL of sysexits.h: the same command may succeed later. A message says what is wrong,
with which object (`s3://bucket/key:line 17`), and what to do; it is one line and never holds a key. A class's docstring
is its cause, then its remedy: docs/troubleshooting.md is made of them and of the messages.
"""

from typing import ClassVar, Final


def clip(text: str, max_chars: int) -> str:
    """The text, its middle left out where it is longer than `max_chars`."""
    if len(text) <= max_chars:
        return text
    head = max_chars // 2
    return f"{text[:head]}…{text[head + 1 - max_chars :]}"


EXIT_OK = 0
EXIT_UNEXPECTED = 1
EXIT_RETRY = 138
"""`nanosft launch` exits with it for what is worth a restart: PyTorchJob retries codes of 128 and up only."""
EXIT_SIGINT = 130
EXIT_SIGTERM = 143


_MAX_MESSAGE_CHARS: Final = 4000


class NanosftError(Exception):
    """Any error with a place in the exit-code contract; of its message at most 4,000 characters are kept.

    Args:
        message: It may quote what somebody else wrote.
    """

    exit_code: ClassVar[int] = EXIT_UNEXPECTED

    def __init__(self, message: str = "") -> None:
        super().__init__(clip(message, _MAX_MESSAGE_CHARS))


class ConfigError(NanosftError):
    """A setting, a recipe or a command line cannot be right.

    Correct what the message names: an option, its variable NANOSFT_…, a key of the recipe or of --config, or a
    credential. The same command fails again until then, and nothing has been written.
    """

    exit_code = 2


class DataError(NanosftError):
    """An object in the store is missing, malformed or unfinished.

    The message names the object, and the line. Make it again with the command that makes it, mend the line, or leave
    such lines out where the command has an option for that. `nanosft describe` tells what a set was made from.
    """

    exit_code = 3


class CreditError(NanosftError):
    """There is no credit, the key is refused, or the budget is reached.

    Check the key and what is left on it with `nanosft doctor`; raise --budget-usd, or the key's limit. What was paid
    for is kept: the same command then asks for the missing rows alone.
    """

    exit_code = 4


class TrainError(NanosftError):
    """Training cannot go on.

    A loss that is not finite: lower the learning rates, or look at the data with `nanosft audit`. States saved before
    it are kept.
    """

    exit_code = 5


class ProviderError(NanosftError):
    """The chat API failed for a reason that may pass.

    Start the same command again later: what was paid for is kept. Where it goes on, `nanosft doctor` tells whether
    endpoint, key and model are there; --concurrency and --requests-per-minute ask less at once.
    """

    exit_code = 75


class BatchesPendingError(NanosftError):
    """Batches are with the provider, and --no-wait does not wait for them.

    Nothing is wrong: all is recorded. Start the same command again later, as often as it takes: it finds its batches,
    takes the results of those that have ended, and sends what was refused once more.
    """

    exit_code = 75


class StoreError(NanosftError):
    """The object store failed for a reason that may pass.

    Start the same command again later: it goes on from what it has saved. Where it stays so, `nanosft doctor --out URI`
    tells which of connection, credentials, clock and rights it is.
    """

    exit_code = 75


class Interrupted(NanosftError):  # noqa: N818 - a request to stop, not an error
    """A signal asked the process to stop, and everything is flushed or saved.

    Args:
        signum: The signal's number, for instance `signal.SIGTERM`.
        outcome: What became of the work.
    """

    def __init__(self, signum: int, outcome: str = "everything is saved: the same command goes on from here") -> None:
        super().__init__(f"stopped by signal {signum}; {outcome}")
        self.signum, self.outcome = signum, outcome

    def __reduce__(self) -> tuple[type["Interrupted"], tuple[int, str]]:
        """How it goes from one rank to the others: made of its parts again, not of the message."""
        return type(self), (self.signum, self.outcome)


class Terminated(SystemExit):
    """SIGTERM on its way up to whoever says what became of the work: `except Exception` lets it pass.

    Args:
        signum: The signal's number.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(128 + signum)
        self.signum = signum

    def __reduce__(self) -> tuple[type["Terminated"], tuple[int]]:
        """How it goes from one rank to the others."""
        return type(self), (self.signum,)
