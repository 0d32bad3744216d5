"""`registry-client`: the registry and the spool directory from the command line, in the pod or from afar."""
