-- Erases all data of one tenant, for its right to be forgotten. For psql, as the owner:
--
--     psql "$OWNER_URL" -v tenant=acme -f sql/erase_tenant.sql
--
-- First read docs/howto/erase-a-tenant.md: suspend the tenant, and let its queue run dry. Deleted rows are
-- counted in removal, so that the audit still adds up. Each step is a transaction of its own; if one fails,
-- run the file again.

\set ON_ERROR_STOP on
\if :{?tenant}
\else
  \warn 'which tenant? expected: psql -v tenant=TENANT_ID -f erase_tenant.sql'
  -- Fails on purpose, for the exit code of a failed script.
  SELECT 'no tenant was named'::int;
\endif

SELECT set_config('erase.tenant', :'tenant', false) AS tenant \gset erased_
DO $$
BEGIN
  IF EXISTS (SELECT FROM tenant WHERE tenant_id = current_setting('erase.tenant') AND status <> 'suspended') THEN
    RAISE EXCEPTION 'tenant % is active, so its events are still stored; suspend it first',
      current_setting('erase.tenant') USING HINT = 'processor tenant suspend, then wait until its queue is empty';
  END IF;
END $$;

-- Saves continue: the tenant is suspended, so no save can find one of its messages and lose it before its commit.
\echo 'messages and duplicates, by how many went:'

BEGIN;
-- Retention and rebuilds rely on rows that they have read before. So wait for a running one, and let none start until
-- messages and totals are deleted.
SELECT take_lock('books_lock', true) AS books \gset
WITH gone AS (
  DELETE FROM message WHERE tenant_id = :'tenant'
  RETURNING (stored_at AT TIME ZONE 'UTC')::date AS day
),
counted AS (
  INSERT INTO removal AS known (tenant_id, outcome, day, row_count, removed_at)
  SELECT :'tenant', 'message', day, count(*), now() FROM gone GROUP BY day
  ON CONFLICT ON CONSTRAINT removal_pkey DO UPDATE
  SET row_count = known.row_count + excluded.row_count, removed_at = excluded.removed_at
)
SELECT count(*) AS messages FROM gone;

WITH gone AS (
  DELETE FROM duplicate WHERE tenant_id = :'tenant'
  RETURNING (received_at AT TIME ZONE 'UTC')::date AS day
),
counted AS (
  INSERT INTO removal AS known (tenant_id, outcome, day, row_count, removed_at)
  SELECT :'tenant', 'duplicate', day, count(*), now() FROM gone GROUP BY day
  ON CONFLICT ON CONSTRAINT removal_pkey DO UPDATE
  SET row_count = known.row_count + excluded.row_count, removed_at = excluded.removed_at
)
SELECT count(*) AS duplicates FROM gone;

\echo 'its usage; what was closed and waiting for the sink will never be billed:'

-- Totals first, so that a concurrent dispatcher closes no window of the tenant.
DELETE FROM total WHERE tenant_id = :'tenant';
DELETE FROM meter_miss WHERE tenant_id = :'tenant';
DELETE FROM voided WHERE tenant_id = :'tenant';
DELETE FROM run_message WHERE tenant_id = :'tenant';
DELETE FROM usage_removal WHERE tenant_id = :'tenant';
WITH gone AS (
  DELETE FROM usage_line WHERE tenant_id = :'tenant'
  RETURNING meter_id, handed_over_at
)
SELECT count(*) AS lines, count(*) FILTER (WHERE handed_over_at IS NULL AND is_handed_over) AS never_handed_over
FROM gone JOIN meter USING (meter_id);
-- Batches with lines of other tenants keep their key, which identifies a retry.
DELETE FROM usage_batch WHERE NOT EXISTS (SELECT FROM usage_line WHERE usage_line.batch_id = usage_batch.batch_id);
COMMIT;

\echo 'rejections:'

-- Rejections that claim the tenant, from any sender, and rejections proven to be from it, with any claim. Open ones are
-- deleted too.
WITH gone AS (
  DELETE FROM rejection WHERE tenant_id = :'tenant' OR bound_tenant_id = :'tenant'
  RETURNING
    CASE status WHEN 'replayed' THEN 'rejection_replayed' ELSE 'rejection_discarded' END AS outcome,
    (coalesce(closed_at, now()) AT TIME ZONE 'UTC')::date AS day
),
counted AS (
  INSERT INTO removal AS known (tenant_id, outcome, day, row_count, removed_at)
  SELECT :'tenant', outcome, day, count(*), now() FROM gone GROUP BY outcome, day
  ON CONFLICT ON CONSTRAINT removal_pkey DO UPDATE
  SET row_count = known.row_count + excluded.row_count, removed_at = excluded.removed_at
)
SELECT count(*) AS rejections FROM gone;

\echo 'the registry:'

BEGIN;
DELETE FROM tenant_reader WHERE tenant_id = :'tenant';
DELETE FROM api_key WHERE tenant_id = :'tenant';
-- The empty rows of the holder, which contain its name.
DELETE FROM rejection_room
WHERE holder = 'tenant ' || :'tenant' OR starts_with(holder, 'claimed ' || :'tenant' || ' by ');
-- The rejections discarded by these rules claimed the tenant, and are deleted already.
DELETE FROM rejection_rule WHERE tenant_id = :'tenant';
-- The tenant's schemas and meters, and event types that no other tenant uses, whose names may be confidential.
CREATE TEMPORARY TABLE erased_type ON COMMIT DROP AS
  SELECT event_type FROM event_schema WHERE tenant_id = :'tenant'
  UNION SELECT event_type FROM meter WHERE tenant_id = :'tenant';
DELETE FROM event_schema WHERE tenant_id = :'tenant';
-- Cascades to rebuilds and reopened windows.
DELETE FROM meter WHERE tenant_id = :'tenant';
DELETE FROM event_type
WHERE event_type IN (SELECT event_type FROM erased_type)
  AND NOT EXISTS (SELECT FROM event_schema WHERE event_schema.event_type = event_type.event_type)
  AND NOT EXISTS (SELECT FROM meter WHERE meter.event_type = event_type.event_type);
DELETE FROM tenant WHERE tenant_id = :'tenant';
COMMIT;

-- Deleted rows stay in the files until VACUUM, and the planner's statistics contain the most common values.
VACUUM (ANALYZE) message, duplicate, rejection, event_schema, event_type, tenant, tenant_reader, meter, total,
  meter_miss, voided, run_message, usage_removal, usage_line, usage_batch, usage_rebuild, reopened_window, api_key,
  rejection_rule;

\echo 'rejections that say not whose they are, and have the name in their body; look at each:'
SELECT rejection_id, reason, rejected_at
FROM rejection
WHERE tenant_id IS NULL AND bound_tenant_id IS NULL AND position(convert_to(:'tenant', 'UTF8') IN body) > 0
ORDER BY rejection_id;
