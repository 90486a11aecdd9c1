"""
Answers: what a forge shows of runs, and that it shows it in the end.

    connections   which forge is told of a project, and with which secret
    outbox        what a forge shall show, found by comparing runs and steps with what was told of them
    deliver       shows it: the newest state wins, tried again for days, never twice
    difference    what a pull request introduces and fixes, from the warehouse
    texts         the words, in the forms of forges
"""
