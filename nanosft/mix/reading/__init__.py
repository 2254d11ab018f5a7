"""Sources into rows.

`reader` reads every source once; `rows` parses each line (`parse`), filters and measures it in worker processes, and
finds what repeats held-out text (`contamination`).
"""
