"""How a plugin ends."""


class Ending(Exception):
    """Ends the plugin with an exit code; its words are the last line of the log."""

    exit_code = 1


class Failed(Ending):
    """The work was done, and it is not well."""


class TryAgain(Ending):
    """Something is away that may come back: the platform tries again after a pause."""

    exit_code = 75


class BadConfiguration(Ending):
    """What the pipeline's author wrote cannot be; trying again changes nothing."""

    exit_code = 78
