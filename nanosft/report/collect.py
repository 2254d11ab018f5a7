"""What lies under a URI, read into one plain record: manifests, metrics, states, evaluation, rows.

Everything that is missing is left empty, and what cannot be read becomes a line of `problems`: a page of an unfinished
or damaged run shows what is there.
"""

import re
from typing import Any, Final

import orjson

from nanosft.data import read_manifest
from nanosft.errors import DataError, NanosftError
from nanosft.knowledge import SHIPPED, Knowledge, read_knowledge
from nanosft.lineage import find_evaluation, read_lineage, trace_parents
from nanosft.manifest import MANIFEST_KEY, Manifest, parse_manifest
from nanosft.nanochat.layout import DIRECTORIES, find_checkpoint
from nanosft.nanochat.meta_file import look_up_row_len, read_meta
from nanosft.nanochat.tokenizer import Tokenizer, load_tokenizer
from nanosft.report.record import Evaluation, Record, State
from nanosft.report.rows import Sample, SetFigures, find_stated, read_rejects, read_set
from nanosft.settings.report import ReportSettings
from nanosft.store import MissingObjectError, Store, open_store

METRICS_KEY: Final = "metrics.jsonl"
_FINAL_METRICS: Final = re.compile(r"metrics-[0-9a-f]{8}\.jsonl")
"""What a finished run's manifest names; the other is written over by whatever process still goes on."""
_STATES: Final = "state/"
_STATE_NAME: Final = re.compile(r"step_(\d+)-(\w+)")
_SCORES_KEY: Final = "scores.json"
_ANSWERS_KEY: Final = "answers.jsonl"
_AUDIT_KEY: Final = "audit.json"
_MODEL_NAMES: Final = frozenset(DIRECTORIES.values())
_RAW_PER_COMPRESSED: Final = 8
"""Bytes of rows that are kept for each byte that they may have compressed."""


def collect(uri: str, settings: ReportSettings, *, with_rows: bool = True) -> Record:
    """Read what lies under a URI.

    Args:
        uri: A run, a data set, an audit, or an evaluation, which stands for its model.
        settings: How many rows the page may hold, the seed, the tokenizer.
        with_rows: Whether conversations are read at all.

    Raises:
        DataError: Nothing is there that a page can be made of.
    """
    if "*" in uri or "?" in uri:
        return _collect_data(Record(uri, "data", uri), settings, with_rows=with_rows)
    store = open_store(uri)
    manifest = read_manifest(store)
    if manifest is not None and manifest.kind == "evaluation":
        return _collect_evaluated(uri, manifest, settings, with_rows=with_rows)
    record = Record(uri, "data", store.uri.rpartition("/")[2] or uri, manifest=manifest)
    if manifest is not None:
        record.lineage = read_lineage(uri)
    record.states = _read_states(store, record)
    is_model = manifest is not None and manifest.kind == "model"
    if (
        is_model
        or record.states
        or _MODEL_NAMES.intersection(store.list_directory().names)
        or store.exists(METRICS_KEY)
    ):
        record.subject = "run"
        return _collect_run(record, store, settings, with_rows=with_rows)
    if manifest is None and (content := _read(store, _AUDIT_KEY)) is not None:
        record.subject = "audit"
        record.audit = _parse_object(content, store.uri_of(_AUDIT_KEY), record)
    return _collect_data(record, settings, with_rows=with_rows)


def _collect_evaluated(uri: str, manifest: Manifest, settings: ReportSettings, *, with_rows: bool) -> Record:
    """The page of the model that an evaluation is of, with that evaluation."""
    model = str(manifest.settings.get("model"))
    record = collect(model, settings, with_rows=with_rows)
    record.evaluation = _read_evaluation(uri, record)
    return record


def _collect_run(record: Record, store: Store, settings: ReportSettings, *, with_rows: bool) -> Record:
    if record.lineage is None and (whole := [state for state in record.states if state.manifest is not None]):
        manifest = whole[-1].manifest
        assert manifest is not None
        record.lineage = trace_parents(store.uri, manifest)
    named = record.manifest.objects if record.manifest is not None else ()
    key = next((item.key for item in named if _FINAL_METRICS.fullmatch(item.key)), METRICS_KEY)
    info = store.stat(key)
    record.metrics_s = info.modified_s if info is not None else None
    record.metrics = _read_lines(store, key, record)
    if (note := find_evaluation(record.uri)) is not None:
        record.evaluation = _read_evaluation(note["uri"], record)
    if not with_rows:
        return record
    sample = _make_sample(settings)
    data = {str(uri): name == "val_data" for name in ("val_data", "data") if (uri := record.settings.get(name))}
    record.sets = [
        _read_set_of_run(uri, _manifest_of(record, uri), sample, held_out=held_out)
        for uri, held_out in sorted(data.items(), key=lambda item: item[1])
    ]
    known = {_locate(uri) for uri in data}
    for ancestor in record.ancestors():
        kind = ancestor.manifest.kind if ancestor.manifest is not None else ""
        place = _locate(ancestor.uri)
        if kind == "generated" and place not in known:
            known.add(place)
            record.sets.append(_read_set_of_run(ancestor.uri, ancestor.manifest, None))
            read_rejects(ancestor.uri, record.sets[-1], sample)
    return _finish(record, settings, sample)


def _read_set_of_run(
    uri: str, manifest: Manifest | None, sample: Sample | None, *, held_out: bool = False
) -> SetFigures:
    """A set that a run was made from; that its place is gone, or not this reader's to read, is told in the page."""
    try:
        return read_set(uri, manifest, sample, held_out=held_out)
    except NanosftError as exc:
        found = SetFigures(uri, manifest)
        found.fail(exc)
        return found


