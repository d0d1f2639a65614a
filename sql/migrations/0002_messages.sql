-- Outcomes: every delivery becomes exactly one row of message, duplicate or rejection, and is deleted from the queue
-- only after that row is committed. Also the notes on deliveries that are not settled yet.

CREATE TABLE message (
  tenant_id        text COLLATE "C" NOT NULL CONSTRAINT message_tenant_fkey REFERENCES tenant,
  message_id       text COLLATE "C" NOT NULL,
  producer         text COLLATE "C" NOT NULL DEFAULT '',
  event_type       text COLLATE "C" NOT NULL,
  schema_id        bigint NOT NULL,
  occurred_at      timestamptz NULL,
  sent_at          timestamptz NOT NULL,
  stored_at        timestamptz NOT NULL DEFAULT now(),
  payload          jsonb NOT NULL,
  context          jsonb NULL,
  queue            text COLLATE "C" NOT NULL,
  delivery_id      text COLLATE "C" NOT NULL,
  receive_count    int NOT NULL,
  occurred_at_rest text COLLATE "C" NULL,
  CONSTRAINT message_pkey PRIMARY KEY (tenant_id, message_id, producer),
  CONSTRAINT message_schema_fkey FOREIGN KEY (schema_id, event_type) REFERENCES event_schema (schema_id, event_type),
  CONSTRAINT message_id_fit CHECK (char_length(message_id) BETWEEN 1 AND 256),
  CONSTRAINT message_producer_fit CHECK (char_length(producer) <= 256),
  CONSTRAINT message_receive_count_positive CHECK (receive_count >= 1)
);
CREATE INDEX message_stored_at_brin ON message USING brin (stored_at);
-- A redelivery that can't be read now, or has another key now, is looked up by its delivery id. A Bloom filter of ten
-- bits per row answers this with few pages of the table. A B-tree would make each insert a fifth slower. The ranges
-- are short, because a row that reuses the space of a deleted one rewrites its range.
CREATE INDEX message_delivery_bloom ON message USING brin (
  delivery_id text_bloom_ops (n_distinct_per_range = 250, false_positive_rate = 0.01)
) WITH (pages_per_range = 8);
-- VACUUM summarises ranges, and unsummarised ranges are read whole. So VACUUM runs often, with little work each time.
-- autosummarize would queue each range separately, at most 256 of them a minute.
ALTER TABLE message SET (autovacuum_vacuum_insert_scale_factor = 0.01, autovacuum_vacuum_insert_threshold = 50000);
-- A first delivery that is saved late, by a process that was paused, looks up only rows of redeliveries.
CREATE INDEX message_redelivered_idx ON message (delivery_id, queue) WHERE receive_count > 1;
COMMENT ON TABLE message IS 'The events: validated, each exactly once. Usage is billed from these rows.';
COMMENT ON COLUMN message.tenant_id IS 'The tenant that owns the event.';
COMMENT ON COLUMN message.message_id IS 'The id its producer gave it, or queue/delivery_id where it gave none.';
COMMENT ON COLUMN message.producer IS 'The application that made the event (CloudEvents source); empty if it named none.';
COMMENT ON COLUMN message.event_type IS 'The kind of event.';
COMMENT ON COLUMN message.schema_id IS 'The event_schema that the payload was validated by.';
COMMENT ON COLUMN message.occurred_at IS 'When the event says that it happened; NULL: it named no time.';
COMMENT ON COLUMN message.sent_at IS 'When the queue took the message from its producer; where SNS, EventBridge or S3 brought it, when they did.';
COMMENT ON COLUMN message.stored_at IS 'When the transaction that stored it began.';
COMMENT ON COLUMN message.payload IS 'What the producer has to say; numbers keep every digit.';
COMMENT ON COLUMN message.context IS 'Other fields of the envelope, such as CloudEvents extensions and traceparent; NULL: none.';
COMMENT ON COLUMN message.queue IS 'The name of the queue it came from.';
COMMENT ON COLUMN message.delivery_id IS 'The id the queue gave it (SQS MessageId).';
COMMENT ON COLUMN message.receive_count IS 'How often the queue had handed it over by the time it was stored.';
COMMENT ON COLUMN message.occurred_at_rest IS 'The digits of occurred_at beyond the microsecond, without idle zeros; part of the content. NULL, as nearly always: there were none.';

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
COMMENT ON COLUMN duplicate.sent_at IS 'When the queue took this delivery from its producer; where SNS, EventBridge or S3 brought it, when they did.';
COMMENT ON COLUMN duplicate.receive_count IS 'How often the queue had handed it over by then.';
COMMENT ON COLUMN duplicate.received_at IS 'When the processor received it.';
CREATE INDEX duplicate_message_idx ON duplicate (tenant_id, message_id, producer);

