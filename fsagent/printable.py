"""Text of others where a person reads it: nothing in it can hide, turn what is beside it, or steer a terminal."""

from __future__ import annotations

_STEERS = {
    code: ascii(chr(code))[1:-1]
    for code in (*range(9), *range(11, 32), *range(127, 160), 0x61C, 0x200E, 0x200F, *range(0x2028, 0x202F),
                 *range(0x2066, 0x206A))
}  # fmt: skip


def visible(text: str, but: str = "\n\t") -> str:
    """A text in which nothing can hide: all that is not printed, ``but`` these characters, is written as an escape."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in but else ascii(char)[1:-1] for char in text)


def harmless(text: str) -> str:
    """A text for a terminal: what would steer it, or turn the order of what is read, is written as an escape."""
    return text.translate(_STEERS)
