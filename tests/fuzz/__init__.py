"""`./dev fuzz`: arbitrary bytes for every piece of code that reads what others wrote.

`targets` names them; `of_archives`, `of_answers`, `of_deltas` and `of_settings` hold their checks and their first
inputs. A check takes any bytes and raises nothing: an error of our own tree is an answer, everything else is a find,
and so is an invariant that does not hold. `__main__` runs one under atheris (libFuzzer), which keeps the inputs that
reach new code in `.cache/fuzz/TARGET`, and a find in `.cache/fuzz/TARGET.found`. What was found is a case of
`test_fuzz.py`, which runs every check on its first inputs, and on some that chance makes of them, in the gate.
"""
