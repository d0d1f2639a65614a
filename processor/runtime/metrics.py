"""The metrics for Prometheus. No label has values that a sender can choose.

Outcomes and reasons come from fixed lists. Tenants and event types are in the tables instead, except for the
few schemas that can't be used.
"""

from prometheus_client import Counter, Gauge, Histogram, disable_created_metrics

# The _created series only repeat the start of the process, which the process metrics have.
disable_created_metrics()  # type: ignore[no-untyped-call]  # prometheus_client left it without types

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

deliveries = Counter(
    "processor_deliveries", "Deliveries with an outcome, after the commit.", ["outcome", "reason"]
)
discarded_by_rule = Counter(
    "processor_discarded_by_rule", "Rejections that a rule discarded at once, after the commit.", ["reason"]
)
received = Counter("processor_received", "Deliveries received from the queue, redeliveries included.")
settled = Counter("processor_settled", "Deliveries deleted from the queue.")
batch_size = Histogram(
    "processor_batch_size",
    "Deliveries saved in one transaction.",
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000),
)
save_seconds = Histogram(
    "processor_save_seconds",
    "Time from the begin of a save to its commit, outages included.",
    buckets=_SECONDS,
)
commit_latency_seconds = Histogram(
    "processor_commit_latency_seconds",
    "Time from receiving a delivery to the commit of its row.",
    buckets=_SECONDS,
)
held = Gauge("processor_held_deliveries", "Deliveries received and not yet settled.")
held_bytes = Gauge("processor_held_bytes", "Their bodies, in bytes.")
held_ratio = Gauge("processor_held_ratio", "How full the buffer is: 1 stops receiving.")
oldest_held_seconds = Gauge("processor_oldest_held_seconds", "Age of the oldest delivery held.")
queue_depth = Gauge("processor_queue_messages", "Messages in the queue, as the queue counts them.", ["state"])
unnamed = Counter(
    "processor_unnamed",
    "Events without an id of their own, of a broker that gave them none: equal ones are told apart by count.",
)
source_errors = Counter("processor_source_errors", "Failed calls to the queue.", ["operation"])
database_errors = Counter(
    "processor_database_errors", "Failed transactions, by what was done about it.", ["remedy"]
)
meter_misses = Counter(
    "processor_meter_misses", "Times that a meter could not count a message that was stored."
)
reject_alarms = Gauge(
    "processor_reject_alarms", "Pairs of tenant and event type of which too large a share is rejected."
)
rejections_cut = Counter(
    "processor_rejections_cut", "Rejections of which the head was kept alone, for want of room."
)
storage_alarms = Gauge(
    "processor_storage_alarms",
    "Holders of rejections near what they may keep, and tenants beyond STORAGE_ALARM_BYTES.",
)
registry_version = Gauge("processor_registry_version", "Version of the registry that verdicts are made with.")
schema_unusable = Gauge(
    "processor_schema_unusable",
    "1 for a version of a schema that can't be used, or by which a payload could not be judged.",
    ["event_type", "schema_version"],
)
tenants_registered = Counter(
    "processor_tenants_registered", "Tenants that were registered by an event, where their queue says so."
)
usage_lines_written = Counter(
    "processor_usage_lines_written", "Lines written as windows closed, later revisions included."
)
usage_lines_handed_over = Counter("processor_usage_lines_handed_over", "Lines that the sink has accepted.")
usage_lines_waiting = Gauge(
    "processor_usage_lines_waiting",
    "Lines still to be handed over; those that the sink refused by state.",
    ["state"],
)
usage_oldest_waiting_seconds = Gauge(
    "processor_usage_oldest_waiting_seconds", "Age of the oldest line still to be handed over."
)
usage_batches = Counter("processor_usage_batches", "Requests to the sink, by what came of them.", ["outcome"])
