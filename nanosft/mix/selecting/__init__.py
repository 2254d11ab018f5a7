"""Which rows stay, and how often.

`ledger` holds one narrow record a row in DuckDB (`database`) and drops duplicates, of which `near` finds the
clusters; `selection` splits, repeats and orders what stays, in amounts that `apportion` makes of shares; `steps` is
the order of it.
"""
