-- The books: every delivery that the queue hands over ends as exactly one row in one of these three tables,
-- and leaves the queue only after that row is committed.

CREATE TABLE message (
  tenant_id     text COLLATE "C" NOT NULL CONSTRAINT message_tenant_fkey REFERENCES tenant,
  message_id    text COLLATE "C" NOT NULL,
  producer      text COLLATE "C" NOT NULL DEFAULT '',
  event_type    text COLLATE "C" NOT NULL,
  schema_id     bigint NOT NULL,
  occurred_at   timestamptz NULL,
  sent_at       timestamptz NOT NULL,
  stored_at     timestamptz NOT NULL DEFAULT now(),
  payload       jsonb NOT NULL,
  context       jsonb NULL,
  queue         text COLLATE "C" NOT NULL,
  delivery_id   text COLLATE "C" NOT NULL,
  receive_count int NOT NULL,
  CONSTRAINT message_pkey PRIMARY KEY (tenant_id, message_id, producer),
  CONSTRAINT message_schema_fkey FOREIGN KEY (schema_id, event_type) REFERENCES event_schema (schema_id, event_type),
  CONSTRAINT message_id_fit CHECK (char_length(message_id) BETWEEN 1 AND 256),
  CONSTRAINT message_producer_fit CHECK (char_length(producer) <= 256),
  CONSTRAINT message_receive_count_positive CHECK (receive_count >= 1)
);
COMMENT ON TABLE message IS 'The events: validated, each exactly once. Usage is billed from these rows.';
COMMENT ON COLUMN message.tenant_id IS 'The tenant that owns the event.';
COMMENT ON COLUMN message.message_id IS 'The id its producer gave it, or queue/delivery_id where it gave none.';
COMMENT ON COLUMN message.producer IS 'The application that made the event (CloudEvents source); empty if it named none.';
COMMENT ON COLUMN message.event_type IS 'The kind of event.';
COMMENT ON COLUMN message.schema_id IS 'The event_schema that the payload was validated by.';
COMMENT ON COLUMN message.occurred_at IS 'When the event says that it happened; NULL: it named no time.';
COMMENT ON COLUMN message.sent_at IS 'When the queue took the message from its producer.';
COMMENT ON COLUMN message.stored_at IS 'When the transaction that stored it began.';
COMMENT ON COLUMN message.payload IS 'What the producer has to say; numbers keep every digit.';
COMMENT ON COLUMN message.context IS 'Other fields of the envelope, such as CloudEvents extensions and traceparent; NULL: none.';
COMMENT ON COLUMN message.queue IS 'The name of the queue it came from.';
COMMENT ON COLUMN message.delivery_id IS 'The id the queue gave it (SQS MessageId).';
COMMENT ON COLUMN message.receive_count IS 'How often the queue had handed it over by the time it was stored.';
CREATE INDEX message_stored_at_brin ON message USING brin (stored_at);

CREATE TABLE duplicate (
  queue         text COLLATE "C" NOT NULL,
  delivery_id   text COLLATE "C" NOT NULL,
  tenant_id     text COLLATE "C" NOT NULL,
  message_id    text COLLATE "C" NOT NULL,
  producer      text COLLATE "C" NOT NULL,
  sent_at       timestamptz NOT NULL,
  receive_count int NOT NULL,
  received_at   timestamptz NOT NULL,
  CONSTRAINT duplicate_pkey PRIMARY KEY (queue, delivery_id),
  CONSTRAINT duplicate_receive_count_positive CHECK (receive_count >= 1)
);
COMMENT ON TABLE duplicate IS 'Deliveries of a message that was stored before, with the same content. They count nowhere.';
COMMENT ON COLUMN duplicate.queue IS 'The name of the queue it came from.';
COMMENT ON COLUMN duplicate.delivery_id IS 'The id the queue gave it (SQS MessageId).';
COMMENT ON COLUMN duplicate.tenant_id IS 'The tenant of the message that it repeats.';
COMMENT ON COLUMN duplicate.message_id IS 'The id of the message that it repeats.';
COMMENT ON COLUMN duplicate.producer IS 'The producer of the message that it repeats.';
COMMENT ON COLUMN duplicate.sent_at IS 'When the queue took this delivery from its producer.';
COMMENT ON COLUMN duplicate.receive_count IS 'How often the queue had handed it over by then.';
COMMENT ON COLUMN duplicate.received_at IS 'When the processor received it.';
CREATE INDEX duplicate_message_idx ON duplicate (tenant_id, message_id, producer);

