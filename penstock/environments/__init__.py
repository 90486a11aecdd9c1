"""
Environments: where releases go, and the rules for getting there. They live with the platform, never in a repository.

`model` says what an environment is, `rules` what follows from that (pure), `store` keeps it, `admission` asks the
rules before a deployment, `waiting` lets go on what had to wait, `testing` really connects to what it names.
"""
