"""Management datagrams on the ports of the embedded fabric: general services, MadPort, RMPP."""
