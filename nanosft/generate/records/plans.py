"""What decides the rows of a plan, as its records in the store say; a plan grows by another record.

plan/<num>.json     settings and parents of the plan, put if absent before the first row; of rows that were added
for facts that too few answers stated, which fact each of the last ones is there for
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import orjson

from nanosft.errors import ConfigError, DataError, StoreError
from nanosft.manifest import Manifest, Parent
from nanosft.store import NoConditionalPutError, Store

PLANS: Final = "plan/"


@dataclass(frozen=True, slots=True)
class PlanRecord:
    """What decides a plan's rows.

    Attributes:
        num: Rows; it may grow from run to run.
        settings: JSON values; no other may change.
        parents: Knowledge and dimensions.
        catalogue: What the run's models were said to cost and to be, and on which day, when the plan was begun; it
            decides nothing. None: it was not read.
        fill: Ids of facts that the last rows are there for, one each; empty where the plan was grown by `--num`.
    """

    num: int
    settings: Mapping[str, Any]
    parents: tuple[Parent, ...]
    catalogue: Mapping[str, Any] | None = None
    fill: tuple[str, ...] = ()

    @property
    def manifest_settings(self) -> dict[str, Any]:
        """The settings as manifests name them, `num` among them."""
        return {**self.settings, "num": self.num}

    @classmethod
    def of(cls, manifest: Manifest) -> "PlanRecord":
        """The plan that a data set's manifest states."""
        settings = {key: value for key, value in manifest.settings.items() if key != "num"}
        return cls(int(manifest.settings["num"]), settings, manifest.parents, manifest.counts.get("catalogue"))

    @property
    def told(self) -> dict[str, Any]:
        """What the counts of its manifests hold beside counts."""
        return {} if self.catalogue is None else {"catalogue": self.catalogue}


def find_plan(store: Store, record: PlanRecord) -> PlanRecord:
    """The plan's record as an earlier run put it. Writes nothing.

    Raises:
        ConfigError: The prefix has another plan, or none of as many rows.
    """
    earlier = read_plans(store)
    check_same_plan(earlier, record, store)
    if record.num not in earlier:
        there_are = f"has rows of a plan of {max(earlier)}: give --num {max(earlier)}" if earlier else "has no plan yet"
        raise ConfigError(f"{store.uri}: nothing to finalize of {record.num} rows: it {there_are}")
    return earlier[record.num]


def register_plan(store: Store, record: PlanRecord) -> PlanRecord:
    """Put the plan's record, unless it is there; returns the one that is.

    Raises:
        ConfigError: The prefix has another plan, or a larger one.
        StoreError: The store's listings lag behind.
    """
    key = f"{PLANS}{record.num:08d}.json"
    parents = [parent.model_dump() for parent in record.parents]
    fill = {"fill": record.fill} if record.fill else {}
    value = {"settings": record.settings, "parents": parents, **record.told, **fill}
    body = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    earlier = read_plans(store)
    check_same_plan(earlier, record, store)
    if record.num not in earlier:
        try:
            store.write_if_absent(key, body)
        except NoConditionalPutError:
            store.write(key, body)  # equal plans put equal bytes, and another plan is met when it is read back
        earlier = read_plans(store)
        check_same_plan(earlier, record, store)
        if record.num not in earlier:
            raise StoreError(f"{store.uri_of(key)}: put, and not yet in a listing: run the same command again")
    return earlier[record.num]


def grow_plan(store: Store, fill: tuple[str, ...]) -> None:
    """Add a row for each of these facts to the largest plan of a store; equal plans grow alike.

    Raises:
        ConfigError: Another process has grown it otherwise.
    """
    plans = read_plans(store)
    last = plans[max(plans)]
    grown = register_plan(store, replace(last, num=last.num + len(fill), fill=fill))
    if grown.fill != fill:
        raise ConfigError(f"{store.uri}: another run has added rows for other facts: run the same command again")


def find_fills(plans: Iterable[PlanRecord], num: int) -> tuple[int, dict[int, str]]:
    """Rows of the plan that was asked for with `num`, those added to it included; and the facts of all added rows."""
    fills: dict[int, str] = {}
    for record in sorted(plans, key=lambda plan: plan.num):
        start = record.num - len(record.fill)
        fills |= dict(enumerate(record.fill, start))
        num = record.num if record.fill and start == num else num
    return num, fills


def check_same_plan(earlier: Mapping[int, PlanRecord], record: PlanRecord, store: Store) -> None:
    """Refuse a plan that is none of the earlier ones, grown.

    Raises:
        ConfigError: Naming the first difference.
    """
    for num, found in sorted(earlier.items()):
        for key in sorted({*found.settings, *record.settings}):
            before, now = found.settings.get(key), record.settings.get(key)
            if key == "prompt_version" and found.settings.get("provider") == "offline":
                continue  # nobody reads a prompt there
            if before != now:
                raise ConfigError(
                    f"{store.uri}: has rows of a plan with {key}={before!r}, now {key}={now!r}: "
                    "choose another --out, or the settings it was made with"
                )
        if num > record.num:
            raise ConfigError(
                f"{store.uri}: has a plan of num={num}, now num={record.num}: a plan may grow, not shrink; choose "
                "another --out, or --num as it was"
            )


def read_plans(store: Store) -> dict[int, PlanRecord]:
    """The plan's records by their number of rows.

    Raises:
        DataError: One cannot be read.
    """
    plans = {}
    for info in store.list(PLANS):
        try:
            num = int(info.key.removeprefix(PLANS).removesuffix(".json"))
            value = orjson.loads(store.read(info.key))
            parents = tuple(Parent.model_validate(parent) for parent in value["parents"])
            fill = tuple(map(str, value.get("fill", ())))
            plans[num] = PlanRecord(num, dict(value["settings"]), parents, value.get("catalogue"), fill)
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            raise DataError(f"{store.uri_of(info.key)}: not a plan's record: remove it") from exc
    return plans
