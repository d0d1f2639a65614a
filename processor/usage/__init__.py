"""Meters and their totals: query, verify, rebuild and count.

    message ─▶ total ──close──▶ usage_line ──batch──▶ the sink (USAGE_SINK_URL)
       └─────── verify ──────────┘

The totals themselves are raised by the save (sql/queries/save.sql), in the transaction of the messages.
"""
