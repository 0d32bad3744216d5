"""Uploading a blob: in one piece or in chunks that can be resumed."""
