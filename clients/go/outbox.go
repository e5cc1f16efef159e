// Package outbox adds events to the outbox table of OutboxRelay.
package outbox

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// An Event for the outbox.
type Event struct {
	AggregateType, AggregateID, EventType string
	// Payload is the value of the record, byte for byte. Nil is a tombstone.
	Payload []byte
	// Topic may be nil: the manifest then routes the type to a topic.
	Topic *string
	// Key may be nil: the key is then AggregateID.
	Key *string
	// Headers of the record, such as correlation_id and traceparent. May be nil.
	Headers map[string]string
}

const enqueue = `select outbox.enqueue_bytes(
	aggregate_type => $1, aggregate_id => $2, event_type => $3, payload => $4,
	topic => $5, event_key => $6, headers => $7)`

// AddEvent adds an event to the transaction. The caller commits it or rolls it back.
func AddEvent(ctx context.Context, tx pgx.Tx, event Event) error {
	_, err := tx.Exec(ctx, enqueue, event.AggregateType, event.AggregateID, event.EventType,
		event.Payload, event.Topic, event.Key, event.Headers)
	return err
}
