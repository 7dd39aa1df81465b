"""What the fuzz tests share: plain values of every kind, spoilt bytes, and what a reader may do with them."""

from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from advbn_hf import InputError

# The same examples in each run, so that nobody's change fails by chance.
many = settings(
    max_examples=2000,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([0, 1, -1, 2**31, 2**64, 10**400]),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["auto", "clean", "fog", "--help", "-h", "--", "-1", "2024-99-99", "0x_", "\ud800", "a\nb", ""]),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=4,
)


def objects(fields: dict[str, st.SearchStrategy]) -> st.SearchStrategy[dict[str, Any]]:
    """Mappings of some of the fields, most with a fitting value, some with any, and now and then a key too many."""
    some = st.fixed_dictionaries({}, optional={name: fitting | values for name, fitting in fields.items()})
    extra = st.just({}) | st.just({}) | st.dictionaries(st.text(max_size=5), values, max_size=1)
    return st.builds(lambda known, unknown: unknown | known, some, extra)


def spoilt(contents: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Contents with a few bytes changed, cut out or put in."""

    def apply(content: bytes, changes: list[tuple[float, int, bytes]]) -> bytes:
        for where, length, new in changes:
            start = int(where * len(content))
            content = content[:start] + new + content[start + length :]
        return content

    change = st.tuples(st.floats(0, 1), st.integers(0, 8), st.binary(max_size=4))
    return st.builds(apply, contents, st.lists(change, min_size=1, max_size=4))


def read_or_refuse(read: Callable[[], Any]) -> Any:
    """What was read, or None where it was refused with one line; anything else fails."""
    try:
        return read()
    except InputError as error:
        assert len(str(error).splitlines()) == 1, str(error)
        return None
