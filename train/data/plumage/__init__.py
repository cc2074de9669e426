"""The built-in data set `plumage`: drawn birds whose species differ in few marks.

`species` says what there is to tell apart, `canvas` draws with an antialiased pen, `birds` draws
one bird, `habitats` what is behind it, `things` what is no bird, `scenes` puts them together and
`writing` writes the folders.
"""
