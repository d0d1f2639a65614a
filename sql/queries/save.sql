-- The statements of Store.save, in this order, in one READ COMMITTED transaction. Every write is in key order (unsorted
-- batches of two writers deadlock). Rows are found by LIMIT 1 sub-selects, which stay index lookups even in new tables
-- without statistics. A payload of JSON null is read from the document as NULL and converted back.

-- hold_registry: Keep the registry as it is until the commit, and say which version that is, and whether anything is or was said of a queue.
SELECT registry_version_held(true, true, true) AS version, EXISTS (SELECT FROM queue) AS queues_said

-- hold_registry_alone: Wait until no save is under way, and keep others from beginning until the commit.
SELECT take_lock('registry_lock', true)

-- registry_tenants: Every tenant and whether it is suspended.
SELECT tenant_id, status = 'suspended' AS suspended FROM tenant

-- registry_schemas: Every version of every schema, the definition as text.
SELECT schema_id, event_type, tenant_id, version, definition::text AS definition, formats FROM event_schema

-- registry_id_scopes: The event types whose ids are unique within some values of the payload alone.
SELECT event_type, id_scope FROM event_type WHERE id_scope <> '{}'

-- registry_meters: The meters that count what is stored from now on.
SELECT
  meter, tenant_id, event_type, value_pointer, allows_corrections, text_amounts_from IS NOT NULL AS text_amounts
FROM meter
WHERE status = 'active'

-- registry_rejection_rules: The rules by which known noise is discarded at once.
SELECT rule_id, reason, queue, tenant_id, event_type, conditions FROM rejection_rule WHERE retired_at IS NULL ORDER BY rule_id

-- registry_queues: What is said of queues.
SELECT
  queue, unwrap, mapping, tenants, event_type, registers_tenants, event_types, producers, may_void, may_correct
FROM queue

-- register_tenants: Register those of the names that are unknown, in a transaction of its own, as far as the queue may; gives those that were registered.
SELECT register_tenants(%(queue)s, %(names)s, %(version)s)

-- lock_replayed: Lock the rejections that are being replayed; those no longer open are not given back.
SELECT rejection_id
FROM rejection
WHERE rejection_id = ANY (%(rejection_ids)b) AND status = 'open'
ORDER BY queue, delivery_id
FOR UPDATE

-- take_unsettled: Let a delivery of RabbitMQ that is handed over once more take one outcome of an equal one whose acknowledgement is not known to have arrived, its own before others; those that may be acknowledged right now are left alone.
UPDATE unsettled SET delivery_id = %(delivery_id)s, noted_at = clock_timestamp() - make_interval(secs => %(age_s)s)
WHERE queue = %(queue)s AND delivery_id = (
  SELECT delivery_id FROM unsettled
  WHERE queue = %(queue)s AND delivery_id > %(begins)s::text AND delivery_id < %(begins)s::text || 'g'
    AND char_length(delivery_id) = char_length(%(begins)s::text) + 12
    AND (delivery_id = %(delivery_id)s OR noted_at <= clock_timestamp() - make_interval(secs => %(within_s)s))
  ORDER BY delivery_id <> %(delivery_id)s, delivery_id
  LIMIT 1
  FOR UPDATE SKIP LOCKED)

-- $columns: What a document says of a message, but for its payload.
tenant_id, message_id, producer, event_type, schema_id, occurred_at, occurred_at_rest, sent_at, context, queue,
  delivery_id, receive_count

-- $incoming: The messages of a document, each with its place as `ordinality`.
jsonb_populate_recordset(NULL::message, %(messages)s::jsonb) WITH ORDINALITY AS incoming

-- $is_rejection: Whether a delivery has its outcome in `rejection`.
(
    SELECT 1 FROM rejection
    WHERE rejection.queue = incoming.queue AND rejection.delivery_id = incoming.delivery_id LIMIT 1) IS NOT NULL

-- $is_duplicate: Whether a delivery has its outcome in `duplicate`.
(
    SELECT 1 FROM duplicate
    WHERE duplicate.queue = incoming.queue AND duplicate.delivery_id = incoming.delivery_id LIMIT 1) IS NOT NULL

