"""The one exception that a user is meant to read."""


class UserError(Exception):
    """Something the user can mend: a setting, a path, a file on disk.

    The message is one line that says what is wrong and what to do. The command line prints it
    without a traceback and exits with code 2; everything else is a bug and keeps its traceback.
    """
