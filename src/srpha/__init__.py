"""srpha: SRP (SCSI RDMA Protocol) high availability for Linux."""

__version__ = "0.1.0"
