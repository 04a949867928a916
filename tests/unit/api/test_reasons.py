import re

import pytest

from moorage_api import errors
from moorage_api.reasons import Condition, Phase, Reason


@pytest.mark.parametrize("word", [*Condition, *Phase, *Reason], ids=repr)
def test_a_word_is_one_that_a_metav1_condition_takes(word: str) -> None:
    assert re.fullmatch(r"[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?", word)


def test_every_rejection_of_a_model_is_a_reason() -> None:
    # The class's name is what users see in a status.
    for kind in errors.ModelRejected.__subclasses__():
        assert Reason(kind.__name__)
