"""`kubectl-spool` as users download it: one file, and krew's manifest of it."""
