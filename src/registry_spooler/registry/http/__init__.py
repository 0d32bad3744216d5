"""Requests to a registry: sent, redirected, repeated and refused by one set of rules."""
