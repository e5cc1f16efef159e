package dev.outboxrelay.client;

import java.util.Map;

/**
 * An event for the outbox.
 *
 * @param payload value of the record, byte for byte; null: a tombstone
 * @param topic null: the topic that the manifest routes the type to
 * @param key null: the aggregate's id
 * @param headers headers of the record, such as correlation_id and traceparent; may be empty
 */
public record Event(
        String aggregateType,
        String aggregateId,
        String eventType,
        byte[] payload,
        String topic,
        String key,
        Map<String, String> headers) {

    /** Returns the names of the headers, in the order of {@link #headerValues}. */
    String[] headerNames() {
        return headers.keySet().toArray(String[]::new);
    }

    String[] headerValues() {
        return headers.values().toArray(String[]::new);
    }
}
