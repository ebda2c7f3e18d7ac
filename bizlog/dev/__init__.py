"""Servers for developing without the cloud; nothing of a service imports them."""
