"""The embedded multipath engine: joins SCSI devices of one logical unit and carries I/O over the paths that work."""
