"""What a URI of data means, for every command: files, prefixes, globs, Parquet, gzip and Zstandard.

`sources` finds the objects of a URI and streams them as batches of whole lines; `conversations` reads what our own
stages have written, and writes shards of it.
"""
