-- Attempts: how often a delivery that may be what ended its readers was read, and how often its reader hung at
-- it. Not every queue counts what it hands over, and none knows what a process died of.

CREATE TABLE attempt (
  queue       text COLLATE "C" NOT NULL,
  delivery_id text COLLATE "C" NOT NULL,
  attempts    integer NOT NULL DEFAULT 0,
  hangs       integer NOT NULL DEFAULT 0,
  noted_at    timestamptz NOT NULL DEFAULT now(),
  CONSTRAINT attempt_pkey PRIMARY KEY (queue, delivery_id),
  CONSTRAINT attempt_counts_fit CHECK (attempts >= 0 AND hangs >= 0)
);
COMMENT ON TABLE attempt IS 'A delivery that has no outcome yet and may be what ended its readers; its row goes with its outcome. What is left was taken away by the queue, and goes when its key may be forgotten.';
COMMENT ON COLUMN attempt.queue IS 'The queue that handed it over.';
COMMENT ON COLUMN attempt.delivery_id IS 'What the queue calls it through all its redeliveries.';
COMMENT ON COLUMN attempt.attempts IS 'How often reading it alone was begun, from its third receive on (RabbitMQ: from its second); 0: only a hang is noted.';
COMMENT ON COLUMN attempt.hangs IS 'How often it was judged for longer than JUDGE_TIMEOUT_S, so that its reader was replaced. At 2 it is rejected as unstorable.';
COMMENT ON COLUMN attempt.noted_at IS 'When one of the two was last raised.';

DO $$
BEGIN
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'processor_writer') THEN
    GRANT SELECT, INSERT, UPDATE, DELETE ON attempt TO processor_writer;
  END IF;
  IF EXISTS (SELECT FROM pg_roles WHERE rolname = 'processor_reader') THEN
    GRANT SELECT ON attempt TO processor_reader;
  END IF;
END $$;
