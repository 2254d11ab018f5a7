"""Mix conversation sources into one finetuning set: exact shares, no leaks, no duplicates, the same bytes every time.

The order of work, which never changes:

    parse → filter → exact duplicates → near duplicates → decontaminate → split → apportion → repeat → order

`recipe` says what is wanted; `sources` streams lines; `rows` parses, filters and measures them in worker processes and
spills them to disk; `near` finds clusters; `ledger` holds one narrow record a row in DuckDB and decides; `apportion`
turns shares into amounts; `output` writes the shards; `stage` calls them in this order; `report` shows the result.
"""
