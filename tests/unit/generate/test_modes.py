import pytest

from nanosft.errors import ConfigError
from nanosft.generate.modes import ModePrices, choose_batch, compare
from nanosft.settings.generate import GenerateSettings


@pytest.mark.parametrize(
    ("sync_usd", "batch_usd", "chosen"),
    [(10.0, 5.0, True), (4.0, 5.0, False), (5.0, 5.0, False), (None, 5.0, False), (5.0, None, False)],
)
def test_auto_takes_what_costs_less_and_sync_where_a_price_is_not_known(sync_usd, batch_usd, chosen):
    prices = ModePrices(sync_usd, batch_usd)
    assert choose_batch(GenerateSettings(out="x", mode="auto"), lambda: prices) is chosen
    why = compare(prices)[1]
    assert ("$5.00" in why) == (None not in (sync_usd, batch_usd))


def test_a_writer_without_batches_refuses_them_and_auto_does_without():
    def never() -> ModePrices:
        raise AssertionError("nobody is asked for a price")

    assert choose_batch(GenerateSettings(out="x", mode="auto", provider="offline"), never) is False
    with pytest.raises(ConfigError, match="--provider offline has no batches"):
        choose_batch(GenerateSettings(out="x", mode="batch", provider="offline"), never)
