"""What is logged of a client that breaks HTTP: one line. uvicorn takes its own answer to it for a defect of ours."""

import logging
from typing import Final

import h11

_LOGGERS: Final = ("uvicorn.error", "asyncio")


class _ClientFaults(logging.Filter):
    """Turns the traceback of a broken exchange into a warning."""

    def filter(self, record: logging.LogRecord) -> bool:
        exc = record.exc_info[1] if record.exc_info else None
        if isinstance(exc, h11.ProtocolError):
            said = {"msg": "a client broke HTTP: %s", "args": (str(exc),), "exc_info": None}
            record.__dict__.update(said, levelno=logging.WARNING, levelname="WARNING")
        return True


def soften_client_faults() -> None:
    """From now on in this process, a client's fault is a line of the log and no traceback."""
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        if not any(isinstance(item, _ClientFaults) for item in logger.filters):
            logger.addFilter(_ClientFaults())
