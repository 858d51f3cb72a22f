"""Reliable connections and connection management on the ports of the embedded fabric."""
