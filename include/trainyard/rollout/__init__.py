"""How traffic moves and how measurements become a verdict. Pure: no I/O."""
