"""Settings of property tests that are to be quick, and find the same in every run."""

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

QUICK = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
YAML = st.one_of(
    st.sampled_from(
        (
            *("", "~", "true", "-1", "0", "1e999", ".nan", ".inf", "0x", "9" * 400, "[]", "{}"),
            *("2026-99-99", "12:61:99", "*a", "&a [*a]", "!!python/name:os.system", "!!binary x"),
            *(
                "[" * 400,
                "{a: [1, {b: 2}]}",
                "- 1",
                "? {}",
                "\t",
                "%",
                "'",
                "\x00",
                "日本",
                "<<: 1",
            ),
        )
    ),
    st.text(max_size=20),
    st.integers().map(str),
    st.floats().map(str),
)
"""What may stand for a value in a file of settings."""
