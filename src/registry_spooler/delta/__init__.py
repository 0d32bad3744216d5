"""Deltas inside layers: what is new in a layer, told against another layer that the far end has.

A rebuilt layer is mostly the files of the last one under new times, so whole files are matched, and headers apart from
their times. `signature` says what a layer holds; `recipe` says how another layer is made of it; `rebuild` makes it.
Plain code without a loop, one piece at a time. A delta is a saving and never a risk: whoever rebuilds checks the
digest, and what cannot be rebuilt is sent whole.
"""
