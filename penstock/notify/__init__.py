"""Telling people: mails that ask for approvals, with links that answer."""
