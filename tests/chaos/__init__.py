"""Kills and faults at every call of short runs, enumerated: `make chaos`, and a part of it in `make test`.

`faults` counts what a run asks of its store, and ends the run or spoils one answer at any of these points; `s3` is an
S3 in memory behind botocore; `stages` has the short runs and what must hold after them; `explore` tries every point.
"""
