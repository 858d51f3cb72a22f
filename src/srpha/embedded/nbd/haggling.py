"""The server's side of option haggling (proto.md, "Newstyle negotiation" and "Option types"). NOTLS mode."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from srpha.embedded.nbd.export import BlockExport, Exports
from srpha.wire.errors import DecodeError
from srpha.wire.nbd import (
    EXPORT_REPLY_PADDING,
    ExportInfo,
    ExportQuery,
    ExportReply,
    HandshakeFlag,
    Info,
    Option,
    OptionReply,
    ServerEntry,
    TextInfo,
    clipped,
    decode_string,
    encode_string,
    option_reply,
)

OPTION_LIMIT: Final = 1 << 16
"""Longest option data that is looked at; longer data are skipped and refused."""
DENIAL_LIMIT: Final = 1 << 20
"""Option data beyond this are taken for an attack: the client is disconnected."""
OFFERED: Final = HandshakeFlag.FIXED_NEWSTYLE | HandshakeFlag.NO_ZEROES


@dataclass(frozen=True, slots=True)
class Answer:
    """What an option leads to: bytes to send, then transmission on ``export``, the end, or the next option."""

    reply: bytes
    export: BlockExport | None = None
    hang_up: bool = False


class Haggling:
    """The state of one negotiation. ``flags`` are the client's; other bits than the offered ones are refused before."""

    def __init__(self, exports: Exports, flags: int) -> None:
        self._exports = exports
        self._fixed = bool(flags & HandshakeFlag.FIXED_NEWSTYLE)
        self._padded = not flags & HandshakeFlag.NO_ZEROES
        self.structured = False
        """The client understands structured replies."""

    def answer(self, option: int, data: bytes | None) -> Answer:
        """Answer an option; ``data`` None stands for data that were too long to be looked at."""
        if option == Option.EXPORT_NAME:
            return self._export_name(data)
        if not self._fixed:
            # Replies to options came with fixed newstyle; this client would not understand one.
            return Answer(b"", hang_up=True)
        if option == Option.ABORT:
            return Answer(option_reply(option, OptionReply.ACK), hang_up=True)
        if data is None:
            return _refused(option, OptionReply.ERR_TOO_BIG, f"option data longer than {OPTION_LIMIT} bytes")
        match option:
            case Option.LIST if not data:
                return self._list()
            case Option.STRUCTURED_REPLY if not data:
                self.structured = True
                return Answer(option_reply(option, OptionReply.ACK))
            case Option.LIST | Option.STRUCTURED_REPLY:
                return _refused(option, OptionReply.ERR_INVALID, "this option has no data")
            case Option.INFO | Option.GO:
                return self._describe(option, data)
        return _refused(option, OptionReply.ERR_UNSUP, f"option {option} is not supported")

    def _export_name(self, data: bytes | None) -> Answer:
        """There is no way to refuse this option but to hang up."""
        try:
            export = None if data is None else self._find(decode_string(data))
        except DecodeError:
            export = None
        if export is None:
            return Answer(b"", hang_up=True)
        reply = ExportReply(size=export.size, flags=export.flags(structured=self.structured)).encode()
        return Answer(reply + EXPORT_REPLY_PADDING if self._padded else reply, export)

    def _list(self) -> Answer:
        entries = [
            option_reply(Option.LIST, OptionReply.SERVER, ServerEntry(name, export.description).encode())
            for name, export in self._exports().items()
        ]
        return Answer(b"".join(entries) + option_reply(Option.LIST, OptionReply.ACK))

    def _describe(self, option: int, data: bytes) -> Answer:
        try:
            query = ExportQuery.decode(data)
        except DecodeError as error:
            return _refused(option, OptionReply.ERR_INVALID, str(error))
        export = self._find(query.name)
        if export is None:
            there = ", ".join(self._exports()) or "none"
            text = f"there is no export {query.name[:64]!r}; there are: {there}"
            return _refused(option, OptionReply.ERR_UNKNOWN, text)
        # Block sizes are told without being asked for: they are not NBD's defaults ("Size constraints").
        told = [
            ExportInfo(size=export.size, flags=export.flags(structured=self.structured)).encode(),
            export.block_sizes.encode(),
        ]
        if Info.NAME in query.wanted:
            told.append(TextInfo(Info.NAME, export.name).encode())
        if Info.DESCRIPTION in query.wanted:
            told.append(TextInfo(Info.DESCRIPTION, export.description).encode())
        reply = b"".join([option_reply(option, OptionReply.INFO, one) for one in told])
        reply += option_reply(option, OptionReply.ACK)
        return Answer(reply, export if option == Option.GO else None)

    def _find(self, name: str) -> BlockExport | None:
        exports = self._exports()
        return exports.get(name) if name else next(iter(exports.values()), None)


def _refused(option: int, kind: OptionReply, text: str) -> Answer:
    return Answer(option_reply(option, kind, encode_string(clipped(text))))
