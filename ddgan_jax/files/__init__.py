"""Files as this program meets them: paths that people write, bytes of others, our own writing.

`paths` turns what a person wrote into a place. `foreign` reads bytes that this process did not
write, and is the only way in for them. `atomic` writes files and folders whole or not at all.
`locks` holds a place against a second writer.
"""
