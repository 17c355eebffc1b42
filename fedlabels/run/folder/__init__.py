"""The run folder: its layout, tables and checkpoints, and who owns it."""

from fedlabels.run.folder.folder import RunFolder, new_folder, remove_new

__all__ = ["RunFolder", "new_folder", "remove_new"]
