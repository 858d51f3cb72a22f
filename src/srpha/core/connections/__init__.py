"""Desired against actual connections: pairs, reconciliation, attempts, drains, the guard of paths."""