-- $is_settled: Whether a delivery has an outcome in either; that of one that is replayed is its rejection.
(ordinality <> ALL (%(replayed)s::bigint[]) AND $is_rejection OR $is_duplicate)

-- insert_messages: Store what is new; a delivery that has an outcome already, or a known key, inserts nothing. Gives the keys of what was stored.
INSERT INTO message ($columns, payload)
SELECT $columns, coalesce(payload, 'null')
FROM $incoming
WHERE NOT $is_settled
ORDER BY tenant_id COLLATE "C", message_id COLLATE "C", producer COLLATE "C", ordinality
ON CONFLICT ON CONSTRAINT message_pkey DO NOTHING
RETURNING tenant_id, message_id, producer, queue, delivery_id

-- insert_voided: Note what the voids among stored messages cancel; gives what was not cancelled before.
INSERT INTO voided (tenant_id, message_id, producer, void_id, voided_at)
SELECT tenant_id, payload ->> 'message_id', coalesce(payload ->> 'producer', ''), message_id, stored_at
FROM unnest(%(tenant_id)s::text[], %(message_id)s::text[], %(producer)s::text[]) AS stored (tenant_id, message_id, producer)
JOIN message USING (tenant_id, message_id, producer)
WHERE event_type = 'void' AND jsonb_typeof(payload -> 'message_id') = 'string'
  AND coalesce(jsonb_typeof(payload -> 'producer'), 'string') = 'string'
  AND char_length(payload ->> 'message_id') <= 256 AND char_length(payload ->> 'producer') <= 256 IS NOT false
ORDER BY tenant_id, 2, 3, message_id
ON CONFLICT ON CONSTRAINT voided_pkey DO NOTHING
RETURNING tenant_id, message_id, producer

-- raise_totals: Raise the totals by what was stored, each total once and in key order, less what had been added by messages that are cancelled now (sign -1); gives what could not be counted.
WITH counted AS MATERIALIZED (
  SELECT tenant_id, schema_id, message_id, coalesce(occurred_at, sent_at) AS counted_at, sign, metered.*
  FROM unnest(%(tenant_id)s::text[], %(message_id)s::text[], %(producer)s::text[], %(sign)s::int[])
    AS changed (tenant_id, message_id, producer, sign)
  JOIN message USING (tenant_id, message_id, producer)
  -- metered() gives nothing for a cancelled message, so its former amounts are computed without its id.
  CROSS JOIN LATERAL metered(
    tenant_id, CASE sign WHEN 1 THEN message_id END, producer, event_type, payload, coalesce(occurred_at, sent_at), stored_at)
  WHERE sign = 1 OR event_type <> 'void' AND miss IS NULL
),
raised AS (
  -- A total with many messages in one batch is likely raised by other writers too. Each writer gets its own slot, so
  -- that writers don't wait for each other's commit.
  INSERT INTO total AS known (
    tenant_id, meter_id, window_start, group_key, slot, value, messages, first_at, last_at, closes_at)
  SELECT
    tenant_id, meter_id, window_start, group_key,
    CASE WHEN count(*) >= 16 THEN mod(pg_backend_pid(), 64) + 1 ELSE 0 END,
    sum(sign * value), sum(sign), min(counted_at), max(counted_at), min(closes_at)
  FROM counted
  WHERE miss IS NULL
  GROUP BY tenant_id, meter_id, window_start, group_key
  ORDER BY tenant_id, meter_id, window_start, group_key
  ON CONFLICT ON CONSTRAINT total_pkey DO UPDATE
  SET value = known.value + excluded.value, messages = known.messages + excluded.messages,
    first_at = least(known.first_at, excluded.first_at), last_at = greatest(known.last_at, excluded.last_at),
    is_closed = false
)
SELECT tenant_id, meter_id, miss AS reason, schema_id, count(*) AS messages, max(message_id) AS last_message_id
FROM counted
WHERE miss IS NOT NULL
GROUP BY tenant_id, meter_id, miss, schema_id

-- note_misses: Note what could not be counted, in key order.
INSERT INTO meter_miss AS known (
  tenant_id, meter_id, reason, schema_id, slot, messages, first_at, last_at, last_message_id)
