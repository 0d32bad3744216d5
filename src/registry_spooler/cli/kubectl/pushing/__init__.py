"""`push` and `publish`: what their arguments mean, and what they do."""
