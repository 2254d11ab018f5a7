"""`nanosft doctor`: what a run stands on, looked at before the run does.

`finding` is what a look ends in. `machine` looks at packages, devices, memory and disk, `ranks` at processes that reach
one another, `bucket` at the store, `chat_api` at key and model; `stage` has the order, and prints.
"""