SELECT
  tenant_id, meter_id, reason, schema_id, CASE WHEN messages >= 16 THEN mod(pg_backend_pid(), 64) + 1 ELSE 0 END,
  messages, now(), now(), last_message_id
FROM unnest(
  %(tenant_id)s::text[], %(meter_id)s::int[], %(reason)s::text[], %(schema_id)s::bigint[], %(messages)s::bigint[],
  %(last_message_id)s::text[]
) AS missed (tenant_id, meter_id, reason, schema_id, messages, last_message_id)
ORDER BY tenant_id COLLATE "C", meter_id, reason COLLATE "C", schema_id
ON CONFLICT ON CONSTRAINT meter_miss_pkey DO UPDATE
SET messages = known.messages + excluded.messages, first_at = least(known.first_at, excluded.first_at),
  last_at = greatest(known.last_at, excluded.last_at), last_message_id = excluded.last_message_id

-- note_run_messages: Note which messages this run has stored, for counts of its own.
INSERT INTO run_message (run_id, tenant_id, message_id, producer)
SELECT %(run_id)s, tenant_id, message_id, producer
FROM unnest(%(tenant_id)s::text[], %(message_id)s::text[], %(producer)s::text[]) AS stored (tenant_id, message_id, producer)
ORDER BY tenant_id COLLATE "C", message_id COLLATE "C", producer COLLATE "C"
-- An existing row is of a message that retention deleted and that was sent again.
ON CONFLICT ON CONSTRAINT run_message_pkey DO NOTHING

-- read_messages: Make rows of messages and store none; what is refused here is refused for its content, whatever stands on the table.
SELECT count(*) FROM $incoming

-- classify_messages: Say of what was not stored what became of it; a later statement, so that it sees the rows that others committed while the insert waited for them.
SELECT
  ordinality,
  CASE
    WHEN $is_settled THEN 'redelivered'
    WHEN stored.delivery_id IS NULL THEN 'missing'
    WHEN stored.queue = incoming.queue AND stored.delivery_id = incoming.delivery_id THEN 'redelivered'
    WHEN stored.event_type = incoming.event_type
      AND stored.payload = coalesce(incoming.payload, 'null')
      AND stored.occurred_at IS NOT DISTINCT FROM incoming.occurred_at
      AND stored.occurred_at_rest IS NOT DISTINCT FROM incoming.occurred_at_rest
      THEN 'duplicate'
    ELSE 'id_conflict'
  END AS outcome,
  stored.delivery_id AS stored_delivery_id
FROM $incoming
LEFT JOIN LATERAL (
  SELECT message.queue, message.delivery_id, message.event_type, message.payload, message.occurred_at, message.occurred_at_rest
  FROM message
  WHERE message.tenant_id = incoming.tenant_id AND message.message_id = incoming.message_id
    AND message.producer = incoming.producer
  LIMIT 1
) AS stored ON true
WHERE ordinality = ANY (%(left)s::bigint[])

-- insert_duplicates: Note the deliveries that repeat a stored message; one that is noted already is not given back.
INSERT INTO duplicate (queue, delivery_id, tenant_id, message_id, producer, sent_at, receive_count, received_at)
SELECT queue, delivery_id, tenant_id, message_id, producer, sent_at, receive_count, received_at
FROM unnest(
  %(queue)b::text[], %(delivery_id)b::text[], %(tenant_id)b::text[], %(message_id)b::text[],
  %(producer)b::text[], %(sent_at)b::timestamptz[], %(receive_count)b::int[], %(received_at)b::timestamptz[]
) AS incoming (queue, delivery_id, tenant_id, message_id, producer, sent_at, receive_count, received_at)
ORDER BY queue COLLATE "C", delivery_id COLLATE "C"
ON CONFLICT ON CONSTRAINT duplicate_pkey DO NOTHING
RETURNING queue, delivery_id

