-- The plain table with one index more, which answers the questions that count all messages without the heap:
-- what it costs each insert is the price of those answers.

-- index: Tenant and type first, as they are grouped; the moment beside them, as it is asked for.
CREATE INDEX message_type_idx ON message (tenant_id, event_type, stored_at)
