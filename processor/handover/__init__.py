"""Hand-over: windows close, their totals become lines, and each line reaches the sink once.

total ──close──▶ usage_line ──batch──▶ the sink (USAGE_SINK_URL)
"""
