"""
Forges: what a delivery means, and whether it may be believed.

Everything here is pure: `bytes, headers → events`, `bytes, headers, trust → nothing or AccessError`.
The clock, the network and the database belong to whoever calls.
"""
