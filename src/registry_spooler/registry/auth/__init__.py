"""Logging in to a registry: credentials, challenges and bearer tokens."""
