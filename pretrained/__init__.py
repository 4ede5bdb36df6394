"""The skills that ship with skillbank, read-only; each ``<name>.h5`` has a card ``<name>.md``."""
