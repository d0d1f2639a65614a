"""What the tests of clients share."""

from tests.clients.flow import flow
from tests.clients.npm import node_folder, run_node

__all__ = ["flow", "node_folder", "run_node"]
