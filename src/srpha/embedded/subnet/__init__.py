"""Subnet management and administration of the embedded fabric."""
