"""Mix conversation sources into one finetuning set: exact shares, no leaks, no duplicates, the same bytes every time.

The order of work, which never changes:

    parse → filter → exact duplicates → near duplicates → decontaminate → split → apportion → repeat → order

`recipe` says what is wanted; `reading` turns lines into rows in worker processes; `disk` keeps them meanwhile and
writes the output; `selecting` drops, splits, repeats and orders; `stage` calls them in this order; `report` shows
the result.
"""
