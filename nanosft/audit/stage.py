"""`nanosft audit`: every quality gate over a set that is there already, whoever made it.

Two passes: the first reads up to 2,000 rows to learn what the set is like (the name its assistant claims, whether its
answers end on a stop), the second puts each row through the gates. Clean rows go to `<out>/clean/`, refused ones, with
their defects in `meta.defects`, to `<out>/refused/`, where lines that are no conversation stand to `<out>/unreadable/`,
and all that is printed to `<out>/audit.json`. With a judge, what the gates accept is scored, a chunk of rows at a time.
"""

import re
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Any, Final

import orjson

from nanosft.audit.judge import CHUNK_ROWS, AskScores, Judgements
from nanosft.audit.report import Audit, print_audit
from nanosft.audit.sinks import Sinks
from nanosft.conversation import Conversation, parse_line
from nanosft.data import (
    DataObject,
    Origin,
    OutputPrefix,
    check_same_origins,
    find_origins_of_data,
    iter_lines,
    list_data_objects,
    pin_objects,
)
from nanosft.dedup import NearDuplicateIndex, normalize_text
from nanosft.errors import ConfigError, DataError
from nanosft.knowledge import read_knowledge
from nanosft.manifest import Manifest, Parent, sort_objects
from nanosft.nanochat.tokenizer import load_tokenizer
from nanosft.progress import Bar, write_json
from nanosft.quality.completeness import infer_full_stops
from nanosft.quality.gates import Context, check, make_gates
from nanosft.quality.grounding import Reference, make_identity_reference, make_reference
from nanosft.quality.identity import Identity, infer_identity
from nanosft.quality.prose import read_prose
from nanosft.quality.verdict import Defect, Verdict
from nanosft.settings.audit import AuditSettings
from nanosft.signals import raising
from nanosft.store import MissingObjectError, join_uri, open_store

_REPORT_KEY: Final = "audit.json"
_PROFILE_ROWS: Final = 2000
_ROWS_KEY: Final = re.compile(r"rows-[0-9]{5,}\.jsonl")


def run_audit(settings: AuditSettings, ask_scores: AskScores | None = None) -> Audit:
    """Audit a set, print what was found, and write clean and refused rows apart where an `out` is set.

    Args:
        settings: What to look at.
        ask_scores: Asks the judge that the settings name: `nanosft.judging.make_scorer(settings)`.

    Raises:
        DataError: Nothing is there, or an object is not what its manifest says.
        ConfigError: `out` holds an audit with other settings.
        CreditError: The judge's budget is reached; what it said is put.
        ProviderError: The judge does not answer; what it said is put.
        Interrupted: SIGTERM came; nothing half-written is left to be read as whole.
    """
    if settings.judge_model is not None and ask_scores is None:
        raise ConfigError("judge_model: give run_audit() what nanosft.judging.make_scorer(settings) opens")
    objects = list_data_objects(settings.uri)
    parents: tuple[Parent, ...] = ()
    found = _read_finished(settings, objects) if settings.out else None
    if found is None:
        if settings.out:
            objects = pin_objects(objects)  # read twice from here on
            parents = tuple(origin.to_parent() for origin in _find_origins(settings, objects))
        told = "nothing is written that could be read as whole: the same command begins anew"
        if settings.out and settings.judge_model is not None:
            told += ", and pays for no score again"
        with raising(told):
            audit = _audit_into_prefix if settings.out else _audit
            found = audit(settings, objects, parents, ask_scores)
    if settings.json_output:
        write_json(found.to_json(), indent=True)
    else:
        print_audit(found)
    return found


def check_refused_share(settings: AuditSettings, found: Audit) -> None:
    """Fail where more rows are refused than is set.

    Raises:
        DataError: More than `max_refused_share` of the rows.
    """
    num_bad = found.num_refused + found.num_unreadable
    limit = settings.max_refused_share
    if limit is not None and num_bad > limit * found.num_rows:
        raise DataError(f"{settings.uri}: {num_bad} of {found.num_rows} rows are refused, more than {limit:.2%}")


