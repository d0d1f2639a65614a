-- Add, list and retire meters, and list what they could not count.

-- add_meter: Add a meter; one of the same name and tenant is left as it is, and then nothing is given back.
INSERT INTO meter (
  meter, tenant_id, event_type, aggregation, value_pointer, group_names, group_pointers, window_size, grace,
  past_limit, future_limit, allows_corrections, is_handed_over, text_amounts_from)
VALUES (
  %(meter)s, %(tenant_id)s, %(event_type)s, %(aggregation)s, %(value_pointer)s, %(group_names)s, %(group_pointers)s,
  %(window_size)s, %(grace)s, %(past_limit)s, %(future_limit)s, %(allows_corrections)s, %(is_handed_over)s,
  CASE WHEN %(text_amounts)s THEN timestamptz '-infinity' END)
ON CONFLICT ON CONSTRAINT meter_name_key DO NOTHING
RETURNING meter_id

-- list_meters: Meters by name, with how many messages each could not count; of a tenant, those that count for it.
SELECT
  meter.meter, tenant_id, event_type, aggregation, value_pointer, group_names, group_pointers, window_size, grace,
  past_limit, future_limit, allows_corrections, is_handed_over, text_amounts_from IS NOT NULL AS text_amounts,
  nullif(text_amounts_from, '-infinity') AS text_amounts_from, status,
  nullif(active_from, 'infinity') AS active_from, retired_at, created_at, meter_id,
  coalesce(misses.messages, 0)::bigint AS misses
FROM meter
LEFT JOIN LATERAL (
  SELECT sum(messages) AS messages FROM meter_miss
  WHERE meter_miss.meter_id = meter.meter_id
    AND (%(tenant_id)s::text IS NULL OR meter_miss.tenant_id = %(tenant_id)s)
) AS misses ON true
WHERE (%(meter)s::text IS NULL OR meter.meter = %(meter)s)
  AND (%(tenant_id)s::text IS NULL OR tenant_id IS NULL OR tenant_id = %(tenant_id)s)
ORDER BY meter.meter, tenant_id NULLS FIRST

-- retire_meter: Count nothing more by a meter from the commit on.
UPDATE meter SET status = 'retired' WHERE meter_id = %(meter_id)s AND status = 'active'

-- allow_text_amounts: Count amounts in quotes from the commit on, too.
UPDATE meter SET text_amounts_from = 'infinity' WHERE meter_id = %(meter_id)s AND text_amounts_from IS NULL

-- misses: What a meter could not count, the most first, with one of the messages and the schema that let it pass.
SELECT
  missed.tenant_id, reason, missed.messages::bigint AS messages, first_at, last_at, last_message_id,
  event_schema.event_type, event_schema.tenant_id AS schema_tenant_id, version, count(*) OVER () AS found_count
FROM (
  SELECT tenant_id, reason, schema_id, sum(messages) AS messages, min(first_at) AS first_at, max(last_at) AS last_at,
    (array_agg(last_message_id ORDER BY last_at DESC))[1] AS last_message_id
  FROM meter_miss
  WHERE meter_id = %(meter_id)s AND (%(tenant_id)s::text IS NULL OR tenant_id = %(tenant_id)s)
  GROUP BY tenant_id, reason, schema_id
) AS missed
LEFT JOIN event_schema USING (schema_id)
ORDER BY missed.messages DESC, missed.tenant_id, reason, schema_id
LIMIT %(kept)s

-- latest_schemas: The schemas by which the payloads that a meter counts are validated now.
SELECT DISTINCT ON (tenant_id) tenant_id, version, definition::text AS definition
FROM event_schema
WHERE event_type = %(event_type)s
  AND (%(tenant_id)s::text IS NULL OR tenant_id IS NOT DISTINCT FROM (
    SELECT max(own.tenant_id) FROM event_schema AS own
    WHERE own.event_type = %(event_type)s AND own.tenant_id = %(tenant_id)s))
ORDER BY tenant_id NULLS FIRST, version DESC
