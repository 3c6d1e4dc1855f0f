"""Server-sent events, as in the HTML standard (9.2.6), reduced to the data of each event."""

from __future__ import annotations

BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # a stream may begin with one


class Events:
    """Turns the pieces of an event stream into the `data` of its events, wherever the pieces are split."""

    def __init__(self) -> None:
        self._rest = b""  # b"\r" is a line's end, whose second half may follow
        self._data: list[bytes] = []
        self._begun = False

    @property
    def idle(self) -> bool:
        """The next byte is the first one of an event."""
        return not self._rest and not self._data

    def feed(self, piece: bytes) -> list[bytes]:
        """Take bytes; return the data of every event that is now complete."""
        if (
            piece.startswith(b"data: ")
            and piece.endswith(b"\n\n")
            and not self._rest
            and not self._data
            and piece.find(b"\n") == len(piece) - 2
            and b"\r" not in piece
        ):
            self._begun = True
            return [piece[6:-2]]  # one event of one line, as servers send them
        if not piece:
            return []
        if self._rest == b"\r":
            text = piece.removeprefix(b"\n")
        else:
            text = self._rest + piece
        half = text.endswith(b"\r")  # the line ends here, whatever comes: who waits would stamp late
        if b"\r" in text:
            text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *lines, rest = text.split(b"\n")
        self._rest = b"\r" if half else rest
        events: list[bytes] = []
        if lines and not self._begun:
            lines[0], self._begun = lines[0].removeprefix(BYTE_ORDER_MARK), True
        for line in lines:
            if line:
                self._take(line)
            elif self._data:
                events.append(self._data[0] if len(self._data) == 1 else b"\n".join(self._data))
                self._data = []
        return events

    def _take(self, line: bytes) -> None:
        # Other fields (event, id, retry) and comments, which start with a colon, carry no tokens.
        if line.startswith(b"data:"):
            value = line[5:]
            self._data.append(value[1:] if value.startswith(b" ") else value)
        elif line == b"data":
            self._data.append(b"")
