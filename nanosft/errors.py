"""Every error nanosft raises on purpose, and the exit code each one ends the process with.

    NanosftError            1   never raised itself
    ├── ConfigError         2   a setting, a recipe or a command line cannot be right
    ├── DataError           3   an object in the store is missing, malformed or unfinished
    ├── CreditError         4   no credit, a bad key, or the budget is reached
    ├── TrainError          5   training cannot go on: a non-finite loss, a lost rank
    ├── ProviderError      75   the chat API fails for reasons that may pass
    └── StoreError         75   the object store fails for reasons that may pass

    any other exception     1   a defect of nanosft
    SIGINT                130   everything flushed
    SIGTERM               143   everything flushed, or the training state saved

75 is EX_TEMPFAIL of sysexits.h: the same command may succeed later. A message says what is wrong,
with which object (`s3://bucket/key:line 17`), and what to do; it is one line and never holds a key.
"""

from typing import ClassVar

EXIT_OK = 0
EXIT_UNEXPECTED = 1
EXIT_RETRY = 138
"""`nanosft launch` exits with it for what is worth a restart: PyTorchJob retries codes of 128 and up only."""
EXIT_SIGINT = 130
EXIT_SIGTERM = 143


class NanosftError(Exception):
    """Any error with a place in the exit-code contract."""

    exit_code: ClassVar[int] = EXIT_UNEXPECTED


class ConfigError(NanosftError):
    """A setting, a recipe or a command line cannot be right."""

    exit_code = 2


class DataError(NanosftError):
    """An object in the store is missing, malformed or unfinished."""

    exit_code = 3


class CreditError(NanosftError):
    """There is no credit, the key is refused, or the budget is reached."""

    exit_code = 4


class TrainError(NanosftError):
    """Training cannot go on."""

    exit_code = 5


class ProviderError(NanosftError):
    """The chat API failed for a reason that may pass."""

    exit_code = 75


class StoreError(NanosftError):
    """The object store failed for a reason that may pass."""

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
