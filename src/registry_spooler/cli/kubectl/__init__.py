"""`kubectl spool`: the registry and the spooler of a cluster from the user's terminal."""
