"""The programs for people: `registry-client` and `kubectl spool`."""
