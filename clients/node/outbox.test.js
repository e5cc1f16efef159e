// @ts-check
import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { after, before, test } from 'node:test';
import pg from 'pg';
import { addEvent } from './outbox.js';

const KEY = 'größe/42';
const CORRELATION_ID = '6f1c "ü" \\';
const TRACEPARENT = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01';

const client = new pg.Client(); // PGHOST, PGDATABASE and so on
before(() => client.connect());
after(() => client.end());

test('rollback leaves nothing', async () => {
  const rename = transaction(async () => {
    await client.query('insert into files (id) values ($1)', ['rolled-back']);
    await addEvent(client, renamed(Buffer.from('0')));
    throw new Error('the file is locked');
  });
  await assert.rejects(rename, /the file is locked/);
  const files = await client.query("select from files where id = 'rolled-back'");
  assert.equal(files.rowCount, 0);
});

test('committed events reach Kafka', async () => {
  const all = await events();
  for (const [number, event] of all.entries()) {
    await transaction(async () => {
      await client.query('insert into files (id) values ($1)', [`file-${number}`]);
      await addEvent(client, event);
    });
  }
  await writeExpected([...all, ...(await addText(all))]);
});

/**
 * Adds the payloads with the functions that take text, and returns these events.
 * @param {import('./outbox.js').Event[]} all
 */
async function addText(all) {
  const payloads = all.flatMap(({ payload }) => payload ?? []);
  for (const call of ['enqueue_text', 'enqueue_json']) {
    const sql = `select outbox.${call}('file', 'file-42', 'FileRenamedV1', $1, $2, $3)`;
    for (const payload of payloads) {
      await client.query(sql, [payload.toString(), env('OUTBOX_TOPIC'), KEY]);
    }
  }
  return [...payloads, ...payloads].map((payload) => ({ ...renamed(payload), headers: undefined }));
}

/** @param {() => Promise<void>} work */
async function transaction(work) {
  await client.query('begin');
  try {
    await work();
    await client.query('commit');
  } catch (error) {
    await client.query('rollback');
    throw error;
  }
}

/** @param {Buffer} payload */
function renamed(payload) {
  return {
    aggregateType: 'file',
    aggregateId: 'file-42',
    eventType: 'FileRenamedV1',
    payload,
    topic: env('OUTBOX_TOPIC'),
    key: KEY,
    headers: { correlation_id: CORRELATION_ID, traceparent: TRACEPARENT },
  };
}

/** Returns the events to commit. The last one leaves out topic, key, headers and payload. */
async function events() {
  const lines = (await readFile(env('OUTBOX_PAYLOADS'), 'utf8')).trimEnd().split('\n');
  const serialised = JSON.stringify({ 'written by': 'JSON.stringify’s "\\" é 😀', size: 1e21 }, null, 2);
  return [
    ...[...lines, serialised].map((payload) => renamed(Buffer.from(payload))),
    { aggregateType: 'file', aggregateId: KEY, eventType: 'FileDeletedV1', payload: null },
  ];
}

/**
 * Writes the records as tests/clients/languages reads them from Kafka.
 * @param {import('./outbox.js').Event[]} all
 */
async function writeExpected(all) {
  const records = all.map(({ headers, payload }) =>
    Buffer.concat([
      Buffer.from(headers ? `correlation_id:${CORRELATION_ID},traceparent:${TRACEPARENT}` : ''),
      Buffer.from(`\t${KEY}\t`),
      payload ?? Buffer.from('TOMBSTONE'),
      Buffer.from('\n--\n'),
    ]),
  );
  await writeFile(env('OUTBOX_EXPECTED'), Buffer.concat(records));
}

/** @param {string} name */
function env(name) {
  const value = process.env[name];
  assert.ok(value, `${name} is not set: run tests/clients/languages`);
  return value;
}
