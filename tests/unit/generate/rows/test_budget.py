import asyncio
import errno

import orjson
import pytest

from nanosft.errors import ConfigError, CreditError, DataError
from nanosft.generate.provider import Meter
from nanosft.generate.rows.budget import Budget, Owed
from nanosft.generate.rows.ledger import LedgerEntry, Share, read_ledgers, split_budget
from nanosft.store import Store, open_store

SHARD = (4, 2)


@pytest.fixture
def store(tmp_path) -> Store:
    return open_store(str(tmp_path))


def open_budget(store: Store, share_usd: float, attempt: str = "a", mean_cost_usd: float = 0.0) -> Budget:
    entry = read_ledgers(store).get(SHARD)
    share = Share(share_usd, share_usd / 100)
    return Budget(store, SHARD, attempt=attempt, share=share, entry=entry, mean_cost_usd=mean_cost_usd)


async def spend_until_refused(budget: Budget, cost_usd: float | None, most: int = 10_000) -> int:
    """Requests that were admitted, one after the other."""
    for number in range(most):
        try:
            await budget.admit()
        except CreditError:
            return number
        budget.spend(cost_usd)
        budget.withdraw()
    return most


def test_shares_go_by_rows_and_add_up_to_the_budget():
    shares = [
        split_budget(10, num_rows=10, num_shards=4, shard_index=index, ledgers={}, unbudgeted_usd=0).usd
        for index in range(4)
    ]
    assert shares == pytest.approx([3, 3, 2, 2])


def test_what_other_shard_counts_and_unbudgeted_runs_took_is_taken_off():
    ledgers = {(4, 0): LedgerEntry(3, 2.0), (4, 1): LedgerEntry(0, 1.0), (2, 0): LedgerEntry(0, 3.0)}
    share = split_budget(10, num_rows=10, num_shards=2, shard_index=0, ledgers=ledgers, unbudgeted_usd=1)
    assert share == Share(3.0, 0.03)


def test_a_step_is_one_put_and_stands_before_the_money_is_spent(store):
    budget = open_budget(store, 1.0, mean_cost_usd=0.001)
    asyncio.run(budget.admit())
    assert read_ledgers(store)[SHARD].reserved_usd == pytest.approx(0.01)
    assert asyncio.run(spend_until_refused(budget, 0.001, most=9)) == 9
    assert len(list(store.list("budget/"))) == 1


def test_spending_ends_at_the_share(store):
    budget = open_budget(store, 1.0)
    assert asyncio.run(spend_until_refused(budget, 0.01)) == 100
    with pytest.raises(CreditError, match="the budget is reached"):
        asyncio.run(budget.admit())


def test_requests_in_flight_count_with_the_mean_cost_and_one_more_waits_for_the_end_of_one(store):
    async def scenario() -> int:
        budget = open_budget(store, 1.0)
        await budget.admit()
        budget.spend(0.1)
        budget.withdraw()
        for _ in range(9):
            await budget.admit()
        waiting = asyncio.create_task(budget.admit())
        await asyncio.sleep(0.05)
        assert not waiting.done()
        budget.withdraw()  # it cost nothing
        await waiting
        for _ in range(9):
            budget.spend(0.1)
            budget.withdraw()
        with pytest.raises(CreditError, match="the budget is reached"):
            await budget.admit()
        return len(list(store.list("budget/")))

    assert asyncio.run(scenario()) <= 100


def test_where_no_price_is_known_an_answer_that_never_came_counts_as_one_step(store):
    """None of them ever told a cost, and they were sent without end."""
    assert asyncio.run(spend_until_refused(open_budget(store, 1.0), None)) == 100


def test_answers_that_never_came_are_counted_anew_once_one_has_told_its_cost(store):
    budget = open_budget(store, 1.0, mean_cost_usd=0.3)
    budget.spend(None)
    budget.spend(0.1)
    assert asyncio.run(spend_until_refused(budget, 0.1)) == 8


def test_an_answer_that_never_came_counts_with_the_mean_cost(store):
    budget = open_budget(store, 1.0)
    budget.spend(0.2)
    budget.spend(None)
    assert asyncio.run(spend_until_refused(budget, 0.2)) == 3


def test_a_process_that_ends_well_puts_back_what_it_did_not_spend(store):
    first = open_budget(store, 1.0)
    assert asyncio.run(spend_until_refused(first, 0.004, most=1)) == 1
    first.close()
    assert read_ledgers(store)[SHARD].reserved_usd == pytest.approx(0.004)
    assert asyncio.run(spend_until_refused(open_budget(store, 1.0, "b"), 0.001)) == pytest.approx(996, abs=1)


def test_processes_killed_again_and_again_overspend_nothing(store):
    """Each is killed right after a request: what it had reserved stays reserved."""
    num_spent = 0
    for attempt in range(300):
        num_spent += asyncio.run(spend_until_refused(open_budget(store, 1.0, f"a{attempt}"), 0.003, most=1))
    assert num_spent == 100
    assert read_ledgers(store)[SHARD].reserved_usd == pytest.approx(1.0)


