-- What retention removes stays counted, so that the books still add up without the rows; and only a role of its
-- own may remove.

CREATE TABLE removal (
  tenant_id  text COLLATE "C" NOT NULL,
  outcome    text COLLATE "C" NOT NULL,
  day        date NOT NULL,
  row_count  bigint NOT NULL,
  removed_at timestamptz NOT NULL,
  CONSTRAINT removal_pkey PRIMARY KEY (tenant_id, outcome, day),
  CONSTRAINT removal_outcome_known CHECK (outcome IN (
    'message', 'duplicate', 'rejection_discarded', 'rejection_replayed')),
  CONSTRAINT removal_row_count_positive CHECK (row_count >= 1)
);
COMMENT ON TABLE removal IS 'How many rows processor retention apply has removed, by tenant, outcome and day; written in the transaction that removes them. processor audit adds them to the rows that are there.';
COMMENT ON COLUMN removal.tenant_id IS 'The tenant of the rows; empty: they named no tenant that is registered, as rejections may.';
COMMENT ON COLUMN removal.outcome IS 'What the rows were: message, duplicate, rejection_discarded or rejection_replayed. The last of these had handed its place on to a message or a duplicate.';
COMMENT ON COLUMN removal.day IS 'The day (UTC) on which the rows were stored (message), received (duplicate) or closed (rejection).';
COMMENT ON COLUMN removal.row_count IS 'How many rows were removed.';
COMMENT ON COLUMN removal.removed_at IS 'When the last of them was removed.';
-- The last day of which messages were removed decides which rejections are replayed with --force only.
CREATE INDEX removal_day_idx ON removal (outcome, day);

DO $$
BEGIN
  BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'processor_retention') THEN
      CREATE ROLE processor_retention NOLOGIN;
    END IF;
  EXCEPTION
    -- Roles belong to the whole server: another database's migration may have made it a moment ago.
    WHEN duplicate_object OR unique_violation THEN NULL;
    WHEN insufficient_privilege THEN
      RAISE NOTICE 'may not create role processor_retention: create it and grant it as sql/README.md says';
  END;

  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'processor_retention') THEN
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO processor_retention', current_schema());
    GRANT SELECT ON tenant, migration TO processor_retention;
    -- DELETE without UPDATE: it can make a row go, never make it say something else.
    GRANT SELECT, DELETE ON message, duplicate, rejection TO processor_retention;
    GRANT SELECT, INSERT, UPDATE ON removal TO processor_retention;
  END IF;

  -- The audit adds these counts, and a replay asks for the last day.
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'processor_writer') THEN
    GRANT SELECT ON removal TO processor_writer;
  END IF;
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'processor_reader') THEN
    GRANT SELECT ON removal TO processor_reader;
  END IF;
END $$;
