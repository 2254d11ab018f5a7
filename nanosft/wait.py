"""`nanosft wait`: return when a stage's output is finished; so jobs meet in the store and need not know each other."""

import logging
import time
from collections.abc import Callable
from typing import Final

from nanosft.data import DATA_SUFFIXES
from nanosft.errors import StoreError
from nanosft.manifest import MANIFEST_KEY
from nanosft.settings.run import WaitSettings
from nanosft.store import open_object, open_store

LOG_INTERVAL_S: Final = 60.0
_log = logging.getLogger("nanosft.wait")


def run_wait(
    settings: WaitSettings,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Return once the object is there; a store that does not answer is waited for as well.

    A manifest is put last, so its being there is all that has to be known.

    Args:
        settings: What to wait for, and how long.
        clock: Seconds that only grow.
        sleep: Pauses for so many seconds.

    Raises:
        StoreError: The time is up (exit code 75: the same command may succeed later).
    """
    if settings.uri.endswith(DATA_SUFFIXES):
        store, key = open_object(settings.uri)
    else:
        store, key = open_store(settings.uri.removesuffix("/" + MANIFEST_KEY)), MANIFEST_KEY
    uri = store.uri_of(key)
    started_s = clock()
    logged_s = -LOG_INTERVAL_S
    while True:
        problem = "it is not there"
        try:
            if store.exists(key):
                _log.info("%s is there", uri, extra={"fields": {"waited_s": round(clock() - started_s, 1)}})
                return
        except StoreError as exc:
            problem = str(exc)
        waited_s = clock() - started_s
        left_s = settings.timeout_s - waited_s
        if left_s <= 0:
            raise StoreError(f"{uri}: waited {waited_s:.0f} s: {problem}: see to the stage that makes it")
        if waited_s - logged_s >= LOG_INTERVAL_S:
            logged_s = waited_s
            _log.info("waiting for %s: %s", uri, problem, extra={"fields": {"waited_s": round(waited_s, 1)}})
        sleep(min(settings.interval_s, left_s))
