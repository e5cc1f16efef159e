"""What every event carries about the request that caused it: correlation id and trace."""

from contextvars import ContextVar

try:
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError:  # the extra `opentelemetry` is not installed
    _propagator = None
else:
    _propagator = TraceContextTextMapPropagator()

correlation_id: ContextVar[str | None] = ContextVar("outbox_relay.correlation_id", default=None)
"""The correlation id of the current request. Set it in a middleware; events then carry it."""


def trace_headers() -> dict[str, str]:
    """Return W3C `traceparent`, and `tracestate` if there is one, of the current span.

    The result is empty without OpenTelemetry, and outside of a valid span.
    """
    carrier: dict[str, str] = {}
    if _propagator is not None:
        _propagator.inject(carrier)
    return carrier
