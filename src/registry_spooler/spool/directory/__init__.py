"""The spool directory on the disk: its folders, its files, the locks on it."""
