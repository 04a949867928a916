from itertools import islice

import pytest

from moorage_runtime.probe_shapes import FIRST_SIZES, Dimension, Place, Sizes, tries

ROWS: Place = ("x", 0)
WIDE: Place = ("x", 1)
OTHER: Place = ("y", 0)


def listed(
    open_: dict[Place, Dimension], most: int = 1000, hints: tuple[int, ...] = ()
) -> list[Sizes]:
    return list(islice(tries(open_, lambda: hints), most))


def test_one_row_is_tried_first_with_growing_images() -> None:
    first = listed({ROWS: ROWS, WIDE: WIDE}, len(FIRST_SIZES))
    assert first == [{ROWS: 1, WIDE: size} for size in FIRST_SIZES]


def test_a_model_without_open_dimensions_has_its_one_shape() -> None:
    assert listed({}, 1) == [{}]


def test_dimensions_of_one_name_are_alike_before_they_are_not() -> None:
    found = listed({ROWS: "n", OTHER: "n"})
    assert all(sizes[ROWS] == sizes[OTHER] for sizes in found)
    assert {ROWS: 2, OTHER: 2} in found


@pytest.mark.parametrize("wanted", [3, 100, 2048])
def test_a_hint_is_tried_for_each_dimension(wanted: int) -> None:
    found = listed({ROWS: ROWS, OTHER: OTHER}, hints=(wanted,))
    assert {ROWS: 1, OTHER: wanted} in found
    assert {ROWS: wanted, OTHER: 1} in found


def test_every_size_of_an_image_up_to_128_is_tried() -> None:
    found = [sizes[WIDE] for sizes in listed({ROWS: ROWS, WIDE: WIDE}, 5000) if sizes[ROWS] == 1]
    assert set(range(1, 129)) <= set(found)


def test_hints_are_asked_for_only_after_the_usual_sizes() -> None:
    asked = []

    def hints() -> list[int]:
        asked.append(True)
        return []

    list(islice(tries({ROWS: ROWS, WIDE: WIDE}, hints), len(FIRST_SIZES)))
    assert not asked


def test_the_search_ends() -> None:
    assert len(listed({ROWS: ROWS, WIDE: WIDE}, 100_000)) < 100_000
