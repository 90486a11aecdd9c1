"""
Webhooks: a delivery is believed, stored, answered, and only then turned into events.

    intake        who sends it, is it genuine, is it new: on disk before it is answered
    processor     deliveries on disk → events in the inbox, whatever is killed in between
    meaning       a forge's event → what the inbox keeps of it
    hooks         the addresses at which forges tell of projects, and their secrets in the vault
"""
