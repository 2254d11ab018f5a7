"""Supervised finetuning: packing, the step plan, optimizer, train step, resumable states, launch.

Run it with `nanosft train`, `torchrun … -m nanosft train`, or `nanosft launch … train …`; see `stage.py`.
"""
