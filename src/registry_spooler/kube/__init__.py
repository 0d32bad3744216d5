"""The way to a spooler's pod from outside: through the cluster's API server and nothing else.

`login` reads the user's configuration, `cluster` makes requests, `pods` chooses containers, `exec` runs a
command in one over `frames`; `remote` runs `registry-client` there, and `sending` and `publishing` are what is
built on it.
"""