def _audit_into_prefix(
    settings: AuditSettings, objects: list[DataObject], parents: tuple[Parent, ...], ask_scores: AskScores | None
) -> Audit:
    prefixes = [_prefix(settings, part) for part in ("refused", "clean")]
    for prefix in prefixes:
        prefix.check_apart(item.uri for item in objects)
    _check_own_report(settings)
    with prefixes[0].writing(parents), prefixes[1].writing(parents) as finished:
        found = _read_finished(settings, objects) if finished is not None else None
        return found or _audit(settings, objects, parents, ask_scores)


def _check_own_report(settings: AuditSettings) -> None:
    """Refuse to replace an `audit.json` that no audit has written, such as lies beside somebody's data.

    Raises:
        ConfigError: There is one.
    """
    store = open_store(settings.out or "")
    where = store.uri_of(_REPORT_KEY)
    try:
        Audit.parse(store.read(_REPORT_KEY), max_examples=0, where=where)
    except MissingObjectError:
        pass
    except DataError as exc:
        raise ConfigError(f"{where}: is there already and is no audit's: choose another --out") from exc


def _audit(
    settings: AuditSettings, objects: list[DataObject], parents: tuple[Parent, ...], ask_scores: AskScores | None
) -> Audit:
    context = _context(settings, objects)
    judgements = None
    if ask_scores is not None:
        knowledge = read_knowledge(settings.knowledge) if settings.knowledge else None
        judgements = Judgements(settings, ask_scores, knowledge)
    audit = Audit(settings.uri, full_stops=context.full_stops)
    if context.reference is not None and (identity := context.reference.identity) is not None:
        audit.name, audit.maker = identity.name, identity.maker
    index = NearDuplicateIndex(context.gates.near_threshold) if context.gates.has("near_duplicate") else None
    totals = [item.num_rows for item in objects]
    total = sum(num for num in totals if num is not None) if None not in totals else None
    started_s = time.process_time()
    with Bar("audit", total) as bar, Sinks(settings.out) as sinks:
        for where, row, verdict in _iter_verdicts(objects, settings, context, index, judgements):
            audit.num_rows += 1
            if verdict is None:
                audit.num_unreadable += 1
                audit.count(where, [Defect("structure", "unreadable", str(row))], max_examples=settings.examples)
                sinks.write(
                    "unreadable", orjson.dumps({"where": where, "error": row}, option=orjson.OPT_APPEND_NEWLINE)
                )
                continue
            audit.count(where, verdict.defects, max_examples=settings.examples)
            audit.num_clean += verdict.accepted
            audit.num_refused += not verdict.accepted
            sinks.put(verdict)
            bar.advance(clean=audit.num_clean, refused=audit.num_refused)
    audit.cpu_ms_per_row = round((time.process_time() - started_s) * 1e3 / max(audit.num_rows, 1), 3)
    audit.judge = judgements.counts() if judgements is not None else None
    if settings.out:
        _finish(audit, settings, parents, sinks)
    return audit


def _iter_verdicts(
    objects: list[DataObject],
    settings: AuditSettings,
    context: Context,
    index: NearDuplicateIndex | None,
    judgements: Judgements | None,
) -> Iterator[tuple[str, Conversation | str, Verdict | None]]:
    """Where each row stands, the row, and its verdict; None of a line that is no conversation."""
    kept: list[str] = []  # where each conversation of the index stands
    num_rows = 0
    rows = _iter_rows(objects, settings)
    while chunk := list(islice(rows, CHUNK_ROWS)):
        verdicts = [None if isinstance(row, str) else _check(row, context, index, kept, where) for where, row in chunk]
        if judgements is not None:
            verdicts = judgements.judge(num_rows, verdicts)
        num_rows += len(chunk)
        for (where, row), verdict in zip(chunk, verdicts, strict=True):
            yield where, row, verdict


def _check(
    conversation: Conversation, context: Context, index: NearDuplicateIndex | None, kept: list[str], where: str
) -> Verdict:
    verdict = check(conversation, context)
    if index is None or not verdict.accepted:
        return verdict
    first = index.find_or_add(normalize_text(verdict.conversation))
    if first is None:
        kept.append(where.rpartition(":")[2])
        return verdict
    defect = Defect("near_duplicate", "set", f"it nearly equals {kept[first]}", _opening(conversation))
    return Verdict(verdict.conversation, (*verdict.defects, defect))