-- find_outcomes: Find the deliveries that have an outcome, whatever a reading of them says now. Asked in the order of what it costs: whatever was stored of a first hand-over has no exact index, and only what was handed over before can be there.
SELECT incoming.queue, incoming.delivery_id
FROM unnest(%(queue)b::text[], %(delivery_id)b::text[], %(again)b::boolean[]) AS incoming (queue, delivery_id, again)
WHERE $is_rejection OR $is_duplicate
  OR (
    SELECT 1 FROM message
    WHERE message.delivery_id = incoming.delivery_id AND message.queue = incoming.queue AND message.receive_count > 1
    LIMIT 1) IS NOT NULL
  OR again AND (
    SELECT 1 FROM message
    WHERE message.delivery_id = incoming.delivery_id AND message.queue = incoming.queue LIMIT 1) IS NOT NULL

-- rejection_room: On whose account rejections would be, in their order, and what is kept for each already. A claim counts for who is registered; a session's name is its user's choice, and so left out.
SELECT holder, coalesce((SELECT sum(bytes) FROM rejection_room WHERE rejection_room.holder = laid.holder), 0)::bigint
FROM (
  SELECT position, CASE
    WHEN bound_tenant_id IS NOT NULL THEN 'tenant ' || bound_tenant_id
    WHEN (SELECT 1 FROM tenant WHERE tenant.tenant_id = incoming.tenant_id LIMIT 1) IS NOT NULL
      THEN 'claimed ' || tenant_id || ' by ' || source
    ELSE 'by ' || source
  END AS holder
  FROM (
    SELECT *, coalesce('sender ' || split_part(sender_id, ':', 1), 'queue ' || queue) AS source
    FROM ROWS FROM (unnest(
      %(queue)b::text[], %(tenant_id)b::text[], %(sender_id)b::text[], %(bound_tenant_id)b::text[]
    )) WITH ORDINALITY AS given (queue, tenant_id, sender_id, bound_tenant_id, position)
  ) AS incoming
) AS laid
ORDER BY position

-- insert_rejections: Keep what can't be a message, whole, discarded where a rule says so; a delivery that has an outcome already is not given back.
INSERT INTO rejection (
  queue, delivery_id, reason, detail, body, attributes, tenant_id, event_type, message_id, producer,
  sent_at, receive_count, sender_id, bound_tenant_id, holder, kept_bytes, body_bytes, body_sha256,
  rule_id, status, closed_at)
SELECT
  queue, delivery_id, reason, detail::jsonb, body, attributes::jsonb, tenant_id, event_type, message_id, producer,
  sent_at, receive_count, sender_id, bound_tenant_id, holder, kept_bytes, body_bytes, body_sha256,
  rule_id, CASE WHEN rule_id IS NULL THEN 'open' ELSE 'discarded' END, CASE WHEN rule_id IS NOT NULL THEN now() END
FROM unnest(
  %(queue)b::text[], %(delivery_id)b::text[], %(reason)b::text[], %(detail)b::text[], %(body)b::bytea[],
  %(attributes)b::text[], %(tenant_id)b::text[], %(event_type)b::text[], %(message_id)b::text[],
  %(producer)b::text[], %(sent_at)b::timestamptz[], %(receive_count)b::int[],
  %(sender_id)b::text[], %(bound_tenant_id)b::text[], %(holder)b::text[], %(kept_bytes)b::bigint[],
  %(body_bytes)b::bigint[], %(body_sha256)b::bytea[], %(rule_id)b::bigint[]
) AS incoming (
  queue, delivery_id, reason, detail, body, attributes, tenant_id, event_type, message_id, producer,
  sent_at, receive_count, sender_id, bound_tenant_id, holder, kept_bytes, body_bytes, body_sha256, rule_id)
WHERE NOT $is_duplicate
  AND (
    SELECT 1 FROM message
    WHERE message.tenant_id = incoming.tenant_id AND message.message_id = incoming.message_id
      AND message.producer = coalesce(incoming.producer, '')
      AND message.queue = incoming.queue AND message.delivery_id = incoming.delivery_id LIMIT 1) IS NULL
ORDER BY queue COLLATE "C", delivery_id COLLATE "C"
ON CONFLICT ON CONSTRAINT rejection_delivery_key DO NOTHING
RETURNING queue, delivery_id

