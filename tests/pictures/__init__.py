"""The pictures of README.md and docs/: the real programs, on a terminal and in a browser."""
