"""The sinks that come with bizlog, one module each; importing this loads none."""
