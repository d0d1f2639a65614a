"""What holds for whatever comes: random deliveries and random histories against real servers, and a model."""
