"""`nanosft report`: one self-contained HTML page of a run, a data set or an audit, or of runs laid over each other."""

import logging
import os
import time
from pathlib import Path
from typing import Any, Final

from nanosft.conversation import Format
from nanosft.data import read_manifest
from nanosft.errors import ConfigError, NanosftError
from nanosft.progress import make_result_console
from nanosft.report.collect import collect
from nanosft.report.page import render_page
from nanosft.report.pages import make_comparison, make_page
from nanosft.report.preview import make_preview_page
from nanosft.report.record import Record
from nanosft.settings.report import ReportSettings
from nanosft.store import check_writable, find_local_path, open_object, open_store

REPORT_KEY: Final = "report.html"
_PAGE_BEGINS: Final = b"<!doctype html"
_MIB_BESIDE: Final = 4.0
"""Compressed conversations in a page that a command writes by itself."""
_log = logging.getLogger(__name__)


def run_report(settings: ReportSettings) -> None:
    """Write the page, tell where it is, and with `watch` go on until the run is finished.

    Raises:
        DataError: Nothing is there that a page can be made of.
    """
    out = settings.out or f"{_name(settings)}-report.html"
    check_place(out)
    console = make_result_console()
    record = _write(settings, out)
    console.print(out, markup=False, highlight=False, soft_wrap=True)
    while settings.watch and record is not None and record.manifest is None:
        time.sleep(settings.interval_s)
        record = _write(settings, out)


def check_place(out: str) -> None:
    """See, before any work, that a page can be written: nothing else is there, and an object can be put beside it.

    Raises:
        ConfigError: What is there is no page, or a file cannot be written there.
        StoreError: The store refuses.
    """
    _check_no_other(out)
    if (path := find_local_path(out)) is not None and path.is_dir():
        raise ConfigError(f"{out}: is a folder: give the page a name of its own in it")
    check_writable(*open_object(out))


def write_beside(uri: str, *, made: str) -> str | None:
    """Write a model's page beside it, on the first rank; returns the page's URI.

    A failure to draw is a warning and None: no run fails for it.

    Args:
        uri: The model.
        made: What the command has made. Nothing is written where it is not finished.
    """
    if os.environ.get("RANK", "0") != "0":
        return None
    settings = ReportSettings(uris=(uri,), max_data_mib=_MIB_BESIDE)
    try:
        if read_manifest(open_store(made)) is None:
            return None
        store = open_store(uri)
        store.write(REPORT_KEY, render_page(make_page(collect(uri, settings), settings)).encode(errors="replace"))
    except Exception as exc:  # noqa: BLE001 - what is drawn is drawn from what is finished; a defect here costs nothing
        _log.warning("%s: no page was written: %s", uri, exc if isinstance(exc, NanosftError) else repr(exc))
        return None
    _log.info("the page of the run is %s", store.uri_of(REPORT_KEY))
    return store.uri_of(REPORT_KEY)


def write_set_page(out: str, uri: str, *, format: Format = "auto") -> None:  # noqa: A002 - the field's word
    """The page of a set of conversations: `nanosft inspect --html`."""
    settings = ReportSettings(uris=(uri,), format=format)
    _put(out, render_page(make_page(collect(uri, settings), settings)))


def write_audit_page(out: str, uri: str, audit: dict[str, Any], *, format: Format = "auto") -> None:  # noqa: A002
    """The page of an audit: `nanosft audit --html`.

    Args:
        out: The page.
        uri: Where the audit has put its rows, or else the set that it is of.
        audit: What was found, as `audit.json` has it.
        format: The format of the rows.
    """
    settings = ReportSettings(uris=(uri,), format=format)
    record = collect(uri, settings)
    record.subject, record.audit = "audit", audit
    _put(out, render_page(make_page(record, settings)))


def write_preview_page(out: str, uri: str, preview: dict[str, Any]) -> None:
    """The page of a preview: `nanosft generate --preview N --html`.

    Args:
        out: The page.
        uri: The data set that the rows are kept in.
        preview: What `generate` tells of it.
    """
    _put(out, render_page(make_preview_page(uri, preview)))


def _write(settings: ReportSettings, out: str) -> Record | None:
    """Write the page once; the record that it shows, or None of a comparison."""
    if settings.compared:
        records = [collect(uri, settings, with_rows=False) for uri in settings.compared]
        _put(out, render_page(make_comparison(records)))
        return None
    record = collect(settings.uris[0], settings)
    refresh_s = settings.interval_s if settings.watch and record.manifest is None else None
    _put(out, render_page(make_page(record, settings, refresh_s=refresh_s)))
    return record


def _put(out: str, page: str) -> None:
    _check_no_other(out)
    store, key = open_object(out)
    store.write(key, page.encode(errors="replace"))  # a file's name may be no UTF-8


def _check_no_other(out: str) -> None:
    """Refuse to replace what is no page, such as the very data that a page is made of.

    Raises:
        ConfigError: It would.
    """
    store, key = open_object(out)
    info = store.stat(key)
    if info is None or not info.size_bytes:
        return
    if not store.read_range(key, 0, len(_PAGE_BEGINS)).lower().startswith(_PAGE_BEGINS):
        raise ConfigError(f"{out}: is there already and is no page: choose another name for the page")


def _name(settings: ReportSettings) -> str:
    """What the page's file is called: the last word of the URI."""
    if settings.compared:
        return "compare"
    uri = settings.uris[0].rstrip("/")
    return (find_local_path(uri) or Path(uri)).name.replace("*", "_").replace("?", "_") or "data"
