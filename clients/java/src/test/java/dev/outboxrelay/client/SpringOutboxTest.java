package dev.outboxrelay.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import javax.sql.DataSource;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.springframework.context.annotation.AnnotationConfigApplicationContext;
import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.Configuration;
import org.springframework.context.annotation.Import;
import org.springframework.jdbc.core.simple.JdbcClient;
import org.springframework.jdbc.datasource.DriverManagerDataSource;
import org.springframework.jdbc.support.JdbcTransactionManager;
import org.springframework.transaction.IllegalTransactionStateException;
import org.springframework.transaction.annotation.EnableTransactionManagement;
import org.springframework.transaction.annotation.Transactional;

class SpringOutboxTest {
    /** A service that changes its data and adds an event in one transaction. */
    static class FileService {
        private final JdbcClient jdbc;
        private final SpringOutbox outbox;

        FileService(JdbcClient jdbc, SpringOutbox outbox) {
            this.jdbc = jdbc;
            this.outbox = outbox;
        }

        @Transactional
        public void add(String id, Event event) {
            jdbc.sql("insert into files (id) values (:id)").param("id", id).update();
            outbox.addEvent(event);
        }

        @Transactional
        public void addAndFail(String id, Event event) {
            add(id, event);
            throw new IllegalArgumentException("the file is locked");
        }
    }

    @Configuration
    @EnableTransactionManagement
    @Import({SpringOutbox.class, FileService.class})
    static class Beans {
        @Bean
        DataSource dataSource() {
            return new DriverManagerDataSource(TestEvents.URL, TestEvents.USER, TestEvents.PASSWORD);
        }

        @Bean
        JdbcTransactionManager transactionManager(DataSource dataSource) {
            return new JdbcTransactionManager(dataSource);
        }

        @Bean
        JdbcClient jdbcClient(DataSource dataSource) {
            return JdbcClient.create(dataSource);
        }
    }

    private final AnnotationConfigApplicationContext context = new AnnotationConfigApplicationContext(Beans.class);
    private final FileService service = context.getBean(FileService.class);

    @AfterEach
    void close() {
        context.close();
    }

    @Test
    void rollbackLeavesNothing() {
        var event = TestEvents.rename(new byte[] {'0'});
        assertThrows(IllegalArgumentException.class, () -> service.addAndFail("rolled-back", event));
        var files = context.getBean(JdbcClient.class).sql("select count(*) from files where id = 'rolled-back'");
        assertEquals(0L, files.query(Long.class).single());
    }

    @Test
    void committedEventsReachKafka() throws Exception {
        var events = TestEvents.all();
        for (int number = 0; number < events.size(); number++) {
            service.add("file-" + number, events.get(number));
        }
        TestEvents.writeExpected(events);
    }

    @Test
    void needsATransaction() {
        var outbox = context.getBean(SpringOutbox.class);
        assertThrows(IllegalTransactionStateException.class, () -> outbox.addEvent(TestEvents.delete()));
    }
}
