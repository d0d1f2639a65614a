-- A loss must not hide behind noise: what a rule discarded and retention removed is counted apart, and explains
-- missing deliveries of its own tenant alone.

-- Rather fail than make others wait for long, and be run again.
SET LOCAL lock_timeout = '10s';

ALTER TABLE removal DROP CONSTRAINT removal_outcome_known, ADD CONSTRAINT removal_outcome_known CHECK (outcome IN (
  'message', 'duplicate', 'rejection_discarded', 'rejection_ruled', 'rejection_replayed'));
COMMENT ON COLUMN removal.outcome IS 'What the rows were: message, duplicate, rejection_discarded, rejection_ruled (discarded by a rule; too_large is counted as rejection_discarded, since nobody read whose it was) or rejection_replayed. The last of these had handed its place on to a message or a duplicate.';
