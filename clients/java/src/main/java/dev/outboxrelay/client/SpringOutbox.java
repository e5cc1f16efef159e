package dev.outboxrelay.client;

import org.springframework.jdbc.core.simple.JdbcClient;
import org.springframework.stereotype.Repository;
import org.springframework.transaction.annotation.Propagation;
import org.springframework.transaction.annotation.Transactional;

/** Adds events to the outbox in transactions of Spring. */
@Repository
public class SpringOutbox {
    private static final String ENQUEUE = """
            select outbox.enqueue_bytes(
              aggregate_type => :aggregateType, aggregate_id => :aggregateId,
              event_type => :eventType, payload => :payload, topic => :topic, event_key => :key,
              headers => jsonb_object(:headerNames, :headerValues))""";

    private final JdbcClient jdbc;

    public SpringOutbox(JdbcClient jdbc) {
        this.jdbc = jdbc;
    }

    /** Adds an event to the transaction of the caller. Fails if there is none. */
    @Transactional(propagation = Propagation.MANDATORY)
    public void addEvent(Event event) {
        jdbc.sql(ENQUEUE)
                .param("aggregateType", event.aggregateType())
                .param("aggregateId", event.aggregateId())
                .param("eventType", event.eventType())
                .param("payload", event.payload())
                .param("topic", event.topic())
                .param("key", event.key())
                .param("headerNames", event.headerNames())
                .param("headerValues", event.headerValues())
                .query(Long.class)
                .single();
    }
}
