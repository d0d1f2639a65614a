-- The share of rejected deliveries by tenant and event type, for the alarm and `processor rejection stats`. The work
-- has limits, for rejections a number of the latest, for messages the BRIN index and statement_timeout.

-- bound: Let no statement of this transaction take longer.
SELECT set_config('statement_timeout', %(timeout_ms)s, true)

-- rejected_lately: Fresh rejections of the last seconds by pair; names that are not registered are NULL. What a person asked for by suspending, importing, replaying or a rule is left out.
SELECT
  tenant.tenant_id,
  CASE WHEN tenant.tenant_id IS NOT NULL THEN event_type.event_type END AS event_type,
  count(*) AS rejected
FROM (
  -- By the primary key from its end: an index on the time would slow down every insert.
  SELECT tenant_id, event_type, reason, replay_count, rejected_at, rule_id
  FROM rejection ORDER BY rejection_id DESC LIMIT %(rows_max)s
) AS latest
LEFT JOIN tenant ON tenant.tenant_id = latest.tenant_id
LEFT JOIN event_type ON event_type.event_type = latest.event_type
WHERE rejected_at >= now() - %(window_s)s * interval '1 second'
  AND replay_count = 0
  AND rule_id IS NULL
  AND reason <> ALL (%(not_counted)s::text[])
GROUP BY 1, 2

-- stored_lately: Messages of the last seconds, of these pairs only.
SELECT message.tenant_id, message.event_type, count(*) AS stored
FROM message
JOIN unnest(%(tenant_ids)s::text[], %(event_types)s::text[]) AS pair (tenant_id, event_type)
  ON pair.tenant_id = message.tenant_id AND pair.event_type = message.event_type
WHERE message.stored_at >= now() - %(window_s)s * interval '1 second'
GROUP BY 1, 2