CREATE TABLE rejection (
  rejection_id      bigint GENERATED ALWAYS AS IDENTITY CONSTRAINT rejection_pkey PRIMARY KEY,
  queue             text COLLATE "C" NOT NULL,
  delivery_id       text COLLATE "C" NOT NULL,
  reason            text NOT NULL,
  detail            jsonb NOT NULL,
  body              bytea NOT NULL,
  attributes        jsonb NOT NULL,
  tenant_id         text COLLATE "C" NULL,
  event_type        text COLLATE "C" NULL,
  message_id        text COLLATE "C" NULL,
  producer          text COLLATE "C" NULL,
  sent_at           timestamptz NOT NULL,
  receive_count     int NOT NULL,
  rejected_at       timestamptz NOT NULL DEFAULT now(),
  status            text NOT NULL DEFAULT 'open',
  replay_count      int NOT NULL DEFAULT 0,
  closed_at         timestamptz NULL,
  sender_id         text COLLATE "C" NULL,
  bound_tenant_id   text COLLATE "C" NULL,
  first_rejected_at timestamptz NULL,
  rule_id           bigint NULL CONSTRAINT rejection_rule_fkey REFERENCES rejection_rule,
  holder            text COLLATE "C" NULL,
  kept_bytes        bigint NULL,
  body_bytes        bigint NULL,
  body_sha256       bytea NULL,
  CONSTRAINT rejection_delivery_key UNIQUE (queue, delivery_id),
  CONSTRAINT rejection_reason_known CHECK (reason IN (
    'not_utf8', 'not_json', 'envelope_invalid', 'unknown_tenant', 'tenant_suspended', 'unknown_event_type',
    'unknown_schema_version', 'schema_violation', 'id_conflict', 'too_large', 'unstorable', 'dead_lettered')),
  CONSTRAINT rejection_status_known CHECK (status IN ('open', 'replayed', 'discarded')),
  CONSTRAINT rejection_closed CHECK ((status = 'open') = (closed_at IS NULL)),
  CONSTRAINT rejection_receive_count_positive CHECK (receive_count >= 1),
  CONSTRAINT rejection_holder_sized CHECK ((holder IS NULL) = (kept_bytes IS NULL)),
  CONSTRAINT rejection_body_cut CHECK ((body_bytes IS NULL) = (body_sha256 IS NULL))
);
CREATE INDEX rejection_open_idx ON rejection (rejection_id) WHERE status = 'open';
CREATE INDEX rejection_message_idx ON rejection (message_id, tenant_id);
COMMENT ON TABLE rejection IS 'Deliveries that could not become a message, whole, with the reason. Nothing is thrown away: look, mend the cause, replay.';
COMMENT ON COLUMN rejection.rejection_id IS 'Names the rejection on the command line.';
COMMENT ON COLUMN rejection.queue IS 'The name of the queue it came from.';
COMMENT ON COLUMN rejection.delivery_id IS 'The id the queue gave it (SQS MessageId).';
COMMENT ON COLUMN rejection.reason IS 'Why it was rejected, in one word of a fixed list.';
COMMENT ON COLUMN rejection.detail IS 'What exactly was wrong: message, and for payloads errors (pointer, rule, message; the first 50) and error_count.';
COMMENT ON COLUMN rejection.body IS 'The body, byte for byte; where body_bytes is given its head alone.';
COMMENT ON COLUMN rejection.attributes IS 'The message attributes: a string each, or {"base64": ...} where binary.';
COMMENT ON COLUMN rejection.tenant_id IS 'The tenant as claimed; it need not exist. At most 256 characters are kept.';
COMMENT ON COLUMN rejection.event_type IS 'The event type as claimed; it need not exist.';
COMMENT ON COLUMN rejection.message_id IS 'The message id as claimed.';
COMMENT ON COLUMN rejection.producer IS 'The producer as claimed.';
COMMENT ON COLUMN rejection.sent_at IS 'When the queue took the message from its producer.';
COMMENT ON COLUMN rejection.receive_count IS 'How often the queue had handed it over by then.';
COMMENT ON COLUMN rejection.rejected_at IS 'When the transaction that last rejected it began.';
COMMENT ON COLUMN rejection.status IS 'open: waits for a person. replayed: has become a message or a duplicate since. discarded: a person gave it up, or a rule did (rule_id).';
COMMENT ON COLUMN rejection.replay_count IS 'How often it was replayed, with success or without.';
COMMENT ON COLUMN rejection.closed_at IS 'When it was replayed with success or discarded; NULL while open.';
COMMENT ON COLUMN rejection.sender_id IS 'Who put it on the queue, as the queue says (SQS SenderId); NULL: it did not say, or was not asked.';
COMMENT ON COLUMN rejection.bound_tenant_id IS 'The one tenant that it can be from by QUEUE_TENANTS and SENDER_TENANTS, whatever it claims; NULL: nothing proves whose it is. Readers of a tenant see a rejection by this alone.';
COMMENT ON COLUMN rejection.first_rejected_at IS 'When it was first rejected, where a replay has failed since; NULL: at rejected_at. Tells how long its key is remembered.';
COMMENT ON COLUMN rejection.rule_id IS 'The rule by which it was discarded at once; NULL: none. Such a row goes a day after it was closed.';
COMMENT ON COLUMN rejection.holder IS 'On whose account the row is: a proven tenant, else a registered tenant that it claims with its sender or queue, else these alone. NULL: from before accounts were kept.';
COMMENT ON COLUMN rejection.kept_bytes IS 'What body, attributes and detail had when it was inserted; NULL: not counted.';
COMMENT ON COLUMN rejection.body_bytes IS 'How long the body was of which only the head is kept, since its holder had no room; NULL: the body is whole.';
COMMENT ON COLUMN rejection.body_sha256 IS 'The SHA-256 of that whole body; NULL: the body is whole.';

