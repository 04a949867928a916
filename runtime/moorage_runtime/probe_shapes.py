"""Which sizes of a model's open dimensions a probe inference tries, the likeliest first: pure.

A graph may refuse many: pooling wants images of some pixels, a reshape an even number of rows, a
product of matrices the other factor's size. The search goes on until a try computes.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from heapq import heappop, heappush
from itertools import zip_longest
from typing import Final, TypeAlias

#: An open dimension of an input: the input's name and the axis.
Place: TypeAlias = tuple[str, int]
#: A name that the file gives to dimensions of one size, or the place of one without.
Dimension: TypeAlias = str | Place
#: Of every open dimension.
Sizes: TypeAlias = dict[Place, int]

#: Sizes that are tried for all open dimensions but the rows, of which one is tried: a graph with
#: pooling refuses an image of one pixel.
FIRST_SIZES: Final = (1, 8, 32, 64, 224)
#: Sizes that are tried besides, when none of those works.
_MORE_SIZES: Final = (2, 8, 16, 32, 64, 224)
#: Up to which size every one is tried: the number of features may be open and yet only one.
_EVERY_SIZE: Final = 128


def tries(open_: Mapping[Place, Dimension], hints: Callable[[], Sequence[int]]) -> Iterator[Sizes]:
    """Yield sizes of the open dimensions, the likeliest first; some come again.

    Parameters
    ----------
    open_
        Which dimension each place is.
    hints
        Returns further sizes; it is asked once the usual ones have failed.
    """
    dimensions = list(dict.fromkeys(open_.values()))
    rows = {of for (_, axis), of in open_.items() if axis == 0}

    def uniform(row: int, size: int) -> dict[Dimension, int]:
        return {of: row if of in rows else size for of in dimensions}

    def spread(sizes: Mapping[Dimension, int]) -> Sizes:
        return {place: sizes[of] for place, of in open_.items()}

    for size in FIRST_SIZES:
        yield spread(uniform(1, size))
    for size in _MORE_SIZES:
        yield spread(uniform(1, size))
        yield spread(uniform(size, size))
    # Some exporters give one name to what need not be alike.
    for size in FIRST_SIZES:
        yield {(name, axis): size if axis else 1 for name, axis in open_}
    usual = sorted({*FIRST_SIZES, *_MORE_SIZES})
    likely = list(dict.fromkeys((*hints(), *usual)))

    def one_unlike() -> Iterator[dict[Dimension, int]]:
        for bases in (
            [uniform(1, size) for size in usual],
            [uniform(size, size) for size in usual],
        ):
            for of in sorted(dimensions, key=rows.__contains__):
                for size in likely:
                    yield from (base | {of: size} for base in bases)

    def every() -> Iterator[dict[Dimension, int]]:
        sizes = range(1, _EVERY_SIZE + 1)
        yield from (uniform(1, size) for size in sizes)
        yield from (uniform(size, size) for size in sizes)

    def products() -> Iterator[dict[Dimension, int]]:
        """Yield all combinations, smaller ones first."""
        sizes = sorted(likely)
        heap = [(1, (0,) * len(dimensions))]
        known = {heap[0][1]}
        while heap:
            _, at = heappop(heap)
            yield {of: sizes[i] for of, i in zip(dimensions, at, strict=True)}
            for axis, i in enumerate(at):
                after = (*at[:axis], i + 1, *at[axis + 1 :])
                if i + 1 < len(sizes) and after not in known:
                    known.add(after)
                    heappush(heap, (math.prod(sizes[j] for j in after), after))

    for turn in zip_longest(one_unlike(), every(), products()):
        yield from (spread(sizes) for sizes in turn if sizes is not None)
