-- What `processor demo` and `processor dev` ask of the tables. `audit` gives the proof; these give the picture.

-- database_exists: A row if the stack's database has been made.
SELECT FROM pg_database WHERE datname = 'events';

-- make_database: The stack's database, owned by its superuser.
CREATE DATABASE events;

-- rows_so_far: How many deliveries have found their table, for the progress line.
SELECT (SELECT count(*) FROM message) AS stored,
       (SELECT count(*) FROM duplicate) AS duplicates,
       (SELECT count(*) FROM rejection) AS rejected;

-- outcomes_by_tenant: Deliveries by tenant and outcome, rejections by reason; NULL for what names no tenant that we know.
SELECT tenant_id, 'stored' AS outcome, count(*) AS deliveries FROM message GROUP BY tenant_id
UNION ALL
SELECT tenant_id, 'duplicate', count(*) FROM duplicate GROUP BY tenant_id
UNION ALL
SELECT tenant.tenant_id, rejection.reason, count(*)
  FROM rejection LEFT JOIN tenant USING (tenant_id)
 GROUP BY tenant.tenant_id, rejection.reason;

-- latest_definition: The newest schema of an event type, shared (no tenant) or one tenant's own.
SELECT definition
  FROM event_schema
 WHERE event_type = %(event_type)s AND tenant_id IS NOT DISTINCT FROM %(tenant_id)s
 ORDER BY version DESC
 LIMIT 1;
