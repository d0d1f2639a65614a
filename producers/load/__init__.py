"""Load: thousands of tenants that send pulses over HTTP, and how long each took."""
