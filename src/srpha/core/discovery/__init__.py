"""Discovery of SRP targets: scans, walks, what they found, and the inventory they feed."""
