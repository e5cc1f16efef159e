#!/usr/bin/env bash
# Creates the topics of result-aggregator-service, as they are today: 3 partitions, one copy. Existing topics are not changed.
# In production run it with REPLICAS=3 MIN_INSYNC=2. With one copy, a lost disk loses records.
# Keep the number of partitions: with another one, keys move to other partitions.
set -euo pipefail
topics=(
	huleedu.ras.batch.results.ready.v1
	huleedu.ras.batch.assessment.completed.v1
	huleedu.notification.teacher.requested.v1
)
for topic in "${topics[@]}"; do
	"${KAFKA_TOPICS:-kafka-topics.sh}" --bootstrap-server "${KAFKA:-kafka-bootstrap.kafka.svc:9092}" --create --if-not-exists \
		--topic "$topic" --partitions 3 --replication-factor "${REPLICAS:-1}" --config "min.insync.replicas=${MIN_INSYNC:-1}"
done
