"""The embedded SRP target: logical units, the SRP target port on RDMA channels, and its Device Management agent."""