def _context(settings: AuditSettings, objects: list[DataObject]) -> Context:
    """What the rows are held against: as set, else as the first rows of the set suggest."""
    gates = make_gates(settings)
    first = islice(_iter_rows(objects, settings), _PROFILE_ROWS)
    sample = [read_prose(row) for _, row in first if not isinstance(row, str)]
    reference: Reference | None = None
    if settings.knowledge:
        reference = make_reference(read_knowledge(settings.knowledge))
    identity = (reference.identity if reference else None) or infer_identity(sample)
    if settings.name or (identity and settings.maker):
        name = settings.name or (identity.name if identity else "")
        maker = settings.maker or (identity.maker if identity and identity.name == name else "")
        identity = Identity(name, maker)
    if identity is not None:
        reference = replace(reference, identity=identity) if reference else make_identity_reference(identity)
    tokenizer = load_tokenizer(settings.tokenizer) if settings.tokenizer else None
    full_stops = infer_full_stops(sample)
    return Context(gates, reference, full_stops, tokenizer, settings.max_context_tokens)


def _iter_rows(objects: list[DataObject], settings: AuditSettings) -> Iterator[tuple[str, Conversation | str]]:
    """Where each row stands, and its conversation, or what is wrong with a line that is none."""
    for item in objects:
        for number, line in iter_lines(item):
            where = item.place(number)
            try:
                yield where, parse_line(line, where=where, format=settings.format)
            except DataError as exc:
                yield where, str(exc).removeprefix(where).lstrip(": ")


def _finish(audit: Audit, settings: AuditSettings, parents: tuple[Parent, ...], sinks: Sinks) -> None:
    """Put the report and the manifests, that of the clean rows last: it says that the audit is whole."""
    assert settings.out is not None
    for part in ("clean", "refused", "unreadable"):
        if part != "unreadable" or audit.num_unreadable:
            audit.written[part] = join_uri(settings.out, part)
    open_store(settings.out).write(_REPORT_KEY, orjson.dumps(audit.to_json(), option=orjson.OPT_INDENT_2))
    for part in ("refused", "clean"):
        objects = [item.model_copy(update={"key": item.key.partition("/")[2]}) for item in sinks.objects(part)]
        manifest = Manifest(
            kind="audited",
            name=f"{part} rows of {settings.uri}",
            objects=sort_objects(objects),
            counts=audit.counts(),
            cost_usd=audit.judge["cost_usd"] if audit.judge is not None else None,
            parents=parents,
            settings=_content(settings),
        )
        _prefix(settings, part).commit(manifest, is_own=lambda key: _ROWS_KEY.fullmatch(key) is not None)
    open_store(settings.out).discard_unfinished()


def _read_finished(settings: AuditSettings, objects: list[DataObject]) -> Audit | None:
    """What a finished audit under `out` found, if it was of the same set under the same settings."""
    assert settings.out is not None
    prefix = _prefix(settings, "clean")
    manifest = prefix.find_finished()
    if manifest is None:
        return None
    check_same_origins(manifest, _find_origins(settings, objects), out=prefix.store.uri)
    store = open_store(settings.out)
    return Audit.parse(store.read(_REPORT_KEY), max_examples=settings.examples, where=store.uri_of(_REPORT_KEY))


def _prefix(settings: AuditSettings, part: str) -> OutputPrefix:
    """Where a part's rows go."""
    assert settings.out is not None
    return OutputPrefix(open_store(join_uri(settings.out, part)), "audit", _content(settings))


def _content(settings: AuditSettings) -> dict[str, Any]:
    """What decides what comes out; nothing of a judge where there is none, as in audits before there were judges."""
    content = settings.content()
    if settings.judge_model is None:
        for name in ("judge_model", "judge_share", "min_score", "seed"):
            del content[name]
    return content


def _find_origins(settings: AuditSettings, objects: list[DataObject]) -> tuple[Origin, ...]:
    """The set's manifest, or each of its objects; and the knowledge base."""
    uris = [] if settings.knowledge is None else [settings.knowledge]
    knowledge = [Origin.known(uri, read_knowledge(uri).sha256) for uri in uris]
    return (*find_origins_of_data(settings.uri, objects), *knowledge)


def _opening(conversation: Conversation) -> str:
    return " | ".join(" ".join(message.text[:60].split()) for message in conversation.messages[:2])
