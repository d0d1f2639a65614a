-- What `processor demo` and `processor dev` ask of the tables. `audit` gives the proof; these give the picture.

-- database_exists: a row if the stack's database has been made
SELECT FROM pg_database WHERE datname = 'events';

-- make_database: the stack's database, owned by its superuser
CREATE DATABASE events;

-- rows_so_far: how many deliveries have found their table, for the progress line
SELECT (SELECT count(*) FROM message) AS stored,
       (SELECT count(*) FROM duplicate) AS duplicates,
       (SELECT count(*) FROM rejection) AS rejected;

-- outcomes_by_tenant: stored, duplicates and rejections with their reasons, one row per tenant; what names no tenant that we know comes last
WITH outcome AS (
  SELECT tenant_id, 'stored' AS kind, NULL AS reason, count(*) AS deliveries FROM message GROUP BY tenant_id
  UNION ALL
  SELECT tenant_id, 'duplicate', NULL, count(*) FROM duplicate GROUP BY tenant_id
  UNION ALL
  SELECT tenant.tenant_id, 'rejected', rejection.reason, count(*)
    FROM rejection LEFT JOIN tenant USING (tenant_id) GROUP BY tenant.tenant_id, rejection.reason
)
SELECT tenant_id,
       coalesce(sum(deliveries) FILTER (WHERE kind = 'stored'), 0)::bigint AS stored,
       coalesce(sum(deliveries) FILTER (WHERE kind = 'duplicate'), 0)::bigint AS duplicates,
       coalesce(sum(deliveries) FILTER (WHERE kind = 'rejected'), 0)::bigint AS rejected,
       coalesce(string_agg(reason || ' ' || deliveries, ', ' ORDER BY deliveries DESC, reason), '') AS reasons
  FROM outcome
 GROUP BY tenant_id
 ORDER BY tenant_id NULLS LAST;

-- latest_definition: the newest schema of an event type, shared (no tenant) or one tenant's own
SELECT definition
  FROM event_schema
 WHERE event_type = %(event_type)s AND tenant_id IS NOT DISTINCT FROM %(tenant_id)s
 ORDER BY version DESC
 LIMIT 1;
