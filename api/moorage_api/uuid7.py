"""UUID version 7: ids that sort by the time they were made (RFC 9562, section 5.7)."""


def build(milliseconds: int, randomness: bytes) -> bytes:
    """Return the 16 bytes of a UUIDv7.

    Parameters
    ----------
    milliseconds
        Since the Unix epoch; the low 48 bits are used.
    randomness
        10 random bytes, of which 74 bits are used.
    """
    low = int.from_bytes(randomness, "big")
    value = (milliseconds & 0xFFFF_FFFF_FFFF) << 80
    value |= 0x7 << 76 | (low >> 62 & 0xFFF) << 64
    value |= 0b10 << 62 | (low & (1 << 62) - 1)
    return value.to_bytes(16, "big")


def text(raw: bytes) -> str:
    """Return the 36 characters of a UUID's 16 bytes."""
    h = raw.hex()
    return f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}"


def milliseconds(raw: bytes) -> int:
    """Return the time that a UUIDv7 holds, in milliseconds since the Unix epoch."""
    return int.from_bytes(raw[:6], "big")
