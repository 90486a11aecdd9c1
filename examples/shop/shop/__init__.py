"""A small shop: a catalogue, baskets, and what they cost. The standard library only."""
