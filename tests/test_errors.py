"""What messages have in common."""

import pytest

from advbn_hf.errors import InputError, check_choice, first_line, one_line


def test_a_choice_that_there_is():
    check_choice("branch", "clean", ("clean", "auxiliary"))
    check_choice("severity", 3, range(1, 6))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("auxilary", "branch: .*auxilary.*mean 'auxiliary'"),
        ("x", "branch: .*'x'.*clean, auxiliary"),
        ([1], "branch"),
        (None, "branch"),
    ],
)
def test_another_one_names_the_field_and_what_there_is(value, message):
    with pytest.raises(InputError, match=message):
        check_choice("branch", value, {"clean": 0, "auxiliary": 1})


@pytest.mark.parametrize(
    ("text", "first", "line"),
    [("", "KeyError", "KeyError"), (" \n a b \n c.\n", "a b", "a b c"), ("a", "a", "a")],
)
def test_the_text_of_an_error_on_one_line(text, first, line):
    error = type("KeyError", (Exception,), {})(text)
    assert (first_line(error), one_line(error)) == (first, line)
