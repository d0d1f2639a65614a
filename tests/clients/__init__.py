"""Clients that others wrote, used as their documentation shows, through each door and into the table."""