def test_two_pods_on_one_index_reserve_from_one_share(store):
    first, second = open_budget(store, 1.0, "a"), open_budget(store, 1.0, "b")

    async def both() -> int:
        return sum(await asyncio.gather(spend_until_refused(first, 0.01), spend_until_refused(second, 0.01)))

    assert asyncio.run(both()) == 100
    assert set(read_ledgers(store)[SHARD].attempts) == {"a", "b"}


def test_a_larger_budget_goes_on(store):
    assert asyncio.run(spend_until_refused(open_budget(store, 0.5), 0.01)) == 50
    assert asyncio.run(spend_until_refused(open_budget(store, 0.8, "b"), 0.01)) == 30


def test_a_foreign_object_among_the_ledgers_is_named(store):
    store.write("budget/notes.txt", b"x")
    with pytest.raises(DataError, match=r"notes\.txt"):
        read_ledgers(store)


def test_a_budget_is_refused_where_nothing_can_be_put_if_absent(store, monkeypatch):
    def no_links(_source: object, _target: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr("os.link", no_links)
    with pytest.raises(ConfigError, match="leave --budget-usd out"):
        asyncio.run(open_budget(store, 1.0).admit())
    assert list(store.list()) == []


def test_a_judge_that_is_ten_times_as_dear_is_admitted_at_its_own_mean_and_both_stay_under_the_share(store):
    budget = open_budget(store, 1.0, mean_cost_usd=0.005)
    judge = budget.meter(0.05)
    paid_usd = 0.0

    async def ask(meter: Meter, cost_usd: float) -> None:
        nonlocal paid_usd
        await meter.admit()
        await asyncio.sleep(0)  # others are admitted meanwhile
        paid_usd += cost_usd
        meter.spend(cost_usd)
        meter.withdraw()

    async def ask_pairs() -> None:
        while True:
            await ask(budget, 0.005)
            await ask(judge, 0.05)

    async def several() -> list[BaseException | None]:
        return await asyncio.gather(*(ask_pairs() for _ in range(5)), return_exceptions=True)

    assert all(isinstance(ended, CreditError) for ended in asyncio.run(several()))
    assert 0.94 < paid_usd <= 1.0 + 1e-9


def test_a_judges_batch_is_held_at_the_judges_mean_and_settled_on_its_account(store):
    async def scenario() -> tuple[int, float, int]:
        budget = open_budget(store, 1.0, mean_cost_usd=0.005)
        judge = budget.meter(0.05)
        num, held_usd = await budget.hold(100, judge.account)
        budget.settle(held_usd, [0.01] * num, judge.account)
        return num, held_usd, (await budget.hold(1000))[0]  # the writer's mean is what it was

    num, held_usd, num_rows = asyncio.run(scenario())
    assert (num, num_rows) == (20, 160)
    assert held_usd == pytest.approx(1.0)


def test_a_batch_is_sent_of_as_many_rows_as_the_share_has_money_to_score_too(store):
    """All was spent on rows, and what was written waited for scores that nothing was left for."""

    async def scenario() -> tuple[list[int], float]:
        budget = open_budget(store, 1.0, mean_cost_usd=0.05)
        judge = budget.meter(0.05)
        num, held_usd = await budget.hold(100, owed=Owed(judge.account, range(101)))
        budget.settle(held_usd, [0.05] * num)
        with pytest.raises(CreditError, match="the budget is reached"):
            await budget.hold(1, owed=Owed(judge.account, range(num, num + 2)))
        with pytest.raises(CreditError, match="the budget is reached"):
            await budget.hold(1, owed=Owed(judge.account, [num, num]))  # not to be scored itself
        reserved_usd = read_ledgers(store)[SHARD].reserved_usd
        return [num, (await budget.hold(100, judge.account))[0]], reserved_usd

    nums, reserved_usd = asyncio.run(scenario())
    assert nums == [10, 10]
    assert reserved_usd == pytest.approx(0.5)  # a process that is killed leaves no more


@pytest.mark.parametrize(("written", "read"), [(-5.3e-18, 0.0), (0.25, 0.25)])
def test_a_ledger_that_ends_a_rounding_below_nothing_is_read_as_nothing(store, written, read):
    """Such a ledger, which sums of changes leave, ended every later run of the prefix with exit code 3."""
    store.write("budget/00004/00002-000001.json", orjson.dumps({"reserved_usd": written, "attempts": ["a"]}))
    assert read_ledgers(store)[SHARD].reserved_usd == read


def test_a_ledger_that_gives_back_more_than_it_took_is_no_ledger(store):
    store.write("budget/00004/00002-000001.json", b'{"reserved_usd": -0.01, "attempts": []}')
    with pytest.raises(DataError, match=r"reserves -0\.01 dollars"):
        read_ledgers(store)
