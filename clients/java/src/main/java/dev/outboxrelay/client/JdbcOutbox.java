package dev.outboxrelay.client;

import java.sql.Connection;
import java.sql.SQLException;

/** Adds events to the outbox with JDBC. */
public final class JdbcOutbox {
    private static final String ENQUEUE = """
            select outbox.enqueue_bytes(
              aggregate_type => ?, aggregate_id => ?, event_type => ?, payload => ?,
              topic => ?, event_key => ?, headers => jsonb_object(?, ?))""";

    private JdbcOutbox() {}

    /** Adds an event to the connection's transaction. The caller commits it or rolls it back. */
    public static void addEvent(Connection connection, Event event) throws SQLException {
        if (connection.getAutoCommit()) {
            throw new IllegalStateException("addEvent needs a transaction: call setAutoCommit(false)");
        }
        try (var statement = connection.prepareStatement(ENQUEUE)) {
            statement.setString(1, event.aggregateType());
            statement.setString(2, event.aggregateId());
            statement.setString(3, event.eventType());
            statement.setBytes(4, event.payload());
            statement.setString(5, event.topic());
            statement.setString(6, event.key());
            statement.setArray(7, connection.createArrayOf("text", event.headerNames()));
            statement.setArray(8, connection.createArrayOf("text", event.headerValues()));
            statement.execute();
        }
    }
}
