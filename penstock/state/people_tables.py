"""The tables of people: users, groups, and what they were sent to answer."""
