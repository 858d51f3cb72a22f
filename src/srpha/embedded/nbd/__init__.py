"""NBD export of the embedded world's multipath devices on a Unix socket."""
