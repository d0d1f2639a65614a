-- Queries of `processor schema test`, which runs beside processors: all are short, and none writes.

-- keep_brief: Write nothing in this transaction, hold no snapshot for long, leave the other cores alone, and keep probes of young tables off sequential scans.
SELECT
  set_config('transaction_read_only', 'on', true),
  set_config('statement_timeout', %(timeout_ms)s, true),
  set_config('max_parallel_workers_per_gather', '0', true),
  set_config('enable_seqscan', 'off', true),
  set_config('jit', 'off', true)

-- publishable: Whether the tables would take a schema, asked by their own rules: its text, tenant, name and scope of ids.
SELECT
  %(definition)s::jsonb IS NOT NULL AND char_length(%(event_type)s) BETWEEN 1 AND 256
    AND %(event_type)s !~ '[\u0001-\u001f\u007f-\u009f]' AS is_taken,
  %(tenant_id)s::text IS NULL OR EXISTS (SELECT FROM tenant WHERE tenant_id = %(tenant_id)s) AS tenant_known,
  cardinality(%(id_scope)s::text[]) <= 4
    AND coalesce((SELECT bool_and(json_pointer_fits(pointer)) FROM unnest(%(id_scope)s::text[]) AS pointer), true) AS scope_fits,
  cardinality(%(id_scope)s::text[]) > 0
    AND EXISTS (SELECT FROM event_schema WHERE event_type = %(event_type)s)
    AND EXISTS (SELECT FROM event_type WHERE event_type = %(event_type)s AND id_scope <> %(id_scope)s::text[]) AS scope_stays

-- estimate_stored: How many messages the planner expects, without reading them.
EXPLAIN (FORMAT JSON)
SELECT FROM message
WHERE event_type = %(event_type)s AND stored_at >= %(since)s
  AND (%(tenant_id)s::text IS NULL OR tenant_id = %(tenant_id)s) AND tenant_id <> ALL (%(without)s::text[])

-- stored_keys: The keys of the newest messages of a span of time, below one key, and what their payloads take, compressed; the span lets the index leave most of a large table out.
SELECT tenant_id, message_id, producer, stored_at, pg_column_size(payload) AS size_bytes
FROM message
WHERE event_type = %(event_type)s AND stored_at >= %(low)s AND stored_at <= %(high)s
  AND (stored_at, tenant_id, message_id, producer) < (%(high)s, %(high_tenant_id)s, %(high_message_id)s, %(high_producer)s)
  AND (%(tenant_id)s::text IS NULL OR tenant_id = %(tenant_id)s) AND tenant_id <> ALL (%(without)s::text[])
ORDER BY stored_at DESC, tenant_id DESC, message_id DESC, producer DESC
LIMIT %(limit)s

-- stored_payloads: The messages of these keys that are still there.
SELECT tenant_id, message_id, producer, stored_at, payload::text AS payload
FROM message
JOIN unnest(%(tenant_ids)s::text[], %(message_ids)s::text[], %(producers)s::text[]) AS asked (tenant_id, message_id, producer)
  USING (tenant_id, message_id, producer)

-- open_rejections: The newest open rejections below one id, without those that no schema had a say in; whether the head of the body is kept alone.
SELECT rejection_id, tenant_id, body_bytes IS NOT NULL AS is_cut
FROM rejection
WHERE status = 'open' AND rejection_id < %(below)s AND event_type = %(event_type)s
  AND reason NOT IN ('id_conflict', 'unstorable') AND rejected_at >= %(since)s
  AND (%(tenant_id)s::text IS NULL OR tenant_id = %(tenant_id)s)
  AND (tenant_id IS NULL OR tenant_id <> ALL (%(without)s::text[]))
ORDER BY rejection_id DESC
LIMIT %(limit)s
