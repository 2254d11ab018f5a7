"""`nanosft wait`: return when a stage's output is finished; so jobs meet in the store and need not know each other.

With `--resume` a suspended job begins then, which held no node while it waited.
"""

import logging
import time
from collections.abc import Callable
from typing import Final

from nanosft.data import DATA_SUFFIXES, FAILURE_KEY, Failure, read_failure
from nanosft.errors import StoreError
from nanosft.kubernetes import resume
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

    A manifest is put last, so its being there is all that has to be known. A stage that ended for good leaves a marker
    instead. One that was there when the wait began may be of an earlier start: the stage that was started together
    with this wait takes it away, and has `failure_grace_s` to do so.

    Args:
        settings: What to wait for, and how long.
        clock: Seconds that only grow.
        sleep: Pauses for so many seconds.

    Raises:
        NanosftError: The stage that makes it has ended for good: its own error.
        StoreError: The time is up (exit code 75: the same command may succeed later).
    """
    _wait_for(settings, clock, sleep)
    if settings.resume:
        resume(settings.resume, queue=settings.queue)
        _log.info("%s %s", settings.resume, "is queued" if settings.queue else "is resumed")


def _wait_for(settings: WaitSettings, clock: Callable[[], float], sleep: Callable[[float], None]) -> None:
    if settings.uri.endswith(DATA_SUFFIXES):
        store, key = open_object(settings.uri)
    else:
        store, key = open_store(settings.uri.removesuffix("/" + MANIFEST_KEY)), MANIFEST_KEY
    uri = store.uri_of(key)
    started_s = clock()
    logged_s = -LOG_INTERVAL_S
    left_over: Failure | None = None
    while True:
        failure, problem = None, "it is not there"
        try:
            if store.exists(key):
                _log.info("%s is there", uri, extra={"fields": {"waited_s": round(clock() - started_s, 1)}})
                return
            failure = read_failure(store) if key == MANIFEST_KEY else None
        except StoreError as exc:
            problem = str(exc)
        waited_s = clock() - started_s
        if logged_s < 0:  # the first look
            left_over = failure
        if failure is not None:
            if failure != left_over or waited_s >= settings.failure_grace_s:
                raise failure.to_error(store.uri_of(FAILURE_KEY))
            problem = f"{failure.command} failed with exit code {failure.exit_code}, and may have been started again"
        left_s = settings.timeout_s - waited_s
        if left_s <= 0:
            raise StoreError(f"{uri}: waited {waited_s:.0f} s: {problem}: see to the stage that makes it")
        if waited_s - logged_s >= LOG_INTERVAL_S:
            logged_s = waited_s
            _log.info("waiting for %s: %s", uri, problem, extra={"fields": {"waited_s": round(waited_s, 1)}})
        sleep(min(settings.interval_s, left_s))
