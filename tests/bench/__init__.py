"""`./dev bench`: how fast, and with how much of the machine, beside `skopeo` and beside the floor.

The flow: `material` and `archives` make the archives once, from the machine's own files, and keep them in the user's
cache. For every push, `registry` starts a fresh docker-registry; `contestants` push the same archive one after the
other (`spooler` is the product, `floor` the least code that does the same work); `pushes` alternates them and
takes medians of paired runs. `scenarios` measures what has no rival: latency, memory, start, idleness. `goals`
holds the results against what the project promises, `history` against the last run on this machine. `over_wire` is
another program: pushes through an API server behind a slow link.

It measures and judges nothing: its exit code is 0 unless it could not measure at all.
"""
