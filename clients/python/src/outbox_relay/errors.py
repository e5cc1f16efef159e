"""Errors of this library. Their messages contain no payload and no value of a header."""


class OutboxClientError(Exception):
    """Base of all errors of this library."""


class InvalidEventError(OutboxClientError, ValueError):
    """An argument of an event is not usable. Nothing was sent to the database."""


class NoTransactionError(OutboxClientError, RuntimeError):
    """The connection has no open transaction, so a statement would commit on its own."""


class MissingHeaderError(OutboxClientError, ValueError):
    """A record has nothing by which a duplicate could be recognised."""


class StillHandledError(OutboxClientError, TimeoutError):
    """Another consumer has claimed the record and has neither finished nor released it."""
