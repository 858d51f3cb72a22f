"""The embedded fabric over ibsim's socket protocol, for programs outside."""