def _locate(uri: str) -> str:
    """One URI for all that name a place; the text itself where it names none."""
    try:
        return open_store(uri).uri
    except NanosftError:
        return uri


def _collect_data(record: Record, settings: ReportSettings, *, with_rows: bool) -> Record:
    if with_rows:
        sample = _make_sample(settings)
        found = read_set(record.uri, record.manifest, sample, settings.format)
        record.sets = [found]
        read_rejects(record.uri, found, sample)
        for ancestor in record.ancestors():
            is_made = ancestor.manifest is not None and ancestor.manifest.kind == "generated"
            if is_made and ancestor is not record.lineage:
                read_rejects(ancestor.uri, found, sample)
        if not sample.num_seen:
            raise DataError(found.errors[0] if found.errors else f"{record.uri}: no conversations are here")
        _finish(record, settings, sample)
    return record


def _finish(record: Record, settings: ReportSettings, sample: Sample) -> Record:
    """The rows for the browser, and what could not be read, each problem once."""
    sample.fit(int(settings.max_data_mib * (1 << 20)))
    record.rows, record.num_rows_seen = sample.rows(), sample.num_seen
    record.problems += [problem for found in record.sets for problem in found.errors]
    record.problems = list(dict.fromkeys(record.problems))
    made = [found for found in record.sets if found.manifest is not None and found.manifest.kind == "generated"]
    if made and (knowledge := _find_knowledge(record)) is not None:
        record.num_fact_rows = len(made[-1].texts)
        record.stated = find_stated(knowledge, made[-1].texts)
    record.tokenizer_uri = settings.tokenizer or str(record.settings.get("base") or "")
    return record


def _make_sample(settings: ReportSettings) -> Sample:
    return Sample(int(settings.max_data_mib * (1 << 20) * _RAW_PER_COMPRESSED), settings.seed)


def _find_knowledge(record: Record) -> Knowledge | None:
    """The knowledge base that the conversations were made from; None where it is none that can be read now."""
    for ancestor in record.ancestors():
        manifest = ancestor.manifest
        for parent in manifest.parents if manifest is not None and manifest.kind == "generated" else ():
            try:
                knowledge = read_knowledge(None if parent.uri == SHIPPED else parent.uri)
            except NanosftError:
                continue
            if knowledge.sha256 == parent.sha256:
                return knowledge
    return None


def find_tokenizer(record: Record) -> Tokenizer | None:
    """The tokenizer of the run's base, or that of the run itself; None where neither can be read."""
    for uri in (record.tokenizer_uri, record.uri if record.subject == "run" else ""):
        if uri:
            try:
                return load_tokenizer(uri)
            except NanosftError as exc:
                record.problems.append(f"no tokens are shown: {exc}")
    return None


def find_row_len(record: Record, settings: ReportSettings) -> int | None:
    """Tokens of a packed row: as asked for, or as the run has it, or its base; None where nobody says."""
    given = settings.max_seq_len or record.settings.get("max_seq_len")
    try:
        store = open_store(record.tokenizer_uri)
        ref = find_checkpoint(store)
        return look_up_row_len(read_meta(store, ref), given, where=store.uri_of(ref.meta_key))
    except NanosftError:  # a tokenizer alone has no meta file
        return given if isinstance(given, int) and given >= 1 else None


def _manifest_of(record: Record, uri: str) -> Manifest | None:
    wanted = _locate(uri)
    for ancestor in record.ancestors():
        if ancestor.manifest is not None and _locate(ancestor.uri) == wanted:
            return ancestor.manifest
    return None


def _read_states(store: Store, record: Record) -> list[State]:
    states = []
    for info in store.list(_STATES):
        directory, _, name = info.key.removeprefix(_STATES).rpartition("/")
        match = _STATE_NAME.fullmatch(directory)
        if name != MANIFEST_KEY or match is None:
            continue
        try:
            manifest = parse_manifest(store.read(info.key), where=store.uri_of(info.key))
        except NanosftError as exc:
            record.problems.append(str(exc))
            manifest = None
        states.append(State(int(match[1]), match[2], info.modified_s, manifest))
    return sorted(states, key=lambda state: state.step)


def _read_evaluation(uri: str, record: Record) -> Evaluation | None:
    try:
        store = open_store(uri)
        scores = _parse_object(store.read(_SCORES_KEY), store.uri_of(_SCORES_KEY), record)
        return Evaluation(store.uri, scores, _read_lines(store, _ANSWERS_KEY, record), read_manifest(store))
    except NanosftError as exc:
        record.problems.append(str(exc))
        return None


def _read(store: Store, key: str) -> bytes | None:
    try:
        return store.read(key)
    except MissingObjectError:
        return None


def _read_lines(store: Store, key: str, record: Record) -> list[dict[str, Any]]:
    lines = []
    for number, line in enumerate((_read(store, key) or b"").splitlines(), 1):
        try:
            value = orjson.loads(line)
        except orjson.JSONDecodeError as exc:
            record.problems.append(f"{store.uri_of(key)}:line {number}: {exc}")
            continue
        if isinstance(value, dict):
            lines.append(value)
    return lines


def _parse_object(content: bytes, where: str, record: Record) -> dict[str, Any]:
    try:
        value = orjson.loads(content)
    except orjson.JSONDecodeError as exc:
        record.problems.append(f"{where}: {exc}")
        return {}
    return value if isinstance(value, dict) else {}
