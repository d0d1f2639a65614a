-- Hash by tenant: the primary key stays as it is, because it contains the tenant, and save's own statements
-- work unchanged (plain.sql's insert is run on it).

-- take_away: Put the plain table aside; its columns and checks are copied from it, so that they stay the same.
ALTER TABLE message RENAME TO message_plain

-- create: The partitioned table, with the laws of the plain one under the same names.
CREATE TABLE message (LIKE message_plain INCLUDING DEFAULTS INCLUDING CONSTRAINTS) PARTITION BY HASH (tenant_id)

-- drop_plain: The plain one is empty.
DROP TABLE message_plain

-- create_partitions: As many partitions as the setting growth.partitions says.
DO $$
BEGIN
  FOR number IN 0 .. current_setting('growth.partitions')::int - 1 LOOP
    EXECUTE format('CREATE TABLE message_%s PARTITION OF message FOR VALUES WITH (MODULUS %s, REMAINDER %s)',
      number, current_setting('growth.partitions'), number);
  END LOOP;
END $$

-- constrain: Keys and indexes, on every partition.
ALTER TABLE message
  ADD CONSTRAINT message_pkey PRIMARY KEY (tenant_id, message_id, producer),
  ADD CONSTRAINT message_tenant_fkey FOREIGN KEY (tenant_id) REFERENCES tenant,
  ADD CONSTRAINT message_schema_fkey FOREIGN KEY (schema_id, event_type)
    REFERENCES event_schema (schema_id, event_type)

-- index: The BRIN index of the plain table.
CREATE INDEX message_stored_at_brin ON message USING brin (stored_at)
