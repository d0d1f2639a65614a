"""What the histories ask of the tables, and what they do to them behind the program's back."""

RESET = """
    DELETE FROM message; DELETE FROM duplicate; DELETE FROM rejection; DELETE FROM removal;
    DELETE FROM total; DELETE FROM voided; DELETE FROM usage_removal; DELETE FROM meter;
    DELETE FROM event_schema WHERE event_type NOT IN ('order.created', 'void') OR tenant_id IS NOT NULL;
    DELETE FROM event_type WHERE event_type NOT IN ('order.created', 'void');
    DELETE FROM tenant WHERE tenant_id NOT IN ('acme', 'globex');
    UPDATE tenant SET status = 'active' WHERE status <> 'active'
"""
PLACES = """
    SELECT delivery_id, 'message' FROM message UNION ALL SELECT delivery_id, 'duplicate' FROM duplicate
    UNION ALL SELECT delivery_id, 'rejection ' || status || ' ' || reason FROM rejection
"""
MONTHS_PASS = """
    UPDATE message SET sent_at = sent_at - interval '60 days', stored_at = stored_at - interval '60 days';
    UPDATE duplicate
    SET sent_at = sent_at - interval '60 days', received_at = received_at - interval '60 days';
    UPDATE rejection
    SET sent_at = sent_at - interval '60 days', rejected_at = rejected_at - interval '60 days',
      first_rejected_at = first_rejected_at - interval '60 days',
      closed_at = closed_at - interval '60 days';
    UPDATE meter
    SET active_from = active_from - interval '60 days', retired_at = retired_at - interval '60 days';
    -- Far away first, lest a window meet another on its way.
    UPDATE total SET window_start = window_start + interval '100000 days' WHERE window_start > 'epoch';
    UPDATE total SET window_start = window_start - interval '100060 days' WHERE window_start > 'epoch';
    UPDATE usage_removal
    SET window_start = window_start + interval '100000 days' WHERE window_start > 'epoch';
    UPDATE usage_removal
    SET window_start = window_start - interval '100060 days' WHERE window_start > 'epoch'
"""
USAGE = """
    SELECT meter, tenant_id, group_by ->> 'sku', sum(value), sum(messages)::int
    FROM usage
    GROUP BY 1, 2, 3
    HAVING sum(value) <> 0 OR sum(messages) <> 0
"""
