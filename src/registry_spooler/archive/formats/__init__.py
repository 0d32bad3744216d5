"""The formats of image archives: docker archives, OCI layouts, and what is both."""
