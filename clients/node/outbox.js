// @ts-check

/**
 * An event for the outbox.
 * @typedef {object} Event
 * @property {string} aggregateType
 * @property {string} aggregateId
 * @property {string} eventType
 * @property {Buffer | null} payload value of the record, byte for byte; null: a tombstone
 * @property {string} [topic] without it, the topic that the manifest routes the type to
 * @property {string} [key] without it, the aggregate's id
 * @property {Record<string, string>} [headers] such as correlation_id and traceparent
 */

const ENQUEUE = `select outbox.enqueue_bytes(
  aggregate_type => $1, aggregate_id => $2, event_type => $3, payload => $4,
  topic => $5, event_key => $6, headers => $7)`;

/**
 * Adds an event to the client's transaction. The caller has sent `begin`, and sends `commit` or
 * `rollback`.
 * @param {import('pg').ClientBase} client not a Pool, which has no transaction
 * @param {Event} event
 * @returns {Promise<void>}
 */
export async function addEvent(client, event) {
  await client.query(ENQUEUE, [
    event.aggregateType,
    event.aggregateId,
    event.eventType,
    event.payload,
    event.topic,
    event.key,
    JSON.stringify(event.headers ?? {}),
  ]);
}
