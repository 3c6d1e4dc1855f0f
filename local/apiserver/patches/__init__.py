"""The four patch formats, each a pure function from (object, patch) to a new object."""
