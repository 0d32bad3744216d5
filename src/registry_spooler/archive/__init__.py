"""Reading image archives: one pass, constant memory, everything verified.

`open_archive` (opening.py) recognises what a source holds (detect.py). A plain tar in a regular file becomes an
`IndexedArchive`, whose members are read in any order, side by side; all else (compressed, or a pipe) a
`StreamedArchive` (streaming.py), whose members come by once. Both tell their images (formats/), and both turn a
member into a blob (member_blob.py): bytes as they go over the wire, hashed, compressed when asked to, and checked.
"""
