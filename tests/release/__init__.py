"""`./dev release`: everything that a user downloads, made and tried. Starts at `__main__.py`."""
