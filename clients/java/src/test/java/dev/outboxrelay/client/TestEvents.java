package dev.outboxrelay.client;

import static java.nio.charset.StandardCharsets.UTF_8;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;

/** The events that the tests commit, and the records that Kafka should then have. */
final class TestEvents {
    static final String URL = "jdbc:postgresql://%s:%s/%s"
            .formatted(env("PGHOST"), env("PGPORT"), env("PGDATABASE"));
    static final String USER = env("PGUSER");
    static final String PASSWORD = env("PGPASSWORD");

    private static final String KEY = "größe/42";
    private static final String CORRELATION_ID = "6f1c \"ü\" \\";
    private static final String TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    private TestEvents() {}

    static Event rename(byte[] payload) {
        return new Event("file", "file-42", "FileRenamedV1", payload, env("OUTBOX_TOPIC"), KEY,
                Map.of("correlation_id", CORRELATION_ID, "traceparent", TRACEPARENT));
    }

    /** Returns an event that leaves out what it can: topic, key, headers and payload. */
    static Event delete() {
        return new Event("file", KEY, "FileDeletedV1", null, null, null, Map.of());
    }

    static List<Event> all() throws IOException {
        var events = new ArrayList<Event>();
        for (String line : Files.readAllLines(Path.of(env("OUTBOX_PAYLOADS")))) {
            events.add(rename(line.getBytes(UTF_8)));
        }
        events.add(rename("{\n  \"written by\": \"Java’s 'text' \\\\ \\u00e9\"\n}".getBytes(UTF_8)));
        events.add(delete());
        return events;
    }

    /** Returns the events whose payload is text, twice, as the functions that take text add them. */
    static List<Event> texts(List<Event> events) {
        var texts = events.stream().filter(event -> event.payload() != null)
                .map(event -> new Event(event.aggregateType(), event.aggregateId(), event.eventType(),
                        event.payload(), event.topic(), event.key(), Map.of()))
                .toList();
        return Stream.concat(texts.stream(), texts.stream()).toList();
    }

    /** Writes the records as tests/clients/languages reads them from Kafka. */
    static void writeExpected(List<Event> events) throws IOException {
        var records = new ByteArrayOutputStream();
        for (Event event : events) {
            String headers = event.headers().isEmpty()
                    ? ""
                    : "correlation_id:" + CORRELATION_ID + ",traceparent:" + TRACEPARENT;
            records.writeBytes((headers + "\t" + KEY + "\t").getBytes(UTF_8));
            records.writeBytes(event.payload() == null ? "TOMBSTONE".getBytes(UTF_8) : event.payload());
            records.writeBytes("\n--\n".getBytes(UTF_8));
        }
        Files.write(Path.of(env("OUTBOX_EXPECTED")), records.toByteArray());
    }

    private static String env(String name) {
        String value = System.getenv(name);
        if (value == null) {
            throw new IllegalStateException(name + " is not set: run tests/clients/languages");
        }
        return value;
    }
}
