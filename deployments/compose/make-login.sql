-- The login that the processor runs as: it may store events and read the registry, and change no table.
-- Run as the owner, after processor migrate; running it again sets the password anew. The password comes by
-- the environment, where `ps` does not show it.
\set ON_ERROR_STOP on
\getenv password PROCESSOR_PASSWORD

-- Statements with a password stay out of the server's log.
SET log_statement = 'none';
SELECT 'CREATE ROLE processor LOGIN'
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'processor') \gexec
ALTER ROLE processor PASSWORD :'password';
GRANT processor_writer TO processor;
