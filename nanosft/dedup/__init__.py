"""Texts that are the same, or nearly, told apart from those that are not. Pure, and torch-free.

`words` gives the normal form by which texts are compared, and the hashes of words; `texts` does it a batch of rows at
a time; `minhash` makes signatures and the keys under which near-duplicates meet; `index` is the search in memory.
"""
