"""Pushing: from a source of bytes to a tag that the registry answers for.

`Pusher` (pusher.py) leads. early_uploads.py sends what comes by only once, image_push.py and plan.py say what an image
consists of, blobs.py gets the blobs to the registry, and layer_cache.py remembers what need not be read again.
"""
