"""Pulling: an image of the registry as a docker archive, an OCI archive, or the file that it was made from.

`Puller` reads the metadata (image_tree.py), lists the archive's entries (pulled_archives.py) and writes them with their
tar headers to an `Output`, each blob piece by piece as the registry sends it. Memory does not grow with the image.
"""
