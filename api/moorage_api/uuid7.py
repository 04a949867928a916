"""UUID version 7: ids that sort by the time they were made (RFC 9562, section 5.7)."""


def build(nanoseconds: int, randomness: bytes) -> bytes:
    """Return the 16 bytes of a UUIDv7.

    Parameters
    ----------
    nanoseconds
        Since the Unix epoch. The 12 bits behind the milliseconds hold their fraction (section 6.2,
        method 3), so that ids sort within a millisecond too, in steps of 244 ns.
    randomness
        8 random bytes, of which 62 bits are used.
    """
    milliseconds, rest = divmod(nanoseconds, 1_000_000)
    value = (milliseconds & 0xFFFF_FFFF_FFFF) << 80
    value |= 0x7 << 76 | (rest * 4096 // 1_000_000) << 64
    value |= 0b10 << 62 | (int.from_bytes(randomness, "big") & (1 << 62) - 1)
    return value.to_bytes(16, "big")


def text(raw: bytes) -> str:
    """Return the 36 characters of a UUID's 16 bytes."""
    h = raw.hex()
    return f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}"


def milliseconds(raw: bytes) -> int:
    """Return the time that a UUIDv7 holds, in milliseconds since the Unix epoch."""
    return int.from_bytes(raw[:6], "big")
