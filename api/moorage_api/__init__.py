"""The contract between Moorage's programs: types, errors, names and tensor codecs.

Nothing in this package speaks to a socket, reads a clock or draws a random number.
"""

from typing import Final

#: The version of the whole distribution; pyproject.toml reads it from here.
__version__: Final = "0.1.0"
