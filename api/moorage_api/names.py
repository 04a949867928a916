"""Names of deployments, versions and model addresses: what is allowed, and how they are read."""

import hashlib
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, urlsplit

from moorage_api.errors import InvalidName

#: A deployment's name: also that of its Service, hence a DNS-1035 label that starts with a letter.
DEPLOYMENT_PATTERN: Final = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"
#: A model's, endpoint's or version's name: one path segment that no file system or URL twists.
SEGMENT_PATTERN: Final = r"^[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?$"
LABEL_MAX: Final = 63

#: Schemes of `spec.model.uri` that a runtime fetches by itself.
PLAIN_SCHEMES: Final = ("file", "http", "https")
#: Schemes behind fsspec drivers; the value is the extra that installs the driver.
DRIVER_SCHEMES: Final = {
    "s3": "s3",
    "gs": "gcs",
    "az": "azure",
    "sftp": "sftp",
    "hf": "huggingface",
}
#: Scheme of a model in the gateway's registry.
REGISTRY_SCHEME: Final = "models"
SCHEMES: Final = (*PLAIN_SCHEMES, *DRIVER_SCHEMES, REGISTRY_SCHEME)
_FETCHED: Final = "|".join((*PLAIN_SCHEMES, *DRIVER_SCHEMES))
_SHORT_SEGMENT: Final = rf"[A-Za-z0-9]([A-Za-z0-9_.-]{{0,{LABEL_MAX - 2}}}[A-Za-z0-9])?"
#: A model address: a known scheme, then something; a registry address is spelled out. The regular
#: expressions of Python, pydantic (Rust) and the API server (Go) read it alike: `\s` they do not.
URI_PATTERN: Final = (
    rf"^(({_FETCHED}):[^\x00-\x20]+"
    rf"|{REGISTRY_SCHEME}:/{_SHORT_SEGMENT}/{_SHORT_SEGMENT})$"
)

_segment = re.compile(SEGMENT_PATTERN)
_digits = re.compile(r"(\d+)")


def segment(value: str, what: str) -> str:
    """Return `value` when it may be one segment of a path, e.g. a model's name.

    Raises
    ------
    InvalidName
        When it is empty, too long, a dot path, or holds any other character.
    """
    if len(value) > LABEL_MAX or not _segment.fullmatch(value):
        raise InvalidName(
            f"{what} {value[:80]!r}: expected 1 to {LABEL_MAX} letters, digits, '_', '.' or '-', "
            "starting and ending with a letter or digit"
        )
    return value


def label(*parts: str) -> str:
    """Join `parts` by '-' into a DNS label of at most 63 characters.

    A name that is too long keeps its head and ends with a hash of the whole, so that two long
    names which differ anywhere stay different.
    """
    whole = "-".join(parts)
    if len(whole) <= LABEL_MAX:
        return whole
    digest = hashlib.sha256(whole.encode()).hexdigest()[:10]
    return f"{whole[: LABEL_MAX - 11].rstrip('-')}-{digest}"


def deployment_name(*parts: str) -> str:
    """Make a deployment's name out of any names, e.g. a model's and a version's.

    Letters are lowered and every other character becomes '-'. Where more is lost than an
    underscore, a hash of the original is added; whoever stores the name still has to look whether
    it is taken, because `a_b` and `a-b` meet.
    """
    whole = "-".join(parts)
    slug = re.sub(r"[^a-z0-9]+", "-", whole.lower()).strip("-")
    if not slug or not slug[0].isalpha():
        slug = f"m-{slug}" if slug else "m"
    if slug != whole.replace("_", "-"):
        slug = f"{slug}-{hashlib.sha256(whole.encode()).hexdigest()[:6]}"
    return label(slug)


def version_key(version: str) -> tuple[tuple[int, int, str], ...]:
    """Order versions as people count: "2" < "10" < "10.1", and numbers before words."""
    parts = [part for part in _digits.split(version) if part not in ("", ".", "-", "_")]
    return tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts)


@dataclass(frozen=True, slots=True)
class Qualified:
    """A name with its namespace: `payments/fraud`."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


def registry_reference(uri: str) -> tuple[str, str] | None:
    """Return (name, version) of a `models:/NAME/VERSION` address, None for any other.

    Raises
    ------
    InvalidName
        When the address is of the registry and does not name a version.
    """
    split: SplitResult = urlsplit(uri)
    if split.scheme != REGISTRY_SCHEME:
        return None
    parts = split.path.split("/")
    if split.netloc or split.query or split.fragment or len(parts) != 3 or parts[0]:
        raise InvalidName(f"model address {uri!r}: expected models:/NAME/VERSION")
    return segment(parts[1], "model name"), segment(parts[2], "model version")
