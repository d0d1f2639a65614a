-- Session settings and checks.

-- probe: Answer, if there is anybody who can.
SELECT true AS answered

-- bound_lock_wait: Wait for a lock no longer than this, so that what holds it shows as a cause.
SELECT set_config('lock_timeout', %(timeout_ms)s, false)

-- hidden_relations: Those of our tables of which row-level security keeps rows from this role: by a policy that takes away, or for want of one that lets all pass.
SELECT ours.relation
FROM (VALUES
  ('message'), ('duplicate'), ('rejection'), ('removal'), ('tenant'), ('event_type'), ('event_schema'), ('registry'),
  ('meter'), ('total'), ('meter_miss'), ('voided'), ('usage_rebuild'), ('usage_removal'), ('reopened_window'),
  ('usage_batch'), ('usage_line'), ('usage_place'), ('api_key'), ('attempt'), ('unsettled'), ('run_message')
) AS ours (relation)
JOIN pg_class ON pg_class.oid = to_regclass(ours.relation)
CROSS JOIN LATERAL (
  SELECT
    count(*) FILTER (WHERE NOT polpermissive) AS taking,
    count(*) FILTER (WHERE polpermissive AND polcmd = '*' AND pg_get_expr(polqual, polrelid) = 'true'
      AND coalesce(pg_get_expr(polwithcheck, polrelid), 'true') = 'true') AS open
  FROM pg_policy
  WHERE polrelid = pg_class.oid
    AND EXISTS (SELECT FROM unnest(polroles) AS member WHERE member = 0 OR pg_has_role(member, 'USAGE'))
) AS policies
WHERE row_security_active(pg_class.oid) AND (policies.taking > 0 OR policies.open = 0)
ORDER BY ours.relation