-- note_unsettled: Note the deliveries of RabbitMQ that have their outcome, until their acknowledgement is known to have arrived; one that can't be acknowledged any more may be taken at once, and so is noted as older.
INSERT INTO unsettled (queue, delivery_id, noted_at)
SELECT queue, delivery_id, clock_timestamp() - make_interval(secs => age_s)
FROM unnest(%(queue)b::text[], %(delivery_id)b::text[], %(age_s)b::float8[]) AS incoming (queue, delivery_id, age_s)
ORDER BY queue COLLATE "C", delivery_id COLLATE "C"
ON CONFLICT ON CONSTRAINT unsettled_pkey DO NOTHING

-- forget_settled: Forget deliveries whose acknowledgement has arrived.
DELETE FROM unsettled WHERE queue = %(queue)s AND delivery_id = ANY (%(delivery_ids)s::text[])

-- close_replayed: Close a rejection whose replay found its place in another table; one that was discarded meanwhile stays so.
UPDATE rejection
SET status = 'replayed', closed_at = now(), replay_count = replay_count + 1
WHERE rejection_id = %(rejection_id)s AND status = 'open'

-- reject_again: Leave a replayed rejection open, with the reason of today, and keep when it was first rejected.
UPDATE rejection
SET reason = %(reason)s, detail = %(detail)s::jsonb, rejected_at = now(),
  first_rejected_at = coalesce(first_rejected_at, rejected_at), replay_count = replay_count + 1,
  tenant_id = %(tenant_id)s, event_type = %(event_type)s, message_id = %(message_id)s, producer = %(producer)s,
  bound_tenant_id = %(bound_tenant_id)s
WHERE rejection_id = %(rejection_id)s

-- lock_books: Take the locks that a save takes of its tables, so that waiting for a locked one is told from content that takes long.
LOCK TABLE message, duplicate, rejection IN ROW EXCLUSIVE MODE

-- note_attempt: Note that a delivery is about to be read alone; gives how often that was, and how often its reader hung. A crash of the server may take a note back, so no commit waits for it.
INSERT INTO attempt (queue, delivery_id, attempts) VALUES (%(queue)s, %(delivery_id)s, 1)
ON CONFLICT ON CONSTRAINT attempt_pkey DO UPDATE SET attempts = attempt.attempts + 1, noted_at = now()
RETURNING attempts, hangs, set_config('synchronous_commit', 'off', true)

-- note_hangs: Note of deliveries that their reader hung at them once more.
INSERT INTO attempt (queue, delivery_id, hangs)
SELECT DISTINCT %(queue)s, delivery_id, 1 FROM unnest(%(delivery_ids)s::text[]) AS hung (delivery_id)
ORDER BY delivery_id
ON CONFLICT ON CONSTRAINT attempt_pkey DO UPDATE SET hangs = attempt.hangs + 1, noted_at = now()

-- forget_attempt: Forget what was noted of a delivery that gets its outcome.
DELETE FROM attempt WHERE queue = %(queue)s AND delivery_id = %(delivery_id)s

-- forget_notes: Forget what was noted of deliveries that came no more.
WITH settled AS (
  DELETE FROM unsettled WHERE noted_at < now() - make_interval(days => %(days)s)
)
DELETE FROM attempt WHERE noted_at < now() - make_interval(days => %(days)s)

-- make_commit_wait: Write to the WAL, so that the COMMIT waits for the synchronous standby as one with rows does.
SELECT pg_logical_emit_message(true, 'event-processor', '')

-- prepare_session: Make a commit durable and a snapshot fresh whatever the role's defaults, bound every wait, keep writers off sequential scans of young tables, and off a compiler that their price would wake.
SELECT
  set_config('synchronous_commit',
    CASE WHEN current_setting('synchronous_commit') IN ('off', 'local', 'remote_write') THEN 'on'
    ELSE current_setting('synchronous_commit') END, false),
  set_config('default_transaction_isolation', 'read committed', false),
  set_config('statement_timeout', %(timeout_ms)s, false),
  -- Shorter than statement_timeout, to tell a locked table from a batch that is too large and should be halved.
  set_config('lock_timeout', (%(timeout_ms)s::int / 2)::text, false),
  set_config('idle_in_transaction_session_timeout', %(timeout_ms)s, false),
  set_config('enable_seqscan', 'off', false),
  set_config('jit', 'off', false),
  set_config('TimeZone', 'UTC', false)
