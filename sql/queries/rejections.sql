-- Queries of `processor rejection`. Every selection has the same parameters; NULL means any.

-- $is_selected: Whether a rejection is one of those that are asked for.
(%(rejection_ids)s::bigint[] IS NULL OR rejection_id = ANY (%(rejection_ids)s::bigint[]))
  AND (%(tenant_id)s::text IS NULL OR tenant_id = %(tenant_id)s)
  AND (%(queue)s::text IS NULL OR queue = %(queue)s)
  AND (%(event_type)s::text IS NULL OR event_type = %(event_type)s)
  AND (%(reason)s::text IS NULL OR reason = %(reason)s)
  AND (%(since)s::timestamptz IS NULL OR rejected_at >= %(since)s)
  AND (%(until)s::timestamptz IS NULL OR rejected_at < %(until)s)

-- select_open: The open rejections after one id, and those that a rule discarded where their ids are named, oldest first, whole, for replay; without those that are aged, where it is said how many days keys live.
SELECT rejection_id, queue, delivery_id, body, attributes, sent_at, receive_count, sender_id, bound_tenant_id,
  detail ->> 'fault' AS fault
FROM rejection
WHERE (status = 'open' OR status = 'discarded' AND rule_id IS NOT NULL AND rejection_id = ANY (%(rejection_ids)s::bigint[]))
  AND rejection_id > %(after)s
  AND $is_selected
  AND (%(key_days)s::int IS NULL OR NOT rejection_is_aged(rejection, %(key_days)s::int))
  AND body_bytes IS NULL
ORDER BY rejection_id
LIMIT %(limit)s

-- count_cut: How many of the selected open rejections keep the head of their body alone.
SELECT count(*)
FROM rejection
WHERE status = 'open' AND body_bytes IS NOT NULL
  AND $is_selected

-- count_aged: How many of the selected open rejections are aged, where keys live for so many days.
SELECT count(*)
FROM rejection
WHERE status = 'open' AND body_bytes IS NULL AND rejection_is_aged(rejection, %(key_days)s::int)
  AND $is_selected

-- list: Rejections, newest first, without their bodies.
SELECT rejection_id, rejected_at, coalesce(first_rejected_at, rejected_at) AS first_rejected_at, status, reason, tenant_id, event_type, message_id, producer,
  detail ->> 'message' AS message, receive_count, replay_count, queue, delivery_id, closed_at, rule_id
FROM rejection
WHERE (%(status)s::text IS NULL OR status = %(status)s)
  AND $is_selected
ORDER BY rejection_id DESC
LIMIT %(limit)s

-- show: One rejection, whole.
SELECT rejection_id, queue, delivery_id, reason, detail, body, attributes, tenant_id, event_type, message_id, producer,
  sent_at, receive_count, coalesce(first_rejected_at, rejected_at) AS first_rejected_at, rejected_at, status,
  replay_count, closed_at, sender_id, bound_tenant_id, rule_id, body_bytes, encode(body_sha256, 'hex') AS body_sha256
FROM rejection WHERE rejection_id = %(rejection_id)s

-- stats: Rejections by status, reason, tenant and event type, most first.
SELECT status, reason, tenant_id, event_type, count(*) AS count,
  min(rejected_at) AS first_at, max(rejected_at) AS last_at
FROM rejection
WHERE $is_selected
GROUP BY status, reason, tenant_id, event_type
ORDER BY count DESC, status, reason, tenant_id, event_type

-- add_rule: Let rejections be discarded at once that are like this.
INSERT INTO rejection_rule (reason, queue, tenant_id, event_type, conditions)
VALUES (%(reason)s, %(queue)s, %(tenant_id)s, %(event_type)s, %(conditions)s::jsonb)
RETURNING rule_id

-- retire_rule: Let a rule match nothing more; gives when it was retired, and whether that was before.
UPDATE rejection_rule SET retired_at = coalesce(retired_at, now()) WHERE rule_id = %(rule_id)s
RETURNING retired_at, retired_at < now() AS before

-- list_rules: The rules, those in force first, with how many rejections each has discarded, removed ones included, and when the last.
SELECT rejection_rule.rule_id, reason, queue, tenant_id, event_type, conditions, added_at, retired_at,
  removed_count + coalesce(row_count, 0) AS discarded, greatest(removed_last_at, last_at) AS last_at
FROM rejection_rule
LEFT JOIN (
  SELECT rule_id, count(*) AS row_count, max(closed_at) AS last_at
  FROM rejection WHERE rule_id IS NOT NULL GROUP BY rule_id
) AS there USING (rule_id)
ORDER BY retired_at IS NOT NULL, rule_id

-- take_back: Open the named rejections that a rule discarded: what becomes of them is a person's matter now.
UPDATE rejection SET status = 'open', closed_at = NULL, rule_id = NULL
WHERE rejection_id = ANY (%(rejection_ids)s::bigint[]) AND status = 'discarded' AND rule_id IS NOT NULL
  AND $is_selected

-- discard: Give up open rejections; the rows stay.
UPDATE rejection SET status = 'discarded', closed_at = now()
WHERE status = 'open'
  AND $is_selected
