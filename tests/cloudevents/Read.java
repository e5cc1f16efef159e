import io.cloudevents.CloudEvent;
import io.cloudevents.kafka.KafkaMessageFactory;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.Map;
import java.util.TreeSet;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/** Reads a topic of one partition to its end, as a consumer of the CloudEvents SDK does, and prints a line for each event. */
class Read {
    public static void main(String[] arguments) {
        var partition = new TopicPartition(arguments[1], 0);
        var bytes = new ByteArrayDeserializer();
        try (var consumer = new KafkaConsumer<>(Map.of("bootstrap.servers", arguments[0]), bytes, bytes)) {
            consumer.assign(java.util.List.of(partition));
            consumer.seekToBeginning(consumer.assignment());
            long end = consumer.endOffsets(consumer.assignment()).get(partition);
            long giveUp = System.nanoTime() + Duration.ofSeconds(60).toNanos();
            while (consumer.position(partition) < end) {
                if (System.nanoTime() > giveUp) {
                    throw new IllegalStateException("after 60 s at " + consumer.position(partition) + " of " + end);
                }
                for (var record : consumer.poll(Duration.ofSeconds(1))) {
                    System.out.println(line(KafkaMessageFactory.createReader(record).toEvent()));
                }
            }
        }
    }

    static String line(CloudEvent event) {
        var line = new StringBuilder();
        for (var name : new TreeSet<>(event.getAttributeNames())) {
            line.append(name).append('=').append(event.getAttribute(name)).append(' ');
        }
        for (var name : new TreeSet<>(event.getExtensionNames())) {
            line.append(name).append('=').append(event.getExtension(name)).append(' ');
        }
        var data = event.getData() == null ? "none" : new String(event.getData().toBytes(), StandardCharsets.UTF_8);
        return line.append("data=").append(data).toString();
    }
}
