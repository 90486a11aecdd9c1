"""People: who they are, what commits call them, which groups they are in, and what their tokens let them do."""

NAME = r"^[A-Za-z0-9][A-Za-z0-9._@+-]{0,99}$"
"""What a user or group may be called."""
