"""Hours in minutes: what the commands take over a long run, and the whole road with faults on.

`watch` samples a command's processes; `loads` are the long runs that it is used on. `road` walks from a knowledge base
to exports twice, `disturbed` and not, with `pods` that are stopped and killed; `table` says what was lost on the way.
"""