-- A replay determines the proven tenant of a rejection again, by the current bindings.
CREATE FUNCTION rejection_unbound() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.bound_tenant_id IS DISTINCT FROM OLD.bound_tenant_id THEN
    NEW.bound_tenant_id := NULL;
  END IF;
  RETURN NEW;
END $$;
COMMENT ON FUNCTION rejection_unbound() IS 'Shows a rejection to no other tenant than the one that it was proven to be from when it came: another one becomes NULL.';
CREATE TRIGGER rejection_unbound BEFORE UPDATE OF bound_tenant_id ON rejection FOR EACH ROW EXECUTE FUNCTION rejection_unbound();

-- The space for rejections is limited per holder. This table has the bytes of each holder; beyond the limit a rejection
-- keeps only the head of its body, with its length and digest. Triggers maintain the table, so that it is correct for
-- every way of closing, deleting or erasing rows.
CREATE TABLE rejection_room (
  holder    text COLLATE "C" NOT NULL,
  slot      int NOT NULL,
  bytes     bigint NOT NULL,
  row_count bigint NOT NULL,
  CONSTRAINT rejection_room_pkey PRIMARY KEY (holder, slot)
);
COMMENT ON TABLE rejection_room IS 'What the rejections that are open, or discarded by a rule, keep for each holder: the sum over its slots. Written by triggers of rejection alone.';
COMMENT ON COLUMN rejection_room.holder IS 'The holder, as rejection has it.';
COMMENT ON COLUMN rejection_room.slot IS 'Each writer has one, or all would wait for each other; the value of one alone means nothing.';
COMMENT ON COLUMN rejection_room.bytes IS 'Bytes kept.';
COMMENT ON COLUMN rejection_room.row_count IS 'Rows kept.';

CREATE FUNCTION rejection_room_changed() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
  IF TG_OP = 'TRUNCATE' THEN
    DELETE FROM rejection_room;
    RETURN NULL;
  END IF;
  -- Each event has its own transition tables.
  IF TG_OP = 'INSERT' THEN
    INSERT INTO rejection_room AS known (holder, slot, bytes, row_count)
    SELECT holder, mod(pg_backend_pid(), 16), sum(kept_bytes), count(*) FROM new_rows
    WHERE holder IS NOT NULL AND (status = 'open' OR rule_id IS NOT NULL)
    GROUP BY holder ORDER BY holder
    ON CONFLICT ON CONSTRAINT rejection_room_pkey DO UPDATE
    SET bytes = known.bytes + excluded.bytes, row_count = known.row_count + excluded.row_count;
  ELSIF TG_OP = 'DELETE' THEN
    INSERT INTO rejection_room AS known (holder, slot, bytes, row_count)
    SELECT holder, mod(pg_backend_pid(), 16), -sum(kept_bytes), -count(*) FROM old_rows
    WHERE holder IS NOT NULL AND (status = 'open' OR rule_id IS NOT NULL)
    GROUP BY holder ORDER BY holder
    ON CONFLICT ON CONSTRAINT rejection_room_pkey DO UPDATE
    SET bytes = known.bytes + excluded.bytes, row_count = known.row_count + excluded.row_count;
  ELSE
    INSERT INTO rejection_room AS known (holder, slot, bytes, row_count)
    SELECT holder, mod(pg_backend_pid(), 16), sum(sign * kept_bytes), sum(sign)
    FROM (
      SELECT holder, kept_bytes, 1 AS sign FROM new_rows
      WHERE holder IS NOT NULL AND (status = 'open' OR rule_id IS NOT NULL)
      UNION ALL
      SELECT holder, kept_bytes, -1 FROM old_rows
      WHERE holder IS NOT NULL AND (status = 'open' OR rule_id IS NOT NULL)
    ) AS changed
    GROUP BY holder HAVING sum(sign * kept_bytes) <> 0 OR sum(sign) <> 0 ORDER BY holder
    ON CONFLICT ON CONSTRAINT rejection_room_pkey DO UPDATE
    SET bytes = known.bytes + excluded.bytes, row_count = known.row_count + excluded.row_count;
  END IF;
  RETURN NULL;
