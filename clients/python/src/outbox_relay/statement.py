"""SQL with parameters, in the form that each database library expects. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass


class HiddenBytes(bytes):
    """Bytes that are not shown where a library prints the parameters of a statement."""

    def __repr__(self) -> str:
        return f"<{len(self)} bytes>"


class HiddenStr(str):
    """Text that is not shown where a library prints the parameters of a statement."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{len(self)} characters>"


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement of SQL whose parameters are written `{name}`.

    Each parameter is cast to its type in the SQL. Text goes in as text, also where PostgreSQL needs
    `jsonb` or `uuid`: a codec that the application has set for those types is then not used.
    """

    template: str
    parameters: Mapping[str, object]

    def numbered(self) -> tuple[str, list[object]]:
        """Return SQL with `$1`, for asyncpg."""
        places = {name: f"${place}" for place, name in enumerate(self.parameters, start=1)}
        return self.template.format_map(places), list(self.parameters.values())

    def named(self) -> tuple[str, dict[str, object]]:
        """Return SQL with `:name`, for `sqlalchemy.text`."""
        places = {name: f":{name}" for name in self.parameters}
        return self.template.format_map(places), dict(self.parameters)

    def pyformat(self) -> tuple[bytes, dict[str, object]]:
        """Return SQL with `%(name)s`, for psycopg."""
        places = {name: f"%({name})s" for name in self.parameters}
        return self.template.format_map(places).encode(), dict(self.parameters)
