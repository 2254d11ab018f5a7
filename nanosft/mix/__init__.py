"""Mix conversation sources into one finetuning set: exact shares, no leaks, no duplicates, the same bytes every time.

The order of work, which never changes:

    parse → filter → exact duplicates → near duplicates → decontaminate → split → apportion → repeat → order

`recipe` says what is wanted; `sources` streams lines; `rows` parses (`parse`), filters and measures (`text`) them in
worker processes (`workers`) and leaves them on disk (`spill`); `ledger` holds one narrow record a row in DuckDB and
drops duplicates, with clusters that `near` finds; `selection` splits, repeats and orders what stays, in amounts that
`apportion` makes of shares; `output` writes the shards; `stage` calls them in this order; `report` shows the result.
"""