END $$;
COMMENT ON FUNCTION rejection_room_changed() IS 'Keeps rejection_room what the rows of rejection say.';
CREATE TRIGGER rejection_room_inserted AFTER INSERT ON rejection
  REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION rejection_room_changed();
CREATE TRIGGER rejection_room_updated AFTER UPDATE ON rejection
  REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION rejection_room_changed();
CREATE TRIGGER rejection_room_deleted AFTER DELETE ON rejection
  REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION rejection_room_changed();
CREATE TRIGGER rejection_room_truncated AFTER TRUNCATE ON rejection EXECUTE FUNCTION rejection_room_changed();

-- Not every queue has a receive count, and no queue knows why a process died.
CREATE TABLE attempt (
  queue       text COLLATE "C" NOT NULL,
  delivery_id text COLLATE "C" NOT NULL,
  attempts    integer NOT NULL DEFAULT 0,
  hangs       integer NOT NULL DEFAULT 0,
  noted_at    timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT attempt_pkey PRIMARY KEY (queue, delivery_id),
  CONSTRAINT attempt_counts_fit CHECK (attempts >= 0 AND hangs >= 0)
);
COMMENT ON TABLE attempt IS 'A delivery that has no outcome yet and may be what ended its readers; its row goes with its outcome. What is left was taken away by the queue, and goes when its key may be forgotten.';
COMMENT ON COLUMN attempt.queue IS 'The queue that handed it over.';
COMMENT ON COLUMN attempt.delivery_id IS 'What the queue calls it through all its redeliveries.';
COMMENT ON COLUMN attempt.attempts IS 'How often reading it alone was begun, from its third receive on (RabbitMQ: from its second); 0: only a hang is noted.';
COMMENT ON COLUMN attempt.hangs IS 'How often it was judged for longer than JUDGE_TIMEOUT_S, so that its reader was replaced. At 2 it is rejected as unstorable.';
COMMENT ON COLUMN attempt.noted_at IS 'When one of the two was last raised.';

-- Messages of RabbitMQ may be equal in everything, so a redelivery is recognised by counting equal messages.
CREATE TABLE unsettled (
  queue       text COLLATE "C" NOT NULL,
  delivery_id text COLLATE "C" NOT NULL,
  noted_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
  CONSTRAINT unsettled_pkey PRIMARY KEY (queue, delivery_id)
);
COMMENT ON TABLE unsettled IS 'A delivery of RabbitMQ that has its outcome, and whose acknowledgement is not known to have arrived there. One redelivery of an equal message takes it; it goes with the acknowledgement, or when its key may be forgotten.';
COMMENT ON COLUMN unsettled.queue IS 'The queue that handed it over.';
COMMENT ON COLUMN unsettled.delivery_id IS 'The hand-over that is to be acknowledged; all but the last twelve digits are alike in equal messages.';
COMMENT ON COLUMN unsettled.noted_at IS 'When its outcome was written; earlier by what others wait where its connection had ended by then. Younger ones may be acknowledged at this moment, and are left alone.';

CREATE TABLE run_message (
  run_id     text COLLATE "C" NOT NULL,
  tenant_id  text COLLATE "C" NOT NULL,
  message_id text COLLATE "C" NOT NULL,
  producer   text COLLATE "C" NOT NULL,
  noted_at   timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT run_message_pkey PRIMARY KEY (run_id, tenant_id, message_id, producer)
);
COMMENT ON TABLE run_message IS 'The messages that a run with --this-run has stored, noted in the transactions that stored them, until its counts are written.';
COMMENT ON COLUMN run_message.run_id IS 'The run, by a name made by chance.';
COMMENT ON COLUMN run_message.tenant_id IS 'The tenant of the message.';
COMMENT ON COLUMN run_message.message_id IS 'The id of the message.';
COMMENT ON COLUMN run_message.producer IS 'The producer of the message.';
COMMENT ON COLUMN run_message.noted_at IS 'When the transaction began. What a run that came to no counts has left goes after KEY_RETENTION_DAYS.';
