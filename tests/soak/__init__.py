"""Hours in minutes: what the commands take over a long run, and the whole road with faults on.

`watch` samples a command's processes; `loads` are the long runs that it is used on. `pods` starts processes that are
stopped and killed, `world` has the store that fails and walks a stage in it and undisturbed, `writing` and `making` are
the stages, `road` their order, and `table` says what was lost on the way.
"""
