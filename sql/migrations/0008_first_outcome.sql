-- A delivery's first outcome is found whatever a later reading of it says, a rejection keeps when it was first
-- rejected, and a time keeps the digits that a timestamptz has no room for.

-- No save is under way once this is ours, so that none can meet the locks below in another order. Nobody waits
-- long for it: rather fail, leave nothing behind, and be run again.
SET LOCAL lock_timeout = '10s';
SELECT pg_advisory_xact_lock(registry_lock_key());

-- What was handed over before, and can't be read now or is read as another key, is looked for by its delivery
-- alone. Ten bits for each row answer that, by few pages of the table: a B-tree would cost each insert a fifth. Short
-- ranges, because a row that takes the room of a removed one writes its range anew. Reading a large table to build this
-- index and the next one takes a while during which nothing is saved; to avoid that, build both beforehand, by these
-- names, with CREATE INDEX CONCURRENTLY.
CREATE INDEX IF NOT EXISTS message_delivery_bloom ON message USING brin (
  delivery_id text_bloom_ops (n_distinct_per_range = 250, false_positive_rate = 0.01)
) WITH (pages_per_range = 8);
-- A range is summarised by VACUUM, and read whole until then. Often and little, so that those are few; autosummarize
-- would ask for each range by itself, and has room for 256 of them a minute.
ALTER TABLE message SET (autovacuum_vacuum_insert_scale_factor = 0.01, autovacuum_vacuum_insert_threshold = 50000);

-- A first hand-over that is saved late, by a process that was paused, asks only for what a redelivery stored meanwhile.
CREATE INDEX IF NOT EXISTS message_redelivered_idx ON message (delivery_id, queue) WHERE receive_count > 1;

ALTER TABLE message ADD COLUMN occurred_at_rest text COLLATE "C" NULL;
COMMENT ON COLUMN message.occurred_at_rest IS 'The digits of occurred_at beyond the microsecond, without idle zeros; part of the content. NULL, as nearly always: there were none.';

ALTER TABLE rejection ADD COLUMN first_rejected_at timestamptz NULL;
-- Of what was replayed before, nobody knows more than when it was sent.
UPDATE rejection SET first_rejected_at = least(sent_at, rejected_at) WHERE status = 'open' AND replay_count > 0;
COMMENT ON COLUMN rejection.first_rejected_at IS 'When it was first rejected, where a replay has failed since; NULL: at rejected_at. Tells how long its key is remembered.';

-- What is replayed with --force only. A rejection whose key is known keeps its message from being removed for as
-- long as keys live, since it was first rejected by our own clock: what was removed after that, and was stored no
-- longer before it than keys live, may have been its event. One whose key can't be told keeps none: any message that
-- was removed since it came may have been. When it was sent is the sender's word, which makes it older and never younger.
CREATE FUNCTION rejection_is_aged(of_rejection rejection, key_days int) RETURNS boolean LANGUAGE sql STABLE
  RETURN (
    SELECT EXISTS (
      SELECT FROM removal
      WHERE outcome = 'message' AND CASE
        WHEN key_known THEN removed_at >= first_at + key_days * interval '24 hours'
          AND (day + 1)::timestamp AT TIME ZONE 'UTC' > first_at - key_days * interval '24 hours'
        ELSE removed_at >= least(first_at, (of_rejection).sent_at) END)
    FROM (
      SELECT
        coalesce((of_rejection).first_rejected_at, (of_rejection).rejected_at) AS first_at,
        (of_rejection).tenant_id IS NOT NULL AND (of_rejection).message_id IS NOT NULL
          AND (of_rejection).reason NOT IN ('too_large', 'not_utf8', 'not_json', 'envelope_invalid')
          AND coalesce((of_rejection).detail #>> '{verdict_today,reason}', '')
            NOT IN ('too_large', 'not_utf8', 'not_json', 'envelope_invalid') AS key_known
    ) AS known);
COMMENT ON FUNCTION rejection_is_aged(rejection, int) IS 'Whether the event of a rejection may have been stored another way and removed by retention since, where keys live for so many days: to replay it might count it twice.';
