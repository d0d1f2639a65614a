"""Usage: what meters have counted, queried, verified and rebuilt; and the event counter.

    message ─▶ total ──verify──▶ the same sum again, from the messages

The totals themselves are raised by the save (sql/queries/save.sql), in the transaction of the messages.
"""
