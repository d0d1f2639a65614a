"""Usage: what meters have counted, asked for, proven, closed by window and handed over.

    message ─▶ total ──close──▶ usage_line ──batch──▶ the sink (USAGE_SINK_URL)
       └─────── verify ──────────┘

The totals themselves are raised by the save (sql/queries/save.sql), in the transaction of the messages.
"""
