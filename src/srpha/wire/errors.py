"""Errors of the codecs: the peer's fault and ours are different classes."""


class WireError(ValueError):
    """Base of all codec errors."""


class DecodeError(WireError):
    """Bytes received from a peer do not form the structure they claim to be."""


class EncodeError(WireError):
    """A value of ours does not fit the field it is meant for."""
