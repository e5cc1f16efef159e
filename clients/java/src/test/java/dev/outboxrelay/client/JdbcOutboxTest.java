package dev.outboxrelay.client;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;

import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.SQLException;
import java.util.List;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

class JdbcOutboxTest {
    private Connection connection;

    @BeforeEach
    void connect() throws SQLException {
        connection = DriverManager.getConnection(TestEvents.URL, TestEvents.USER, TestEvents.PASSWORD);
        connection.setAutoCommit(false);
    }

    @AfterEach
    void disconnect() throws SQLException {
        connection.close();
    }

    @Test
    void rollbackLeavesNothing() throws SQLException {
        addFile("rolled-back");
        JdbcOutbox.addEvent(connection, TestEvents.rename(new byte[] {'0'}));
        connection.rollback();
        try (var files = connection.createStatement().executeQuery("select from files where id = 'rolled-back'")) {
            assertFalse(files.next());
        }
    }

    @Test
    void committedEventsReachKafka() throws Exception {
        var events = TestEvents.all();
        for (int number = 0; number < events.size(); number++) {
            addFile("file-" + number);
            JdbcOutbox.addEvent(connection, events.get(number));
            connection.commit();
        }
        events.addAll(addTexts(events));
        TestEvents.writeExpected(events);
    }

    /** Adds the payloads with the functions that take text. A string is no JSON without a cast. */
    private List<Event> addTexts(List<Event> events) throws SQLException {
        var added = TestEvents.texts(events);
        for (int number = 0; number < added.size(); number++) {
            var call = number < added.size() / 2 ? "enqueue_text(?, ?, ?, ?, ?, ?)" : "enqueue_json(?, ?, ?, ?::json, ?, ?)";
            var event = added.get(number);
            try (var statement = connection.prepareStatement("select outbox." + call)) {
                statement.setString(1, event.aggregateType());
                statement.setString(2, event.aggregateId());
                statement.setString(3, event.eventType());
                statement.setString(4, new String(event.payload(), UTF_8));
                statement.setString(5, event.topic());
                statement.setString(6, event.key());
                statement.execute();
            }
            connection.commit();
        }
        return added;
    }

    @Test
    void needsATransaction() throws SQLException {
        connection.setAutoCommit(true);
        assertThrows(IllegalStateException.class, () -> JdbcOutbox.addEvent(connection, TestEvents.delete()));
    }

    private void addFile(String id) throws SQLException {
        try (var statement = connection.prepareStatement("insert into files (id) values (?)")) {
            statement.setString(1, id);
            statement.execute();
        }
    }
}
