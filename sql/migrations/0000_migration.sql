-- The books of the migrations themselves, so that each file is applied once.

CREATE TABLE migration (
  number            int NOT NULL CONSTRAINT migration_pkey PRIMARY KEY,
  name              text NOT NULL,
  checksum          text NOT NULL,
  breaks_older_code boolean NOT NULL,
  applied_at        timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE migration IS 'The migrations of sql/migrations that were applied here, by processor migrate.';
COMMENT ON COLUMN migration.number IS 'The number in front of the file name.';
COMMENT ON COLUMN migration.name IS 'The rest of the file name.';
COMMENT ON COLUMN migration.checksum IS 'SHA-256 of the file, so that an edit of history is noticed.';
COMMENT ON COLUMN migration.breaks_older_code IS 'Whether code that does not know this migration must not run.';
COMMENT ON COLUMN migration.applied_at IS 'When it was applied.';
