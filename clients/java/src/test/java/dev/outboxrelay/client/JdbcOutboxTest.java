package dev.outboxrelay.client;

import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;

import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.SQLException;
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
        TestEvents.writeExpected(events);
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
