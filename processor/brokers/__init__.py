"""What sources, checks and publishers share of each broker: addresses, clients and advice."""
