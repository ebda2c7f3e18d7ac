"""What fits bizlog into a host: one module for each kind, loaded when it is used."""
