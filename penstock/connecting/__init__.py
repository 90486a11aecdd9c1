"""
Connecting repositories: from an address to events that come in.

    detect     which forge is behind an address: by its host, or by asking it
    asking     a forge's API: guarded, bounded, errors in one line
    hooking    one Protocol for making, finding, removing and trying a hook; a file for each forge's API
    by_hand    what a person sets where no token may
    connect    connect, change and disconnect a repository
    trying     does it work: git, token, hook, ping
    editing    a penstock.yaml that is written on a page, as a commit on a branch
"""
