"""The program `registry-spooler`: settings read once at the edge, then the parts put together and run."""
