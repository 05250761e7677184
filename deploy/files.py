"""Files that people name: why one can't be read, in words."""

from __future__ import annotations


def unread(error: OSError | UnicodeDecodeError) -> str:
    """Why a file can't be read, for the end of a sentence that names it."""
    match error:
        case FileNotFoundError():
            return "there is no such file"
        case IsADirectoryError():
            return "it is a folder"
        case NotADirectoryError():
            return "its path leads through a file"
        case PermissionError():
            return "this user may not read it"
        case UnicodeDecodeError():
            return "it is no text in UTF-8"
    return error.strerror or str(error)
