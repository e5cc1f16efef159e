package outbox

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/jackc/pgx/v5"
)

const (
	correlationID = `6f1c "ü" \`
	traceparent   = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
)

var key = "größe/42"

func TestRollbackLeavesNothing(t *testing.T) {
	conn := connect(t)
	failure := errors.New("the file is locked")
	err := pgx.BeginFunc(t.Context(), conn, func(tx pgx.Tx) error {
		addFile(t, tx, "rolled-back")
		if err := AddEvent(t.Context(), tx, rename(t, []byte("0"))); err != nil {
			t.Fatal(err)
		}
		return failure
	})
	if err != failure {
		t.Fatal(err)
	}
	var files int
	query := "select count(*) from files where id = 'rolled-back'"
	if err := conn.QueryRow(t.Context(), query).Scan(&files); err != nil || files != 0 {
		t.Fatal(files, err)
	}
}

func TestCommittedEventsReachKafka(t *testing.T) {
	conn := connect(t)
	events := events(t)
	for number, event := range events {
		err := pgx.BeginFunc(t.Context(), conn, func(tx pgx.Tx) error {
			addFile(t, tx, fmt.Sprintf("file-%d", number))
			return AddEvent(t.Context(), tx, event)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	writeExpected(t, append(events, addText(t, conn, events)...))
}

// addText adds the payloads with the functions that take text, and returns these events.
func addText(t *testing.T, conn *pgx.Conn, events []Event) (added []Event) {
	for _, function := range []string{"enqueue_text", "enqueue_json"} {
		call := fmt.Sprintf(`select outbox.%s('file', 'file-42', 'FileRenamedV1', $1, $2, $3)`, function)
		for _, event := range events[:len(events)-1] {
			_, err := conn.Exec(t.Context(), call, string(event.Payload), event.Topic, event.Key)
			if err != nil {
				t.Fatal(err)
			}
			added = append(added, Event{Payload: event.Payload})
		}
	}
	return added
}

func connect(t *testing.T) *pgx.Conn {
	conn, err := pgx.Connect(t.Context(), "") // PGHOST, PGDATABASE and so on
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func addFile(t *testing.T, tx pgx.Tx, id string) {
	if _, err := tx.Exec(t.Context(), "insert into files (id) values ($1)", id); err != nil {
		t.Fatal(err)
	}
}

func rename(t *testing.T, payload []byte) Event {
	topic := env(t, "OUTBOX_TOPIC")
	return Event{
		AggregateType: "file", AggregateID: "file-42", EventType: "FileRenamedV1",
		Payload: payload, Topic: &topic, Key: &key,
		Headers: map[string]string{"correlation_id": correlationID, "traceparent": traceparent},
	}
}

// events returns the events to commit. The last one leaves out topic, key, headers and payload.
func events(t *testing.T) (events []Event) {
	payloads, err := os.ReadFile(env(t, "OUTBOX_PAYLOADS"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(payloads) {
		events = append(events, rename(t, bytes.TrimSuffix(line, []byte("\n"))))
	}
	serialised, err := json.MarshalIndent(map[string]any{"written by": `Go's "json" \ <é> 😀`, "size": 1e21}, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	events = append(events, rename(t, serialised))
	return append(events, Event{AggregateType: "file", AggregateID: key, EventType: "FileDeletedV1"})
}

// writeExpected writes the records as tests/clients/languages reads them from Kafka.
func writeExpected(t *testing.T, events []Event) {
	var records bytes.Buffer
	for _, event := range events {
		if event.Headers != nil {
			fmt.Fprintf(&records, "correlation_id:%s,traceparent:%s", correlationID, traceparent)
		}
		value := event.Payload
		if value == nil {
			value = []byte("TOMBSTONE")
		}
		fmt.Fprintf(&records, "\t%s\t%s\n--\n", key, value)
	}
	if err := os.WriteFile(env(t, "OUTBOX_EXPECTED"), records.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

func env(t *testing.T, name string) string {
	value, ok := os.LookupEnv(name)
	if !ok {
		t.Fatalf("%s is not set: run tests/clients/languages", name)
	}
	return value
}
