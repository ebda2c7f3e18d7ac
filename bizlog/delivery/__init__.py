"""From an accepted record to the sinks: queue, journal, lanes, and their one thread."""
