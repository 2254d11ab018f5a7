"""Batches: rows that are asked for many at a time, at a lower price, and answered within a day.

`batcher` sends rows in batches, as the `policy` has it, of those that wait in a `queue`: to be written, or to have the
answer that is held of them scored; `taker` takes their results to the gates, and to the judge's measure. `look` asks
where a batch stands, and knows when one is gone; `record` is what is written down of a batch, `journal` where; `settle`
matches results with requests and shares out what they cost. The provider stands behind the protocol of `api`:
`openrouter` and `openai_files` are its two forms, both over `http`.
"""

from nanosft.generate.batches.api import BatchApi
from nanosft.generate.batches.batcher import Batcher
from nanosft.generate.batches.http import BatchHttp
from nanosft.generate.batches.journal import Journal, OpenBatch
from nanosft.generate.batches.openai_files import OpenAiBatches
from nanosft.generate.batches.openrouter import OpenRouterBatches
from nanosft.generate.batches.policy import BatchPolicy
from nanosft.generate.batches.queue import Requests
from nanosft.generate.batches.record import RowRequest
from nanosft.generate.batches.settle import TokenPrices

__all__ = [
    "BatchApi",
    "BatchHttp",
    "BatchPolicy",
    "Batcher",
    "Journal",
    "OpenAiBatches",
    "OpenBatch",
    "OpenRouterBatches",
    "Requests",
    "RowRequest",
    "TokenPrices",
]
