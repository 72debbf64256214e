"""The evidence pack: what can be shown of one model package, for who has to judge it.

A folder of files. ``evidence.json`` holds topics (the model card, where the data are from, the
decisions made, and so on), each of statements, and each statement names what it rests on: a file of
the folder, or records, and the SHA-256 of either. The sections of the legal regime in force say
which topics they ask for; a topic that has nothing to show says why. ``index.html`` is the same to
read, and ``SHA256SUMS`` seals the folder.

Nothing personal is in it: decisions are counted, not told.
"""
