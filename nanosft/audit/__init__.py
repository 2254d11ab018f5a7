"""What a set of conversations that is there already is like.

`stage` puts every quality gate over it (`nanosft audit`) and `report` shows what was found; `inspection` describes
it in figures and samples (`nanosft inspect`).
"""
