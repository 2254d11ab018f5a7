"""What needs a GPU, ready to run on any machine that has one: `make gpu-test`, or `python -m tests.gpu`.

It imports torch and those parts of nanosft that need no other package: a checkout and torch (from 2.11 on) will do.
"""
