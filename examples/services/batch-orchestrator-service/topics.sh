#!/usr/bin/env bash
# Creates the topics of batch-orchestrator-service, as they are today: 3 partitions, one copy. Existing topics are not changed.
# In production run it with REPLICAS=3 MIN_INSYNC=2. With one copy, a lost disk loses records.
# Keep the number of partitions: with another one, keys move to other partitions.
set -euo pipefail
topics=(
	huleedu.batch.essays.registered.v1
	huleedu.els.spellcheck.initiate.command.v1
	huleedu.batch.student.matching.initiate.command.v1
	huleedu.batch.pipeline.completed.v1
	huleedu.batch.cj_assessment.initiate.command.v1
	huleedu.batch.nlp.initiate.command.v2
	huleedu.batch.ai_feedback.initiate.command.v1
	huleedu.pipeline.denied.v1
	huleedu.notification.teacher.requested.v1
)
for topic in "${topics[@]}"; do
	"${KAFKA_TOPICS:-kafka-topics.sh}" --bootstrap-server "${KAFKA:-kafka-bootstrap.kafka.svc:9092}" --create --if-not-exists \
		--topic "$topic" --partitions 3 --replication-factor "${REPLICAS:-1}" --config "min.insync.replicas=${MIN_INSYNC:-1}"
done
