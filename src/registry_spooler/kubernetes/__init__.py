"""The way to a spooler's pod from outside: through the cluster's API server and nothing else.

config.py reads the user's configuration, api.py makes requests, pods.py chooses containers, exec.py runs a command in
one; remote_session.py runs `registry-client` there, answers.py types what it answers, and transfer/ is built on it.
objects/ has what is done with nodes and workloads.
"""
