#!/usr/bin/env bash
# Creates the topics of essay-lifecycle-service, as they are today: 3 partitions, one copy. Existing topics are not changed.
# In production run it with REPLICAS=3 MIN_INSYNC=2. With one copy, a lost disk loses records.
# Keep the number of partitions: with another one, keys move to other partitions.
set -euo pipefail
topics=(
	huleedu.els.excess.content.provisioned.v1
	huleedu.els.batch.essays.ready.v1
	huleedu.batch.content.provisioning.completed.v1
	huleedu.els.batch.validation.errors.v1
	huleedu.els.batch.phase.outcome.v1
	huleedu.batch.nlp.processing.requested.v2
	huleedu.els.cj_assessment.requested.v1
	huleedu.batch.student.matching.requested.v1
	huleedu.els.essay.slot.assigned.v1
	huleedu.essay.spellcheck.requested.v1
	essay.status.events
	batch.phase.progress.events
	batch.phase.concluded.events
	huleedu.notification.teacher.requested.v1
)
for topic in "${topics[@]}"; do
	"${KAFKA_TOPICS:-kafka-topics.sh}" --bootstrap-server "${KAFKA:-kafka-bootstrap.kafka.svc:9092}" --create --if-not-exists \
		--topic "$topic" --partitions 3 --replication-factor "${REPLICAS:-1}" --config "min.insync.replicas=${MIN_INSYNC:-1}"
done
