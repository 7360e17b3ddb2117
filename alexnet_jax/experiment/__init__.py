"""A config made into parts: settings, schedules, compiled steps."""
