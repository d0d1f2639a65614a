-- Queries of `processor count`, all in one snapshot: the number of messages per user and event type.

-- use_one_snapshot: Read everything as it was at the first question.
SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY

-- known_tenant: A row if there is such a tenant.
SELECT tenant_id FROM tenant WHERE tenant_id = %(tenant_id)s

-- schema_in_force: The scope of an event type's ids, if it has a schema for this tenant: its own or a shared one.
SELECT id_scope
FROM event_type
WHERE event_type = %(event_type)s AND EXISTS (
  SELECT FROM event_schema
  WHERE event_schema.event_type = event_type.event_type AND (tenant_id IS NULL OR tenant_id = %(tenant_id)s))

-- counters: The meters that count for ever by this one name, for one tenant or for any, of these names or of any.
SELECT meter_id, meter, tenant_id, event_type, status = 'active' AS is_active
FROM meter
WHERE aggregation = 'count' AND window_size = 'none' AND group_names = ARRAY[%(group_name)s::text]
  AND (%(tenant_id)s::text IS NULL OR tenant_id IS NULL OR tenant_id = %(tenant_id)s)
  AND (%(meters)s::text[] = '{}' OR meter = ANY (%(meters)s::text[]))
ORDER BY event_type, meter, meter_id

-- counts: How many messages each user has, by these meters, in all or of one run; whose messages are all void is left out.
WITH part AS (
  SELECT group_key, value FROM total
  WHERE %(run_id)s::text IS NULL AND meter_id = ANY (%(meter_ids)s)
    AND (%(tenant_id)s::text IS NULL OR tenant_id = %(tenant_id)s)
  UNION ALL
  SELECT group_key, value
  FROM run_message
  JOIN message USING (tenant_id, message_id, producer)
  CROSS JOIN LATERAL metered(
    tenant_id, message_id, producer, event_type, payload, coalesce(occurred_at, sent_at), stored_at)
  WHERE run_id = %(run_id)s AND meter_id = ANY (%(meter_ids)s) AND miss IS NULL
    AND event_type = ANY (%(event_types)s::text[])
    AND (%(tenant_id)s::text IS NULL OR tenant_id = %(tenant_id)s)
)
SELECT (group_key::jsonb ->> %(group_name)s) COLLATE "C" AS counted, sum(value)::bigint AS messages
FROM part
GROUP BY counted
HAVING sum(value) <> 0
ORDER BY counted

-- counted_tenants: How many tenants have messages that these meters count, in all or of one run.
SELECT count(*)
FROM (
  SELECT tenant_id FROM total
  WHERE %(run_id)s::text IS NULL AND meter_id = ANY (%(meter_ids)s)
    AND (%(tenant_id)s::text IS NULL OR tenant_id = %(tenant_id)s)
  GROUP BY tenant_id
  HAVING sum(value) <> 0
  UNION
  SELECT tenant_id
  FROM run_message
  JOIN message USING (tenant_id, message_id, producer)
  WHERE run_id = %(run_id)s AND event_type = ANY (%(event_types)s::text[])
    AND (%(tenant_id)s::text IS NULL OR tenant_id = %(tenant_id)s)
) AS counted

-- forget_run: Forget which messages a run has stored.
DELETE FROM run_message WHERE run_id = %(run_id)s

-- forget_runs: Forget which messages were stored by runs that came to no counts.
DELETE FROM run_message WHERE noted_at < now() - make_interval(days => %(days)s)
