"""All attacks, by name."""

from tests.chaos.hostile import Attack, grpc, http, psql, queue

_ALL: tuple[Attack, ...] = (
    http.http_idle,
    http.http_slow,
    http.http_slow_nobody,
    http.http_numbers,
    http.http_numbers_nobody,
    http.http_bombs,
    http.http_upgrade,
    http.http_flood,
    grpc.grpc_idle,
    grpc.grpc_watch,
    grpc.grpc_slow,
    grpc.grpc_aborted,
    grpc.grpc_reflection,
    grpc.grpc_odd,
    grpc.grpc_numbers,
    queue.sqs_garbage,
    queue.sqs_numbers,
    queue.sqs_dear,
    queue.sqs_flood,
    psql.psql_locks,
    psql.psql_bulk,
    psql.psql_heavy,
    psql.psql_connections,
)
ATTACKS = {attack.__name__: attack for attack in _ALL}
