"""Names of schemas and tables that go into SQL. Pure."""

import re

_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}")


def quoted_name(argument: str, name: str) -> str:
    """Return a name in double quotes.

    Raises:
        ValueError: If it is not a name that OutboxRelay accepts.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name.startswith("pg_"):
        raise ValueError(
            f"{argument} is not a usable name: use at most 63 of a-z, 0-9 and _, "
            "not beginning with a digit or pg_"
        )
    return f'"{name}"'
