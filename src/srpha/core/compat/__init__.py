"""Formats of rdma-core and OFED that are read or printed as they are."""
