"""One self-contained page of what lies in the store: `nanosft report`.

`collect` reads a run, a data set or an audit into one `record`, `rows` its conversations; `commands` says how to repeat
it. `run_sections`, `data_sections` and `compare_sections` make `blocks` of it, with `figures` drawn by pygal and
`wording` for numbers; `browser` packs the conversations. `pages` puts sections in order, `page` makes HTML of them, and
`stage` writes it.
"""
