-- What the measurements ask of the server.

-- counters: What the server has done so far in this database (blocks) and altogether (WAL).
SELECT
  pg_current_wal_insert_lsn() - '0/0'::pg_lsn AS wal_bytes, blks_hit AS blocks_hit, blks_read AS blocks_read
FROM pg_stat_database
WHERE datname = current_database()

-- flush_statistics: Let the counters of this session be seen now rather than within a second.
SELECT pg_stat_force_next_flush()

-- sizes: What the messages occupy on disk, by kind of relation; partitions summed up.
SELECT
  CASE relkind WHEN 'r' THEN 'heap of ' || table_name
  ELSE 'index ' || coalesce(substring(parent_name FROM '^message.*'), relname) END AS relation,
  sum(pg_relation_size(oid))::bigint AS bytes,
  sum(toast_bytes)::bigint AS toast_bytes,
  sum(pg_relation_size(oid, 'fsm') + pg_relation_size(oid, 'vm'))::bigint AS map_bytes
FROM (
  SELECT
    pg_class.oid, relkind, relname,
    CASE WHEN coalesce(pg_partition_root(coalesce(indrelid, pg_class.oid))::text,
      coalesce(indrelid, pg_class.oid)::regclass::text) = 'message_key' THEN 'message_key' ELSE 'message' END AS table_name,
    pg_partition_root(pg_class.oid)::text AS parent_name,
    coalesce(pg_total_relation_size(nullif(reltoastrelid, 0)), 0) AS toast_bytes
  FROM pg_class
  LEFT JOIN pg_index ON indexrelid = pg_class.oid
  WHERE relkind IN ('r', 'i') AND relnamespace = 'public'::regnamespace
    AND coalesce(indrelid, pg_class.oid)::regclass::text LIKE 'message%%'
) AS relations
GROUP BY relation
ORDER BY relation

-- locks: How many locks this session holds on tables and indexes, and how many of them took the slow path.
SELECT count(*) AS locks, count(*) FILTER (WHERE NOT fastpath) AS shared_table
FROM pg_locks
WHERE pid = pg_backend_pid() AND locktype = 'relation' AND relation <> 'pg_locks'::regclass
