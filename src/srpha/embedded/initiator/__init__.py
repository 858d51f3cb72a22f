"""The embedded SRP initiator: what ib_srp and the SCSI mid-layer are to a Linux host, in one process.

:class:`~srpha.embedded.initiator.initiator.EmbeddedInitiator` is the way in. Below it stand one
:class:`~srpha.embedded.initiator.host.ScsiHost` per connection, its channels, logical units and error handler.
"""
