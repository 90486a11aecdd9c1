"""The tables of rollouts: how a release takes over from another."""
