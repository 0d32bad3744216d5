"""`./dev bench --wire`: pushes over a slow link to the API server, beside what people do without this project.

The flow: `wire_images` makes layers once, from the machine's own files, and an archive of fresh content for each run.
`far_ends` has a pod with the spooler, in a cluster of `./dev cluster` or in the tests' stand-in for one. `link` is the
line between user and cluster: a rate, a delay, and a count of what crosses. `senders` are the rivals: `kubectl spool
push`, the same with whole layers, `kubectl cp`, a compressed archive down a pipe, `skopeo` through a port that is
forwarded. `pieces_of_work` says what each of them does, and `measuring` takes the figures.
"""
