"""SCSI as seen on the wire: CDBs, sense data, inquiry and mode pages, LUNs and statuses (SAM-4, SPC-4, SBC-3)."""
