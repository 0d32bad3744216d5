"""The vocabulary of images: digests, references, media types, manifests, and a blob's bytes."""
