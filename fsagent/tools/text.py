"""Text on its way into and out of tools: decoding, shortening, durations."""

from __future__ import annotations

import codecs

from fsagent.errors import ToolError
from fsagent.files.fields import Duration

_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))


def detect(raw: bytes) -> tuple[str, bytes]:
    """Encoding and byte-order mark of a text file's beginning: UTF-8 or UTF-16, each with or without a mark."""
    for mark, encoding in _BOMS:
        if raw.startswith(mark):
            return encoding, mark
    sample = raw[:2000]
    for encoding, zeros in (("utf-16-le", sample[1::2]), ("utf-16-be", sample[0::2])):
        if len(sample) >= 4 and zeros.count(0) * 10 >= len(zeros) * 6 and sample.count(0) * 10 <= len(sample) * 6:
            return encoding, b""
    return "utf-8", b""


def decode(raw: bytes, *, complete: bool = True) -> str:
    """The text of a file's bytes, without its byte-order mark; line ends stay.

    With ``complete=False`` a character cut off at the end is dropped. Raises ``ValueError`` for what is no text.
    """
    encoding, mark = detect(raw)
    text = codecs.getincrementaldecoder(encoding)().decode(raw[len(mark) :], complete)
    if "\0" in text:
        raise ValueError("it holds zero bytes")
    return text


def clip(text: str, limit: int, left_out: int = 0) -> str:
    """At most ``limit`` characters from the beginning, with a note on how many (``left_out`` more) are missing."""
    missing = max(0, len(text) - limit) + left_out
    if not missing:
        return text
    return f"{text[:limit].rstrip()}\n… ({missing:,} more characters were left out)"


def seconds(value: str | float, field: str) -> float:
    """A duration in seconds from ``60``, ``"60"``, ``"60s"``, ``"1m30s"``; must be more than zero."""
    try:
        number = float(value)
    except ValueError:
        try:
            number = float(Duration.parse(str(value)))
        except ValueError as error:
            raise ToolError(f"{field}: {error}") from None
    if not 0 < number < 10 * 365 * 86400:
        raise ToolError(f"{field}: must be more than 0 and less than ten years, not {value!r}")
    return number
