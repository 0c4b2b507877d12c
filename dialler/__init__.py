"""Calls that are placed when they may be, and people on call who are woken one after the other: jobs, kept in a database."""
