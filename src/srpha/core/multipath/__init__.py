"""dm-multipath's decisions without its I/O: errors, selectors, groups, queueing, table and status lines."""
