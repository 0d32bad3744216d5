"""Pushing: from a source of bytes to a tag that the registry answers for.

`Pusher` (pusher.py) leads. early_uploads.py sends what can be read only once, image_push.py and plan.py say what an
image consists of, uploader.py sends the blobs, and layer_cache.py remembers what need not be read again.
"""
