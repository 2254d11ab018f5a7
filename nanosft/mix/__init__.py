"""Mix conversation sources into one finetuning set: exact shares, no leaks, no duplicates, the same bytes every time.

The order of work, which never changes, stands in `stage.select_rows`:

    parse → filter → exact duplicates → near duplicates → decontaminate → split → apportion → repeat → order

`recipe` says what is wanted, `tuning` how much is done at a time; `reading` turns lines into rows in worker processes;
`disk` keeps them meanwhile and writes the output; `selecting` drops, splits, repeats and orders their records, whose
`columns` are the same everywhere; `stage` calls them; `report` says what came of it, and `tables` shows it.
"""
