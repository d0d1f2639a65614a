// Node's sqs-consumer, written well: batches of ten, ajv compiled once, one multi-row INSERT per batch, the delete
// after it. CONSUMERS of them share one process, one SQS client and one pool of connections.
import { SQSClient } from "@aws-sdk/client-sqs";
import Ajv from "ajv";
import pg from "pg";
import { Consumer } from "sqs-consumer";

const consumers = Number(process.env.CONSUMERS ?? 4);
const queueUrl = process.env.SQS_QUEUE_URL;
const queue = queueUrl.slice(queueUrl.lastIndexOf("/") + 1);
const sqs = new SQSClient({ region: process.env.AWS_REGION, endpoint: process.env.AWS_ENDPOINT_URL });
const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL, max: consumers });

const ajv = new Ajv();
const schemas = new Map();
const found = await pool.query(
  "SELECT DISTINCT ON (event_type) event_type, schema_id, definition FROM event_schema ORDER BY event_type, version DESC",
);
for (const row of found.rows) {
  schemas.set(row.event_type, { id: row.schema_id, validate: ajv.compile(row.definition) });
}

const columns = 11;
const statements = new Map();

/** The statement for so many rows; named, so that PostgreSQL plans it once per connection. */
function statement(rows) {
  if (!statements.has(rows)) {
    const values = Array.from({ length: rows }, (_, row) => {
      const places = Array.from({ length: columns }, (_, column) => `$${row * columns + column + 1}`);
      return `(${places.join(", ")})`;
    });
    statements.set(rows, {
      name: `insert-${rows}`,
      text: `INSERT INTO message (tenant_id, message_id, producer, event_type, schema_id, occurred_at, sent_at,
               payload, queue, delivery_id, receive_count)
             VALUES ${values.join(", ")} ON CONFLICT ON CONSTRAINT message_pkey DO NOTHING`,
    });
  }
  return statements.get(rows);
}

/** Gives an event's values for the table, or undefined where it does not fit. */
function valuesOf(message) {
  const event = JSON.parse(message.Body);
  const schema = schemas.get(event.event_type);
  if (!schema || event.id === undefined || event.tenant_id === undefined || !schema.validate(event.payload)) {
    return undefined;
  }
  return [
    event.tenant_id,
    event.id,
    event.producer ?? "",
    event.event_type,
    schema.id,
    event.occurred_at ?? null,
    new Date(Number(message.Attributes.SentTimestamp)),
    JSON.stringify(event.payload),
    queue,
    message.MessageId,
    Number(message.Attributes.ApproximateReceiveCount),
  ];
}

const byKey = (a, b) => (a[0] < b[0] ? -1 : a[0] > b[0] ? 1 : a[1] < b[1] ? -1 : a[1] > b[1] ? 1 : 0);

/** Stores a batch; what it gives back is deleted by sqs-consumer, the rest stays on the queue. */
async function handleMessageBatch(messages) {
  const stored = [];
  const rows = [];
  for (const message of messages) {
    const values = valuesOf(message);
    if (values) {
      rows.push(values);
      stored.push(message);
    }
  }
  if (rows.length) {
    rows.sort(byKey);
    // One statement outside a transaction is a transaction of its own.
    await pool.query({ ...statement(rows.length), values: rows.flat() });
  }
  return stored;
}

const running = Array.from({ length: consumers }, () => {
  const consumer = Consumer.create({
    queueUrl,
    sqs,
    batchSize: 10,
    waitTimeSeconds: 20,
    messageSystemAttributeNames: ["ApproximateReceiveCount", "SentTimestamp"],
    handleMessageBatch,
  });
  for (const event of ["error", "processing_error"]) {
    consumer.on(event, (error) => console.error(event, error.message));
  }
  consumer.start();
  return consumer;
});

process.on("SIGTERM", () => {
  for (const consumer of running) {
    consumer.stop({ abort: true });
  }
  process.exit(0);
});