CREATE TABLE rejection (
  rejection_id  bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT rejection_pkey PRIMARY KEY,
  queue         text COLLATE "C" NOT NULL,
  delivery_id   text COLLATE "C" NOT NULL,
  reason        text NOT NULL,
  detail        jsonb NOT NULL,
  body          bytea NOT NULL,
  attributes    jsonb NOT NULL,
  tenant_id     text COLLATE "C" NULL,
  event_type    text COLLATE "C" NULL,
  message_id    text COLLATE "C" NULL,
  producer      text COLLATE "C" NULL,
  sent_at       timestamptz NOT NULL,
  receive_count int NOT NULL,
  rejected_at   timestamptz NOT NULL DEFAULT now(),
  status        text NOT NULL DEFAULT 'open',
  replay_count  int NOT NULL DEFAULT 0,
  closed_at     timestamptz NULL,
  CONSTRAINT rejection_delivery_key UNIQUE (queue, delivery_id),
  CONSTRAINT rejection_reason_known CHECK (reason IN (
    'not_utf8', 'not_json', 'envelope_invalid', 'unknown_tenant', 'tenant_suspended', 'unknown_event_type',
    'unknown_schema_version', 'schema_violation', 'id_conflict', 'too_large', 'unstorable', 'dead_lettered')),
  CONSTRAINT rejection_status_known CHECK (status IN ('open', 'replayed', 'discarded')),
  CONSTRAINT rejection_closed CHECK ((status = 'open') = (closed_at IS NULL)),
  CONSTRAINT rejection_receive_count_positive CHECK (receive_count >= 1)
);
COMMENT ON TABLE rejection IS 'Deliveries that could not become a message, whole, with the reason. Nothing is thrown away: look, mend the cause, replay.';
COMMENT ON COLUMN rejection.rejection_id IS 'Names the rejection on the command line.';
COMMENT ON COLUMN rejection.queue IS 'The name of the queue it came from.';
COMMENT ON COLUMN rejection.delivery_id IS 'The id the queue gave it (SQS MessageId).';
COMMENT ON COLUMN rejection.reason IS 'Why it was rejected, in one word of a fixed list.';
COMMENT ON COLUMN rejection.detail IS 'What exactly was wrong: message, and for payloads errors (pointer, rule, message; the first 50) and error_count.';
COMMENT ON COLUMN rejection.body IS 'The body, byte for byte.';
COMMENT ON COLUMN rejection.attributes IS 'The message attributes: a string each, or {"base64": ...} where binary.';
COMMENT ON COLUMN rejection.tenant_id IS 'The tenant as claimed; it need not exist. At most 256 characters are kept.';
COMMENT ON COLUMN rejection.event_type IS 'The event type as claimed; it need not exist.';
COMMENT ON COLUMN rejection.message_id IS 'The message id as claimed.';
COMMENT ON COLUMN rejection.producer IS 'The producer as claimed.';
COMMENT ON COLUMN rejection.sent_at IS 'When the queue took the message from its producer.';
COMMENT ON COLUMN rejection.receive_count IS 'How often the queue had handed it over by then.';
COMMENT ON COLUMN rejection.rejected_at IS 'When the transaction that last rejected it began.';
COMMENT ON COLUMN rejection.status IS 'open: waits for a person. replayed: has become a message or a duplicate since. discarded: a person gave it up.';
COMMENT ON COLUMN rejection.replay_count IS 'How often it was replayed, with success or without.';
COMMENT ON COLUMN rejection.closed_at IS 'When it was replayed with success or discarded; NULL while open.';
CREATE INDEX rejection_open_idx ON rejection (rejection_id) WHERE status = 'open';
CREATE INDEX rejection_message_idx ON rejection (message_id, tenant_id);
