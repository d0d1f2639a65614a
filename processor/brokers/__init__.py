"""What sources, checks and producers share of each broker: addresses, clients and advice."""
