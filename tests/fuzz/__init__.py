"""Requests that nobody would send on purpose, against a server that runs: no 500, no hang, nothing left behind."""
