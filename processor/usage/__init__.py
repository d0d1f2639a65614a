"""Usage: the totals of meters, their queries, verification and rebuild; and the event counter.

    message ─▶ total ──verify──▶ the same sum again, from the messages

The save raises the totals (sql/queries/save.sql), in the transaction of the messages.
"""
